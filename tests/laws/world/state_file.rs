//! The state file that a daemon follows.

use std::path::PathBuf;
use std::sync::Arc;

use tcpgw::provider::{Bad, News};
use tcpgw_core::model::State;

/// A state file, and what the configuration says of it.
#[derive(Debug)]
pub(crate) struct StateFile {
    pub(crate) path: PathBuf,
    /// True when the configuration names it.
    pub(crate) is_named: bool,
    /// `None` when there is no file.
    pub(crate) content: Option<State>,
    /// True when it may be empty though services are served.
    pub(crate) may_be_empty: bool,
}

impl Default for StateFile {
    fn default() -> Self {
        Self {
            path: "/state.json".into(),
            is_named: false,
            content: None,
            may_be_empty: false,
        }
    }
}

impl StateFile {
    pub(super) fn news(&self) -> News {
        match &self.content {
            Some(state) => News::State(Arc::new(state.clone()), Vec::new()),
            None => News::Bad(Bad::Unreadable("there is no file".into())),
        }
    }
}
