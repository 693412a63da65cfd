//! The flows of a service, with their clients.

use std::net::SocketAddr;

use maud::{Markup, html};

use crate::metrics::ServiceSample;
use crate::web::units;
use tcpgw_kernel::conntrack::{Flow, Selection, TcpState, Traffic};

/// Number of flows that a page shows.
const MOST: usize = 100;

/// The first flows of a service, and the number of all.
#[derive(Debug, Clone)]
pub struct FlowList {
    service: ServiceSample,
    /// Nanoseconds since 1970.
    now: u64,
    flows: Vec<ListedFlow>,
    all: u64,
}

/// Flow of a client, as a page shows it.
#[derive(Debug, Clone)]
struct ListedFlow {
    client: SocketAddr,
    backend: SocketAddr,
    seen_as: SocketAddr,
    /// State of the backend in the service; `None`: the service does not have it any more.
    standing: Option<&'static str>,
    state: Option<TcpState>,
    age: Option<u64>,
    to: Option<Traffic>,
    from: Option<Traffic>,
}

impl FlowList {
    /// Creates an empty list of a service's flows at `now`, in nanoseconds since 1970.
    pub fn new(service: ServiceSample, now: u64) -> Self {
        Self {
            service,
            now,
            flows: Vec::new(),
            all: 0,
        }
    }

    /// Returns the selection of flows that contains those of the service.
    pub fn selection(&self) -> Selection {
        Selection {
            public_port: Some(self.service.port),
            ..Selection::default()
        }
    }

    /// Adds a flow, if it is of the service: the first ones are shown, all are counted.
    pub fn add(&mut self, flow: &Flow) {
        let addresses = &self.service.addresses;
        let is_at = addresses.is_empty() || addresses.contains(&flow.public.ip());
        if flow.public.port() != self.service.port || !is_at {
            return;
        }
        self.all += 1;
        if self.flows.len() >= MOST {
            return;
        }
        let backend = self.service.backends.iter().find(|of| of.backend == flow.backend);
        self.flows.push(ListedFlow {
            client: flow.client,
            backend: flow.backend,
            seen_as: flow.seen_as,
            standing: backend.map(|backend| backend.state),
            state: flow.tcp_state,
            age: flow
                .started
                .map(|started| self.now.saturating_sub(started) / 1_000_000_000),
            to: flow.counters.map(|counters| counters.to),
            from: flow.counters.map(|counters| counters.from),
        });
    }

    /// Returns the table.
    pub(super) fn markup(&self) -> Markup {
        if self.all == 0 {
            return html! { p { "There are none." } };
        }
        html! {
            table.dense {
                caption {
                    (units::count(self.all)) " in conntrack"
                    @if self.all > self.flows.len() as u64 { "; these are the first " (self.flows.len()) }
                }
                thead {
                    tr {
                        th scope="col" { "Client" }
                        th scope="col" { "Backend" }
                        th scope="col" { "Backend sees" }
                        th scope="col" { "State" }
                        th.n scope="col" { "Age" }
                        th.n scope="col" { "To it" }
                        th.n scope="col" { "From it" }
                    }
                }
                tbody { @for flow in &self.flows { (row(flow)) } }
            }
            p.quiet { "All of them: " code { "tcpgw flows" } ". The client behind an address that a backend sees: " code { "tcpgw who" } "." }
        }
    }
}

fn row(flow: &ListedFlow) -> Markup {
    html! {
        tr {
            th scope="row" data-label="Client" { (flow.client) }
            td data-label="Backend" { div.cell { (flow.backend) } }
            td data-label="Backend sees" { div.cell { @if flow.seen_as == flow.client { "the client" } @else { (flow.seen_as) } } }
            td data-label="State" {
                div.cell {
                    @match flow.state { Some(state) => (state), None => "–" }
                    @match flow.standing {
                        Some("draining") => ", draining",
                        Some(_) => "",
                        None => ", of a backend that has left",
                    }
                }
            }
            td.n data-label="Age" { div.cell { @match flow.age { Some(age) => (units::span(age)), None => "–" } } }
            td.n data-label="To it" { div.cell { (bytes(flow.to)) } }
            td.n data-label="From it" { div.cell { (bytes(flow.from)) } }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is shown with three digits")]
fn bytes(traffic: Option<Traffic>) -> String {
    traffic.map_or_else(|| "–".into(), |traffic| units::bytes(traffic.bytes as f64))
}
