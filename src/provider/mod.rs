//! Providers: sources of the desired state. Each delivers whole states, never changes; if one is lost, its last valid
//! state stays in effect.

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::state_file::SourceError;
use tcpgw_core::model::{InputProblem, InputProblems, State};

mod chain;
pub mod docker;
pub mod file;
mod pace;

/// Message of a provider.
#[derive(Debug)]
pub enum News {
    /// Whole state of the provider, within the fences, with warnings. Unchanged services are shared with its last
    /// state.
    State(Arc<State>, Vec<InputProblem>),
    /// The present state cannot be used: the last valid state stays in effect.
    Bad(Bad),
}

/// Reason why a state cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Bad {
    /// The state could not be read.
    #[error("{0}")]
    Unreadable(String),
    /// The state is invalid, or exceeds a fence.
    #[error("{}: {problems}", tcpgw_core::escape::path(file))]
    Invalid {
        /// Path of the file.
        file: PathBuf,
        /// Errors in it.
        problems: InputProblems,
    },
}

impl From<SourceError> for Bad {
    fn from(error: SourceError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl Bad {
    /// Returns one line for each error, with the file and the place.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Unreadable(text) => vec![text.clone()],
            Self::Invalid { file, problems } => {
                let more = problems.total() - problems.iter().count();
                let more = (more > 0).then(|| format!("{}: and {more} more", tcpgw_core::escape::path(file)));
                problems
                    .iter()
                    .map(|problem| format!("{}: {problem}", tcpgw_core::escape::path(file)))
                    .chain(more)
                    .collect()
            }
        }
    }
}
