//! Preconditions of a check.

/// Precondition of a check. If it is not met, the check is skipped and the reason is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// The catalog.
    Catalog,
    /// A plan of the catalog that has schemas.
    Schemas,
    /// An offering with a plan.
    Offer,
    /// A second plan.
    OtherPlan,
    /// Instances can be fetched.
    InstancesRetrievable,
    /// Bindings can be fetched.
    BindingsRetrievable,
    /// Instances of the plan can be bound.
    Bindable,
    /// The plan of an instance can be changed.
    Updateable,
    /// The instance or the resource is there.
    Resource,
    /// The binding is there.
    Binding,
    /// The instance or the resource was there and was removed.
    ResourceRemoved,
    /// The binding was there and was removed.
    BindingRemoved,
    /// The manifest is known.
    Manifest,
    /// The address of single sign-on and its salt are known.
    SignOn,
}
