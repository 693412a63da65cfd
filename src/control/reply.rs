//! Channels for answers.

use tokio::sync::oneshot;

/// Channel for an answer.
pub type Reply<T> = oneshot::Sender<T>;
