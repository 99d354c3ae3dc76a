//! The first of the chain; see `relay`.

relay::stage!(
    A,
    hears = "relay.v1.submit",
    says = "relay.v1.second",
    reports = "relay.v1.request.report_a"
);
