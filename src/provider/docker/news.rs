//! Message from the provider to the main loop: state of the engine, and its containers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tcpgw_core::container::{ContainerBackend, ContainerProblem, ContainerServices};
use tcpgw_core::model::{Endpoint, State};

/// State of the engine and its containers, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DockerNews {
    /// The containers as they were last known; `None`: the engine has not answered yet.
    pub snapshot: Option<Arc<DockerSnapshot>>,
    /// Reason why the engine is not followed now.
    pub trouble: Option<String>,
}

/// The services of all containers at one time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DockerSnapshot {
    /// The services, each valid beside the others. Unchanged services are shared with the last snapshot.
    pub state: Arc<State>,
    /// Containers that cannot have what their labels ask for.
    pub problems: Vec<ContainerProblem>,
    /// The container that each backend is.
    pub backends: BTreeMap<Endpoint, ContainerBackend>,
    /// Name of a container of each service, for messages.
    pub examples: BTreeMap<Box<str>, Box<str>>,
    /// Ids of all containers with labels that have a process, whether they are backends or not.
    pub running: BTreeSet<Box<str>>,
    /// Services with a container whose health check has no result yet.
    pub unchecked: BTreeSet<Box<str>>,
    /// Whether it is believed without services: the engine has named containers since it answers, or none for a while.
    pub is_certain: bool,
}

impl DockerSnapshot {
    /// Returns the snapshot of these services. Services that `last` has, too, are shared with it.
    pub(super) fn new(found: ContainerServices, is_certain: bool, last: Option<&Self>) -> Self {
        let mut state = State::from_valid(found.services.into_iter().map(Arc::new).collect());
        if let Some(last) = last {
            state.share(&last.state);
        }
        Self {
            state: Arc::new(state),
            problems: found.problems,
            backends: found.backends,
            examples: found.examples,
            running: found.running,
            unchecked: found.unchecked,
            is_certain,
        }
    }
}
