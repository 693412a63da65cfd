//! Preconditions of a check.

/// Precondition of a check. If it is not met, the check is skipped and the reason is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// The catalog is known.
    Catalog,
    /// A plan of the catalog has schemas.
    Schemas,
    /// An offering with a plan is known.
    Offer,
    /// A second plan is known.
    OtherPlan,
    /// Instances can be fetched.
    InstancesRetrievable,
    /// Bindings can be fetched.
    BindingsRetrievable,
    /// Instances of the plan can be bound.
    Bindable,
    /// The plan of an instance can be changed.
    Updateable,
    /// The instance or the resource exists.
    Resource,
    /// The binding exists.
    Binding,
    /// The instance or the resource existed and was removed.
    ResourceRemoved,
    /// The binding existed and was removed.
    BindingRemoved,
    /// The manifest is known.
    Manifest,
    /// The address of single sign-on and its salt are known.
    SignOn,
}
