//! Queries and orders to the daemon besides the samples, and what it answered.

use std::net::SocketAddr;

use crate::view::flows::FlowView;
use tcpgw_core::summary::FlowVerdict;

/// Largest number of flows that are kept: those with the most bytes.
pub(super) const MOST_FLOWS: usize = 1000;
/// Length of a pause.
pub(super) const PAUSE: &str = "30s";

/// Query or order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TopQuery {
    /// Asks for flows.
    Flows(FlowsTarget),
    /// Asks for the client that a backend sees as this peer.
    Who(WhoTarget),
    /// Changes a service.
    Order(TopOrder),
}

/// Answer to a query, or the reason why there is none.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TopAnswer {
    /// Flows.
    Flows(FlowsTarget, Result<FlowPage, String>),
    /// Flows of the peer.
    Who(WhoTarget, Result<FlowPage, String>),
    /// Result of an order, in words.
    Order(Result<String, String>),
}

/// Flows to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FlowsTarget {
    /// Title and selector of their service; `None`: flows of all services.
    pub(super) service: Option<(Box<str>, Box<str>)>,
    /// Their backend; `None`: any.
    pub(super) backend: Option<SocketAddr>,
    /// Text that they contain, in small letters.
    pub(super) filter: String,
}

/// Peer to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WhoTarget {
    /// Address of the peer as the backend sees it.
    pub(super) seen_as: SocketAddr,
    /// The backend; `None`: any.
    pub(super) backend: Option<SocketAddr>,
}

/// Change of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopOrder {
    /// Name of the service.
    pub(super) service: Box<str>,
    /// Change that is ordered.
    pub(super) kind: OrderKind,
}

/// Change that an order makes to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OrderKind {
    /// Stops new connections to a backend.
    Drain(SocketAddr),
    /// Sends new connections to a backend again.
    Undrain(SocketAddr),
    /// Drops new connections for [`PAUSE`].
    Pause,
    /// Ends a pause.
    Resume,
}

/// Flows that are shown.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct FlowPage {
    /// Number of flows that match, shown or not.
    pub(super) matching: u64,
    /// Flows, those with the most bytes first; at most [`MOST_FLOWS`].
    pub(super) flows: Vec<FlowLine>,
}

/// Flow of a client to a backend, as the table of flows shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FlowLine {
    /// Address of the client.
    pub(super) client: SocketAddr,
    /// Name of the service.
    pub(super) service: Option<Box<str>>,
    /// Address of the backend.
    pub(super) backend: SocketAddr,
    /// Address of the client as the backend sees it.
    pub(super) seen_as: SocketAddr,
    /// State of the connection, or the one of its backend if that is not active.
    pub(super) state: String,
    /// Seconds since the first packet.
    pub(super) age: Option<u64>,
    /// Number of bytes to the backend.
    pub(super) to: Option<u64>,
    /// Number of bytes from the backend.
    pub(super) from: Option<u64>,
}

impl FlowLine {
    /// Creates the line of a flow.
    pub(super) fn new(flow: &FlowView<'_>) -> Self {
        let state = match flow.verdict {
            FlowVerdict::Active => flow.state.map_or_else(|| "-".to_owned(), |state| state.to_string()),
            FlowVerdict::Draining => "draining".to_owned(),
            FlowVerdict::Stale => "STALE".to_owned(),
        };
        Self {
            client: flow.client,
            service: flow.service.as_deref().map(Into::into),
            backend: flow.backend,
            seen_as: flow.seen_as,
            state,
            age: flow.age_seconds,
            to: flow.to_backend.map(|traffic| traffic.bytes),
            from: flow.from_backend.map(|traffic| traffic.bytes),
        }
    }

    /// Returns the number of bytes of both directions.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.to.zip(self.from).map(|(to, from)| to.saturating_add(from))
    }

    /// Returns whether it contains a text in small letters.
    fn is_wanted(&self, wanted: &str) -> bool {
        let contains = |address: SocketAddr| address.to_string().contains(wanted);
        let service = self.service.as_deref().unwrap_or_default();
        wanted.is_empty()
            || contains(self.client)
            || contains(self.backend)
            || contains(self.seen_as)
            || service.to_lowercase().contains(wanted)
            || self.state.to_lowercase().contains(wanted)
    }
}

/// The flows with the most bytes among any number of them.
#[derive(Debug)]
pub(super) struct LargestFlows {
    filter: String,
    page: FlowPage,
}

impl LargestFlows {
    /// Creates a selection of flows that contain this text in small letters.
    pub(super) fn new(filter: &str) -> Self {
        Self {
            filter: filter.to_owned(),
            page: FlowPage::default(),
        }
    }

    /// Adds a flow.
    pub(super) fn add(&mut self, flow: &FlowView<'_>) {
        let line = FlowLine::new(flow);
        if !line.is_wanted(&self.filter) {
            return;
        }
        self.page.matching += 1;
        self.page.flows.push(line);
        if self.page.flows.len() >= 2 * MOST_FLOWS {
            self.cut();
        }
    }

    /// Returns the largest ones.
    pub(super) fn end(mut self) -> FlowPage {
        self.cut();
        self.page
    }

    fn cut(&mut self) {
        let key = |line: &FlowLine| (std::cmp::Reverse(line.bytes()), line.client, line.backend);
        self.page.flows.sort_by_key(key);
        self.page.flows.truncate(MOST_FLOWS);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::traffic::TrafficView;

    fn flow(number: u32) -> FlowView<'static> {
        let client = SocketAddr::new(
            Ipv4Addr::from(0xcb00_7100 + number / 60_000).into(),
            1 + (number % 60_000) as u16,
        );
        let traffic = |bytes| Some(TrafficView { packets: 1, bytes });
        FlowView {
            client,
            public: "203.0.113.1:8000".parse().unwrap(),
            service: Some("web".into()),
            backend: "10.2.0.11:3000".parse().unwrap(),
            seen_as: "10.2.0.1:40000".parse().unwrap(),
            verdict: FlowVerdict::Active,
            state: None,
            age_seconds: None,
            timeout_seconds: None,
            to_backend: traffic(u64::from(number)),
            from_backend: traffic(0),
        }
    }

    #[test]
    fn the_largest_of_many_flows_are_kept() {
        let mut largest = LargestFlows::new("");
        for number in 0..100_000 {
            largest.add(&flow(number));
            assert!(largest.page.flows.len() < 2 * MOST_FLOWS);
        }
        let page = largest.end();
        assert_eq!((page.matching, page.flows.len()), (100_000, MOST_FLOWS));
        assert_eq!(page.flows[0].bytes(), Some(99_999));
        assert_eq!(page.flows[MOST_FLOWS - 1].bytes(), Some(99_000));
    }

    #[test]
    fn flows_are_filtered_by_what_is_shown() {
        for (filter, count) in [
            ("203.0.113", 3),
            ("10.2.0.11:3000", 3),
            ("web", 3),
            ("mail", 0),
            (":2", 1),
        ] {
            let mut largest = LargestFlows::new(filter);
            (0..3).for_each(|number| largest.add(&flow(number)));
            assert_eq!(largest.end().matching, count, "{filter}");
        }
    }
}
