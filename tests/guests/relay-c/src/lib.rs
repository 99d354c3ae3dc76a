//! The last of the chain; see `relay`.

relay::stage!(C, hears = "relay.v1.third", reports = "relay.v1.request.report");
