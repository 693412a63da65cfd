//! Problems of services that no provider defines any more.

use crate::view::ServicesView;
use tcpgw_core::owner::Owner;
use tcpgw_core::problem::{Problem, ProblemKind};
use tcpgw_core::words::{count, first_and_more};

/// Maximum number of names in one problem.
const MOST_NAMES: usize = 20;

/// Returns the problem of services that no provider defines any more, by the record.
pub fn orphaned_services(services: &ServicesView) -> Option<Problem> {
    let names = services
        .summary
        .services
        .iter()
        .filter_map(|service| service.name.as_deref());
    let names: Vec<&str> = names
        .filter(|name| services.owner(name).is_some_and(Owner::is_orphan))
        .collect();
    (!names.is_empty()).then(|| orphaned(&names, true))
}

/// Returns the problem that no provider defines these services any more. `are_served`: false while the gateway is torn
/// down.
pub fn orphaned(names: &[&str], are_served: bool) -> Problem {
    let (is, it) = if names.len() == 1 {
        ("is", "it")
    } else {
        ("are", "them")
    };
    let kept = if are_served {
        "served on"
    } else {
        "kept, and not served while the gateway is torn down,"
    };
    let message = format!(
        "{} that no provider defines any more {is} {kept} as orphaned: {}; define {it} anew, or remove {it} with `tcpgw service rm \
         NAME` or `tcpgw apply --prune`",
        count(names.len(), "service"),
        some_of(names)
    );
    Problem::new(ProblemKind::Orphaned, message)
}

/// Returns the first names, and the number of further ones.
pub fn some_of(names: &[&str]) -> String {
    first_and_more(names, MOST_NAMES)
}
