//! Sets of the table that count drops: one for each reason, and each scope of services or family of backends.

use tcpgw_core::ruleset::name::{Family, Scope, SetName};

/// Number of reasons for which packets to a service, or to and from a backend, are dropped.
pub const REASONS: usize = 6;

/// Returns all sets that count drops.
pub fn sets() -> Vec<SetName> {
    let services = Scope::ALL.into_iter().flat_map(sets_of_services);
    services
        .chain(Family::BOTH.into_iter().flat_map(sets_of_backends))
        .collect()
}

/// Returns the sets of a scope, one for each reason.
pub fn sets_of_services(scope: Scope) -> [SetName; REASONS] {
    [
        SetName::Refused(scope),
        SetName::NoBackend(scope),
        SetName::Stale(scope),
        SetName::Invalid(scope),
        SetName::OverClient(scope),
        SetName::OverFlows(scope),
    ]
}

/// Returns the sets of a family, one for each reason.
pub fn sets_of_backends(family: Family) -> [SetName; REASONS] {
    [
        SetName::OverTo(family),
        SetName::OverFrom(family),
        SetName::InvalidFrom(family),
        SetName::StaleFrom(family),
        SetName::Reused(family),
        SetName::Direct(family),
    ]
}

/// Kind of the keys of a set of drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CounterOwner {
    /// Services of a scope.
    Service(Scope),
    /// Backends of a family.
    Backend(Family),
}

/// Returns which reason a set counts, by its position in [`sets_of_services`] or [`sets_of_backends`], and what its keys are; `None` for
/// other sets.
pub fn counter_of(set: SetName) -> Option<(usize, CounterOwner)> {
    let position = |sets: [SetName; REASONS]| sets.iter().position(|of| *of == set);
    let services = Scope::ALL.into_iter();
    let service = services.filter_map(|scope| Some((position(sets_of_services(scope))?, CounterOwner::Service(scope))));
    let backends = Family::BOTH.into_iter();
    let backend =
        backends.filter_map(|family| Some((position(sets_of_backends(family))?, CounterOwner::Backend(family))));
    service.chain(backend).next()
}
