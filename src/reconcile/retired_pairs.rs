//! Pairs of service and backend that a change removes: looking up a few of them is faster than listing all flows.

use std::net::IpAddr;

use tcpgw_core::summary::{ServiceSummary, Summary};
use tcpgw_kernel::conntrack::Pair;

/// Largest number of removed backends that are looked up one by one; for more, one pass over all flows is cheaper.
const FEW_PAIRS: usize = 4;

/// Condition under which the flows of a pair are checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaves {
    /// The backend gets no new connections any more: handshakes that it has not answered are forgotten.
    Balance,
    /// The backend is removed.
    Service,
}

/// Returns the pairs of service and backend that are removed, if they are few and no other reason requires a pass over
/// all flows.
pub(super) fn few_retired(old: &Summary, new: &Summary, leaves: Leaves) -> Option<Vec<Pair>> {
    // Nothing changed: a repeated run is meant as a check, so every flow is read.
    if old == new {
        return None;
    }
    let mut pairs = Vec::new();
    for service in &old.services {
        let heir = new
            .services
            .binary_search_by(|other| other.listen_key().cmp(&service.listen_key()))
            .ok();
        let heir = heir.map(|at| &new.services[at]);
        if heir.is_some_and(|heir| heir.active == service.active && heir.draining == service.draining) {
            continue;
        }
        for backend in service.backends() {
            let stays_active = heir.is_some_and(|heir| heir.active.contains_key(&backend));
            let was_draining = service.draining.contains(&backend);
            let may_drain = was_draining || leaves == Leaves::Service;
            let still_draining = may_drain && heir.is_some_and(|heir| heir.draining.contains(&backend));
            if stays_active || still_draining {
                continue;
            }
            // Its unanswered handshakes have to be separated from others, or it serves the same port at another
            // address.
            if new
                .services
                .iter()
                .filter(|other| other.port == service.port)
                .any(|other| other.backends().any(|b| b == backend))
            {
                return None;
            }
            pairs.extend(listen_keys(service).map(|public| Pair {
                public,
                public_port: service.port,
                backend,
            }));
            if pairs.len() > FEW_PAIRS {
                return None;
            }
        }
    }
    Some(pairs)
}

fn listen_keys(service: &ServiceSummary) -> impl Iterator<Item = Option<IpAddr>> + '_ {
    let everywhere = service.addresses.is_empty().then_some(None);
    everywhere
        .into_iter()
        .chain(service.addresses.iter().copied().map(Some))
}
