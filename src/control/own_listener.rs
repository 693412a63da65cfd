//! Listeners of the daemon itself, apart from its socket: a service on the port of one would take its connections, with the secrets
//! that their clients send.

use std::net::{IpAddr, SocketAddr};

use crate::config::Config;
use tcpgw_core::model::{Listen, Service};

/// Part of the daemon that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerRole {
    /// The provider API of the add-on, which platforms ask.
    Provider,
    /// Metrics and the operator's pages.
    Web,
}

/// A listener of the daemon itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnListener {
    /// Part of the daemon that listens.
    pub role: ListenerRole,
    /// Address that it listens on.
    pub address: SocketAddr,
}

impl ListenerRole {
    /// Returns the key of the configuration that has the address.
    pub fn key(self) -> &'static str {
        match self {
            Self::Provider => "addon.listen",
            Self::Web => "web.listen",
        }
    }

    /// Returns what clients send there.
    fn sent(self) -> &'static str {
        match self {
            Self::Provider => "the requests of the platform, with its password",
            Self::Web => "the requests for metrics, with the token",
        }
    }
}

impl OwnListener {
    /// Returns the listeners that a configuration names.
    pub fn configured(config: &Config) -> impl Iterator<Item = Self> {
        let provider = config.addon.as_ref().map(|settings| settings.listen);
        let web = config.web.as_ref().map(|settings| settings.listen);
        let of = |role: ListenerRole, address: Option<SocketAddr>| address.map(|address| Self { role, address });
        [of(ListenerRole::Provider, provider), of(ListenerRole::Web, web)]
            .into_iter()
            .flatten()
    }

    /// Returns whether connections to this listener go to the service.
    pub fn is_behind(self, service: &Service) -> bool {
        service.port.get() == self.address.port() && shares_address(&service.listen, self.address.ip())
    }

    /// Returns why a service that comes is not served beside this listener.
    pub fn refuses(self, service: &Service) -> String {
        let Self { role, address } = self;
        format!(
            "port {} is that of {} ({address}), where the daemon itself listens: the service's containers would get {}; choose another \
             port, or move {} and reload the daemon (SIGHUP)",
            service.port,
            role.key(),
            role.sent(),
            role.key()
        )
    }

    /// Returns why this listener is not used beside a service that has its port. `owner`: words about the service's owner, or nothing.
    pub fn refused_by(self, service: &Service, owner: &str) -> String {
        let Self { role, address } = self;
        format!(
            "{} is {address}, and port {} is the public port of service \"{}\"{owner}, whose containers would get {}; choose another port",
            role.key(),
            service.port,
            service.name,
            role.sent()
        )
    }
}

/// Returns whether connections from elsewhere to a listener on this address have a destination on which a service listens, too. A
/// listener on loopback has none of the service's connections.
pub fn shares_address(listen: &Listen, listener: IpAddr) -> bool {
    let address = listener.to_canonical();
    match listen {
        _ if address.is_loopback() => false,
        Listen::Everywhere => true,
        Listen::At(addresses) => addresses.iter().any(|own| match address {
            // `::` includes IPv4, unless the program has switched that off, which is not visible from outside.
            IpAddr::V6(any) if any.is_unspecified() => true,
            IpAddr::V4(any) if any.is_unspecified() => own.is_ipv4(),
            _ => *own == address,
        }),
    }
}
