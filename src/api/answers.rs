//! Answers of the API: the types that the daemon writes and the command line reads. Unknown fields, which a newer daemon may
//! add, are ignored.

mod addon;
mod apply;
mod daemon;
mod deploy;
mod event;
mod history;
mod reply;
mod service;

use std::time::Duration;

pub use self::addon::{ResourceAnswer, ResourceListAnswer};
pub use self::apply::ApplyAnswer;
pub use self::daemon::{DaemonAnswer, ReportedProblems};
pub use self::deploy::{DeployAnswer, DeployList};
pub use self::event::{EventAnswer, EventList};
pub use self::history::{HistoryAnswer, HistoryList};
pub use self::reply::AnswerWithJson;
pub use self::service::{
    BatchAnswer, BatchItemAnswer, EditAnswer, ListedAnswer, ServiceAnswer, ServiceFields, ServiceList,
};

/// Converts a time since 1970 to seconds, rounded to milliseconds.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}
