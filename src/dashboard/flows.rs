//! The flows of a service, with their clients.

use std::net::SocketAddr;

use maud::{Markup, html};

use crate::metrics::ServiceSample;
use crate::web::table::{PageColumn, captioned};
use crate::web::units;
use tcpgw_kernel::conntrack::{Flow, Selection, TcpState, Traffic};

/// Number of flows that a page shows.
const MOST: usize = 100;
const COLUMNS: [PageColumn<'_>; 7] = [
    PageColumn::Text("Client"),
    PageColumn::Text("Backend"),
    PageColumn::Text("Backend sees"),
    PageColumn::Text("State"),
    PageColumn::Numbers("Age"),
    PageColumn::Numbers("To it"),
    PageColumn::Numbers("From it"),
];

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
        let caption = html! {
            caption {
                (units::count(self.all)) " in conntrack"
                @if self.all > self.flows.len() as u64 { "; these are the first " (self.flows.len()) }
            }
        };
        let rows: Vec<_> = self.flows.iter().map(cells).collect();
        html! {
            (captioned("dense", &caption, &COLUMNS, &rows))
            p.quiet { "All of them: " code { "tcpgw flows" } ". The client behind an address that a backend sees: " code { "tcpgw who" } "." }
        }
    }
}

fn cells(flow: &ListedFlow) -> Vec<Markup> {
    vec![
        html! { (flow.client) },
        html! { (flow.backend) },
        html! { @if flow.seen_as == flow.client { "the client" } @else { (flow.seen_as) } },
        html! {
            @match flow.state { Some(state) => (state), None => "–" }
            @match flow.standing {
                Some("draining") => ", draining",
                Some(_) => "",
                None => ", of a backend that has left",
            }
        },
        html! { @match flow.age { Some(age) => (units::span(age)), None => "–" } },
        html! { (bytes(flow.to)) },
        html! { (bytes(flow.from)) },
    ]
}

#[expect(clippy::cast_precision_loss, reason = "it is shown with three digits")]
fn bytes(traffic: Option<Traffic>) -> String {
    traffic.map_or_else(|| "–".into(), |traffic| units::bytes(traffic.bytes as f64))
}
