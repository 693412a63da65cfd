//! Which pairs of service and backend a change retires: a few of them are found faster than all our flows are listed.

use std::net::IpAddr;

use crate::kernel::conntrack::Pair;
use crate::summary::{ServiceSummary, Summary};

/// Above this many retired backends, one pass over all our flows is cheaper than a look for each.
const FEW_PAIRS: usize = 4;

/// The pairs of service and backend that are gone, if they are few and nothing else needs a look at the flows.
pub(super) fn few_retired(old: &Summary, new: &Summary) -> Option<Vec<Pair>> {
    // Nothing changed: whoever runs it again wants to be sure, so look at every flow.
    if old == new {
        return None;
    }
    let mut pairs = Vec::new();
    for service in &old.services {
        let heir = new
            .services
            .binary_search_by(|other| other.door().cmp(&service.door()))
            .ok();
        let heir = heir.map(|at| &new.services[at]);
        if heir.is_some_and(|heir| heir.active == service.active && heir.draining == service.draining) {
            continue;
        }
        for backend in service.backends() {
            let stays_active = heir.is_some_and(|heir| heir.active.contains_key(&backend));
            let was_draining = service.draining.contains(&backend);
            let still_draining = was_draining && heir.is_some_and(|heir| heir.draining.contains(&backend));
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
            pairs.extend(doors(service).map(|public| Pair {
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

fn doors(service: &ServiceSummary) -> impl Iterator<Item = Option<IpAddr>> + '_ {
    let everywhere = service.addresses.is_empty().then_some(None);
    everywhere
        .into_iter()
        .chain(service.addresses.iter().copied().map(Some))
}
