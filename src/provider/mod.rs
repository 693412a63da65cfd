//! Providers: those who say what the gateway should do. Each delivers whole states, never changes; one that is lost leaves
//! its last good state behind.

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::state_file::SourceError;
use tcpgw_core::model::{Problem, Problems, State};

mod chain;
pub mod file;
mod pace;

/// What a provider says.
#[derive(Debug)]
pub enum News {
    /// All that it wants, within the fences, and what is odd about it. What it has said before is shared with that.
    State(Arc<State>, Vec<Problem>),
    /// What it says now cannot be used: the last good state stays.
    Bad(Bad),
}

/// Why a state cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Bad {
    /// It could not be read.
    #[error("{0}")]
    Unreadable(String),
    /// It is not valid, or goes beyond a fence.
    #[error("{}: {problems}", tcpgw_core::escape::path(file))]
    Invalid {
        /// The file.
        file: PathBuf,
        /// All that is wrong.
        problems: Problems,
    },
}

impl From<SourceError> for Bad {
    fn from(error: SourceError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl Bad {
    /// One text for each thing that is wrong, with the file and the place.
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
