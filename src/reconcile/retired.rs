//! Which pairs of service and backend a change retires: a few of them are found faster than all our flows are listed.

use std::net::IpAddr;

use tcpgw_core::summary::{ServiceSummary, Summary};
use tcpgw_kernel::conntrack::Pair;

/// Above this many retired backends, one pass over all our flows is cheaper than a look for each.
const FEW_PAIRS: usize = 4;

/// What has to happen to a pair for its flows to be looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaves {
    /// Its backend gets no new connections any more: handshakes that it has not answered are forgotten.
    Balance,
    /// Its backend is gone.
    Service,
}

/// The pairs of service and backend that are gone, if they are few and nothing else needs a look at the flows.
pub(super) fn few_retired(old: &Summary, new: &Summary, leaves: Leaves) -> Option<Vec<Pair>> {
    // Nothing changed: whoever runs it again wants to be sure, so look at every flow.
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
            // Its unanswered handshakes have to be told from the rest, or it serves the same port at another address.
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
