//! Transitions of a resource: the step that follows a request, by the state of the resource. Contains no values.

use super::resource::ResourceStatus;

/// State of the resource that a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Existence {
    /// The resource never existed, or its removal is no longer remembered.
    Unknown,
    /// The resource exists, with this status.
    Known(ResourceStatus),
    /// The resource was deprovisioned.
    Removed,
}

/// The kind of a request about a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LifecycleEvent {
    /// A new resource.
    Provision,
    /// A change of the plan.
    ChangePlan,
    /// A suspension: new connections shall be reset.
    Suspend,
    /// The end of a suspension.
    Resume,
    /// A removal of the resource.
    Deprovision,
    /// A new binding.
    Bind,
    /// The end of a binding.
    Unbind,
}

/// Meaning of a deprovisioned id in a dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tombstones {
    /// The id can be used for a new resource.
    Free,
    /// The id is never used again (Heroku).
    Kept,
}

/// Step that follows a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LifecycleStep {
    /// A resource is made.
    Create,
    /// The request is compared with the existing resource: a repetition, or a conflict.
    Compare,
    /// The plan is replaced.
    SetPlan,
    /// The status of the resource becomes this one.
    SetStatus(ResourceStatus),
    /// The resource is already as requested.
    Nothing,
    /// The resource is removed.
    Remove,
    /// A binding is added.
    Bind,
    /// A binding is removed.
    Unbind,
    /// Refused: there is no such resource.
    NotFound,
    /// Refused: the resource existed, and is gone.
    Gone,
}

/// Returns the step that follows a request.
pub fn step(existence: Existence, event: LifecycleEvent, tombstones: Tombstones) -> LifecycleStep {
    use Existence::{Known, Removed, Unknown};
    use ResourceStatus::{Active, Suspended};
    match (event, existence) {
        (LifecycleEvent::Provision, Removed) if tombstones == Tombstones::Kept => LifecycleStep::Gone,
        (LifecycleEvent::Provision, Unknown | Removed) => LifecycleStep::Create,
        (LifecycleEvent::Provision, Known(_)) => LifecycleStep::Compare,
        (_, Unknown) => LifecycleStep::NotFound,
        (_, Removed) => LifecycleStep::Gone,
        // A plan is bought and sold while a resource is suspended, too: it counts from the next resume.
        (LifecycleEvent::ChangePlan, Known(Active | Suspended)) => LifecycleStep::SetPlan,
        (LifecycleEvent::Suspend, Known(Active)) => LifecycleStep::SetStatus(Suspended),
        (LifecycleEvent::Resume, Known(Suspended)) => LifecycleStep::SetStatus(Active),
        (LifecycleEvent::Suspend, Known(Suspended)) | (LifecycleEvent::Resume, Known(Active)) => LifecycleStep::Nothing,
        (LifecycleEvent::Deprovision, Known(_)) => LifecycleStep::Remove,
        (LifecycleEvent::Bind, Known(_)) => LifecycleStep::Bind,
        (LifecycleEvent::Unbind, Known(_)) => LifecycleStep::Unbind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Existence::{Known, Removed, Unknown};
    use ResourceStatus::{Active, Suspended};

    const EVENTS: [LifecycleEvent; 7] = [
        LifecycleEvent::Provision,
        LifecycleEvent::ChangePlan,
        LifecycleEvent::Suspend,
        LifecycleEvent::Resume,
        LifecycleEvent::Deprovision,
        LifecycleEvent::Bind,
        LifecycleEvent::Unbind,
    ];

    #[test]
    fn every_request_in_every_state_has_its_step() {
        use LifecycleStep::{Bind, Compare, Create, Gone, NotFound, Nothing, Remove, SetPlan, SetStatus, Unbind};
        let table = [
            (
                Unknown,
                [Create, NotFound, NotFound, NotFound, NotFound, NotFound, NotFound],
            ),
            (
                Known(Active),
                [Compare, SetPlan, SetStatus(Suspended), Nothing, Remove, Bind, Unbind],
            ),
            (
                Known(Suspended),
                [Compare, SetPlan, Nothing, SetStatus(Active), Remove, Bind, Unbind],
            ),
            (Removed, [Create, Gone, Gone, Gone, Gone, Gone, Gone]),
        ];
        for (existence, steps) in table {
            for (event, expected) in EVENTS.into_iter().zip(steps) {
                assert_eq!(
                    step(existence, event, Tombstones::Free),
                    expected,
                    "{existence:?} {event:?}"
                );
                let kept = match (existence, event) {
                    (Removed, LifecycleEvent::Provision) => Gone,
                    _ => expected,
                };
                assert_eq!(
                    step(existence, event, Tombstones::Kept),
                    kept,
                    "{existence:?} {event:?}"
                );
            }
        }
    }
}
