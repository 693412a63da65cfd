//! View of a flow, and the selection of flows.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{NoService, ServiceName, ServicesView};
use crate::traffic::TrafficView;
use tcpgw_core::summary::FlowVerdict;
use tcpgw_kernel::conntrack::{Flow, Selection, TcpState};

/// View of a flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowView<'a> {
    /// Address of the client.
    pub client: SocketAddr,
    /// Address that the client connects to.
    pub public: SocketAddr,
    /// Name of the service there; `None`: there is none, or its name is not known.
    pub service: Option<Cow<'a, str>>,
    /// Address of the backend.
    pub backend: SocketAddr,
    /// Address of the peer as the backend sees it.
    pub seen_as: SocketAddr,
    /// Verdict on the flow: the state of its backend in the service, or stale.
    pub verdict: FlowVerdict,
    /// State of the connection, as conntrack names it.
    pub state: Option<TcpState>,
    /// Seconds since its first packet.
    pub age_seconds: Option<u64>,
    /// Seconds until conntrack removes it if no packet comes.
    pub timeout_seconds: Option<u32>,
    /// Traffic to the backend.
    pub to_backend: Option<TrafficView>,
    /// Traffic from the backend.
    pub from_backend: Option<TrafficView>,
}

impl<'a> FlowView<'a> {
    /// Returns the view of a flow at `now`, in nanoseconds since the Unix epoch.
    pub fn new(flow: &Flow, services: &'a ServicesView, now: u64) -> Self {
        let service = services.summary.service_at(flow.public);
        Self {
            client: flow.client,
            public: flow.public,
            service: service.and_then(|service| service.name.as_deref().map(Cow::Borrowed)),
            backend: flow.backend,
            seen_as: flow.seen_as,
            verdict: services.verdict(flow.public, flow.backend),
            state: flow.tcp_state,
            age_seconds: flow.started.map(|started| now.saturating_sub(started) / 1_000_000_000),
            timeout_seconds: flow.timeout,
            to_backend: flow.counters.map(|counters| counters.to.into()),
            from_backend: flow.counters.map(|counters| counters.from.into()),
        }
    }
}

/// Selection of flows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowSelection {
    selection: Selection,
    /// Addresses of a service that listens on chosen ones.
    addresses: Vec<IpAddr>,
}

impl FlowSelection {
    /// Selects the flows of a service, of a backend, and of clients in a network. A port also selects flows of a
    /// removed service.
    ///
    /// # Errors
    /// Fails with [`NoService`] when the named service does not exist.
    pub fn new(
        service: Option<&ServiceName>,
        backend: Option<SocketAddr>,
        client: Option<IpNet>,
        services: &ServicesView,
    ) -> Result<Self, NoService> {
        let mut wanted = Self {
            selection: Selection {
                client,
                backend,
                ..Selection::default()
            },
            addresses: Vec::new(),
        };
        match service {
            None => {}
            Some(ServiceName::ListensAt(address, port)) => {
                wanted.selection.public = *address;
                wanted.selection.public_port = Some(*port);
            }
            Some(name) => {
                let service = name.find(&services.summary)?;
                wanted.selection.public_port = Some(service.port);
                match service.addresses.iter().copied().collect::<Vec<_>>().as_slice() {
                    [only] => wanted.selection.public = Some(*only),
                    several => wanted.addresses = several.to_vec(),
                }
            }
        }
        Ok(wanted)
    }

    /// Returns the part of the selection that the kernel evaluates.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Returns whether a flow that the kernel returned is selected.
    pub fn matches(&self, flow: &Flow) -> bool {
        self.addresses.is_empty() || self.addresses.contains(&flow.public.ip())
    }
}
