//! The second of the chain; see `relay`.

relay::stage!(
    B,
    hears = "relay.v1.second",
    says = "relay.v1.third",
    reports = "relay.v1.request.report_b"
);
