//! Samples for tests.

use super::sample::{BackendLine, ProblemLine, ServiceLine, TopLoad, TopSample};
use crate::view::condition::ServiceCondition;
use crate::view::flow_rates::{Rate, Rates};
use crate::view::status::LimitView;

/// Returns a sample of these services.
pub(super) fn sample(services: impl IntoIterator<Item = ServiceLine>) -> TopSample {
    let services: Vec<ServiceLine> = services.into_iter().collect();
    TopSample {
        ok: true,
        flows: services.iter().map(|service| service.load.flows).sum(),
        services,
        seconds: Some(2.0),
        ..TopSample::default()
    }
}

/// Returns a service with two backends and so many packets per second.
pub(super) fn service(name: &str, port: u16, packets: f64) -> ServiceLine {
    let rate = Rate {
        packets_per_second: packets,
        bytes_per_second: packets * 100.0,
    };
    ServiceLine {
        title: format!("{name} :{port}").into(),
        name: Some(name.into()),
        port,
        selector: name.into(),
        state: ServiceCondition::Up,
        up: 2,
        active: 2,
        load: TopLoad {
            flows: 3,
            connections: 100,
            rates: Some(Rates {
                to: rate,
                from: Rate::default(),
            }),
            of_limit: Some(packets / 1000.0),
            dropped: 0,
            drop_rate: Some(0.0),
        },
        limit: Some(LimitView {
            packets_per_second: 1000,
            bytes_per_second: 1_500_000,
            burst: 10_000,
            shared: false,
        }),
        backends: vec![backend("10.2.0.11:3000", 2), backend("10.2.0.12:3000", 1)],
    }
}

/// Returns a backend with so many flows.
pub(super) fn backend(address: &str, flows: u64) -> BackendLine {
    BackendLine {
        backend: address.parse().unwrap(),
        state: "healthy".into(),
        reason: None,
        is_active: true,
        is_up: true,
        seconds_left: None,
        load: TopLoad {
            flows,
            ..TopLoad::default()
        },
    }
}

/// Returns a problem.
pub(super) fn problem(message: &str) -> ProblemLine {
    ProblemLine {
        is_error: true,
        message: message.into(),
    }
}
