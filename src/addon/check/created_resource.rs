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

/// A thing that the run requested, or was about to request.
#[derive(Debug, Clone)]
pub(super) struct CreatedResource {
    pub(super) thing: ProviderResource,
    pub(super) presence: ResourcePresence,
    /// The provider's own id, where that is needed to remove it.
    pub(super) id: Option<String>,
    /// Whether a request that may have made it has left.
    pub(super) is_requested: bool,
    /// Whether no answer came to one of these requests.
    pub(super) is_lost: bool,
    /// Whether a request may have removed it, of which no answer says so.
    pub(super) may_be_removed: bool,
}

impl CreatedResource {
    pub(super) fn new(thing: ProviderResource, presence: ResourcePresence, id: Option<String>) -> Self {
        Self {
            thing,
            presence,
            id,
            is_requested: false,
            is_lost: false,
            may_be_removed: false,
        }
    }
}
