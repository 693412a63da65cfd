//! Search for the service whose element the kernel refused.

use std::net::SocketAddr;

use tcpgw_core::ruleset::name::{Family, Scope, SetName};
use tcpgw_core::ruleset::rows::{read_address, read_endpoint, read_port};
use tcpgw_core::summary::{ServiceSummary, Summary};
use tcpgw_kernel::KernelError;
use tcpgw_kernel::nftables::transaction::{MessageSubject, RefusedMessage};

/// Returns the service that a refusal concerns.
pub(super) fn owner(error: &KernelError, summary: &Summary) -> Option<String> {
    let KernelError::Refused(refused) = error else {
        return None;
    };
    refused.iter().find_map(|refused| match refused {
        RefusedMessage {
            subject: MessageSubject::Elements(set),
            element: Some(key),
            ..
        } => service(*set, key, summary).map(ToString::to_string),
        _ => None,
    })
}

fn service<'a>(set: SetName, key: &[u8], summary: &'a Summary) -> Option<&'a ServiceSummary> {
    let Some(scope) = set.scope() else {
        let endpoint = read_endpoint(backend_family(set)?, key)?;
        return summary.service_of(SocketAddr::new(endpoint.address, endpoint.port.get()));
    };
    match scope {
        Scope::Any => {
            let listening = matches!(set, SetName::Slots(_) | SetName::Allowed(_) | SetName::Denied(_));
            let port = read_port(if listening { key } else { key.get(4..)? })?.get();
            let of_port = |service: &&ServiceSummary| service.port == port && service.addresses.is_empty();
            summary.services.iter().find(of_port)
        }
        Scope::At(family) => {
            let port = read_port(key.get(family.address_len()..)?)?.get();
            summary.service_at(SocketAddr::new(read_address(family, key)?, port))
        }
    }
}

fn backend_family(set: SetName) -> Option<Family> {
    match set {
        SetName::Limited(family)
        | SetName::Unlimited(family)
        | SetName::Preserved(family)
        | SetName::Sources(family)
        | SetName::LimitTo(family)
        | SetName::LimitFrom(family)
        | SetName::LimitBoth(family)
        | SetName::HandshakesTo(family)
        | SetName::HandshakesFrom(family)
        | SetName::HandshakesBoth(family)
        | SetName::Protected(family)
        | SetName::Direct(family)
        | SetName::OverTo(family)
        | SetName::OverFrom(family)
        | SetName::InvalidFrom(family)
        | SetName::StaleFrom(family)
        | SetName::Reused(family) => Some(family),
        _ => None,
    }
}
