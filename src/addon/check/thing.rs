//! Things that a run makes at the provider.

/// Thing that the run made at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ProviderResource {
    /// An instance (OSB), by its id.
    Instance(String),
    /// A binding of an instance (OSB), by both ids.
    Binding(String, String),
    /// A resource, by the id that the platform gave the app.
    Resource(String),
}

/// Whether a thing is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResourcePresence {
    /// The thing was requested, and no answer says whether it was made.
    Perhaps,
    There,
    Gone,
}

/// A thing that the run requested.
#[derive(Debug, Clone)]
pub(super) struct CreatedResource {
    pub(super) thing: ProviderResource,
    pub(super) presence: ResourcePresence,
    /// The provider's own id, where that is needed to remove it.
    pub(super) id: Option<String>,
}
