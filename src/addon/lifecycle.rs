//! Transitions of a resource: the step that follows a request, by the state of the resource. Contains no values.

use super::resource::Status;

/// State of the resource that a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Existence {
    /// The resource never existed, or its removal is no longer remembered.
    Unknown,
    /// The resource exists, with this status.
    Known(Status),
    /// The resource was deprovisioned.
    Removed,
}

/// The kind of a request about a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
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
    SetStatus(Status),
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
pub fn step(existence: Existence, event: Event, tombstones: Tombstones) -> LifecycleStep {
    use Existence::{Known, Removed, Unknown};
    use Status::{Active, Suspended};
    match (event, existence) {
        (Event::Provision, Removed) if tombstones == Tombstones::Kept => LifecycleStep::Gone,
        (Event::Provision, Unknown | Removed) => LifecycleStep::Create,
        (Event::Provision, Known(_)) => LifecycleStep::Compare,
        (_, Unknown) => LifecycleStep::NotFound,
        (_, Removed) => LifecycleStep::Gone,
        // A plan is bought and sold while a resource is suspended, too: it counts from the next resume.
        (Event::ChangePlan, Known(Active | Suspended)) => LifecycleStep::SetPlan,
        (Event::Suspend, Known(Active)) => LifecycleStep::SetStatus(Suspended),
        (Event::Resume, Known(Suspended)) => LifecycleStep::SetStatus(Active),
        (Event::Suspend, Known(Suspended)) | (Event::Resume, Known(Active)) => LifecycleStep::Nothing,
        (Event::Deprovision, Known(_)) => LifecycleStep::Remove,
        (Event::Bind, Known(_)) => LifecycleStep::Bind,
        (Event::Unbind, Known(_)) => LifecycleStep::Unbind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Existence::{Known, Removed, Unknown};
    use Status::{Active, Suspended};

    const EVENTS: [Event; 7] = [
        Event::Provision,
        Event::ChangePlan,
        Event::Suspend,
        Event::Resume,
        Event::Deprovision,
        Event::Bind,
        Event::Unbind,
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
                    (Removed, Event::Provision) => Gone,
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
