//! One flow, as it is shown, and which ones are.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{NoService, ServiceName, ServicesView};
use tcpgw_core::summary::FlowVerdict;
use tcpgw_kernel::conntrack::{Flow, Selection, TcpState, Traffic};

/// A flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowView<'a> {
    /// Who connects.
    pub client: SocketAddr,
    /// What it connects to.
    pub public: SocketAddr,
    /// The service there; `None` when there is none or its name is not known.
    pub service: Option<Cow<'a, str>>,
    /// Who answers.
    pub backend: SocketAddr,
    /// What the backend sees as its peer.
    pub seen_as: SocketAddr,
    /// What the state says of it.
    pub standing: FlowVerdict,
    /// The state of the connection, as conntrack names it.
    pub state: Option<TcpState>,
    /// Seconds since its first packet.
    pub age_seconds: Option<u64>,
    /// Seconds until conntrack forgets it if no packet comes.
    pub timeout_seconds: Option<u32>,
    /// What came for the backend.
    pub to_backend: Option<TrafficView>,
    /// What came from it.
    pub from_backend: Option<TrafficView>,
}

/// Traffic of one direction, before the limit took its share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficView {
    /// Merged ones (GRO) count once.
    pub packets: u64,
    /// IP headers included.
    pub bytes: u64,
}

impl From<Traffic> for TrafficView {
    fn from(Traffic { packets, bytes }: Traffic) -> Self {
        Self { packets, bytes }
    }
}

impl<'a> FlowView<'a> {
    /// As it stands at `now`, in nanoseconds since 1970.
    pub fn new(flow: &Flow, services: &'a ServicesView, now: u64) -> Self {
        let service = services.summary.service_at(flow.public);
        Self {
            client: flow.client,
            public: flow.public,
            service: service.and_then(|service| service.name.as_deref().map(Cow::Borrowed)),
            backend: flow.backend,
            seen_as: flow.seen_as,
            standing: services.standing(flow.public, flow.backend),
            state: flow.tcp_state,
            age_seconds: flow.started.map(|started| now.saturating_sub(started) / 1_000_000_000),
            timeout_seconds: flow.timeout,
            to_backend: flow.counters.map(|counters| counters.to.into()),
            from_backend: flow.counters.map(|counters| counters.from.into()),
        }
    }
}

/// Which flows are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    selection: Selection,
    /// Of a service on chosen addresses: these.
    addresses: Vec<IpAddr>,
}

impl Wanted {
    /// Those of a service, of a backend, of clients in a network. By its port, flows of a service that is gone are wanted,
    /// too.
    ///
    /// # Errors
    /// [`NoService`].
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

    /// What the kernel is asked for.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Whether a flow that the kernel showed is wanted.
    pub fn matches(&self, flow: &Flow) -> bool {
        self.addresses.is_empty() || self.addresses.contains(&flow.public.ip())
    }
}
