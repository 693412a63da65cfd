//! Channels for answers.

use tokio::sync::oneshot;

/// Channel for an answer.
pub type ReplySender<T> = oneshot::Sender<T>;
