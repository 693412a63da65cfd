//! Services that containers ask for by their labels.
//!
//! Pure: a list of containers becomes services, and problems of the containers that ask for something impossible. Labels are
//! untrusted input, and are read by the parsers of the state file. Owns the labels and their defaults. Knows nothing of an engine,
//! its API or the services of other providers.

mod choice;
mod labels;
mod services;
mod value;

pub use self::labels::{LABELS, is_addressed};
pub use self::services::{
    ContainerBackend, ContainerProblem, ContainerServices, EarlierServices, claims_of, services_after, services_of,
};
pub use self::value::{Container, ContainerHealth, ContainerNetwork, NetworkReach, RunState};

#[cfg(test)]
mod tests;
