//! A task that serves a listener, when to look after it, and its end with the daemon. Does not know what is served.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Task that serves a listener.
pub(super) trait Serving {
    /// Returns whether it has to be configured again, because its task has ended or its listener is gone.
    fn is_lost(&self) -> bool;

    /// Returns the signal to end, and the task.
    fn into_parts(self) -> (oneshot::Sender<()>, JoinHandle<()>);
}

/// A task that exists if its listener is configured and can be served.
pub(super) struct ServedTask<R> {
    pub(super) running: Option<R>,
    /// Whether it is served as configured.
    is_configured: bool,
    next_check: Instant,
    /// Interval between checks, and between attempts to serve.
    interval: Duration,
}

impl<R: Serving> ServedTask<R> {
    /// Creates a handle without a task.
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            running: None,
            is_configured: false,
            next_check: Instant::now(),
            interval,
        }
    }

    /// Returns the result of a configuration, and keeps whether it succeeded.
    pub(super) fn configured(&mut self, result: Result<(), String>) -> Result<(), String> {
        self.is_configured = result.is_ok();
        result
    }

    /// Returns whether to configure the listener again, because it is not served as configured, is lost, or is to be refused
    /// (`is_refused`).
    pub(super) fn is_due(&mut self, now: Instant, is_refused: impl FnOnce() -> bool) -> bool {
        if now < self.next_check {
            return false;
        }
        self.next_check = now + self.interval;
        !self.is_configured || self.running.as_ref().is_some_and(Serving::is_lost) || is_refused()
    }

    /// Returns the time of the next check.
    pub(super) fn wakes_at(&self) -> Instant {
        self.next_check
    }

    /// Ends the task and what it serves. Requests under way are still answered.
    pub(super) fn end(&mut self) -> Option<JoinHandle<()>> {
        let (stop, task) = self.running.take()?.into_parts();
        let _ = stop.send(());
        Some(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(bool, oneshot::Sender<()>, JoinHandle<()>);

    impl Serving for Fake {
        fn is_lost(&self) -> bool {
            self.0
        }

        fn into_parts(self) -> (oneshot::Sender<()>, JoinHandle<()>) {
            (self.1, self.2)
        }
    }

    #[tokio::test]
    async fn it_is_due_at_each_interval_while_something_is_wrong() {
        let interval = Duration::from_secs(2);
        let mut task = ServedTask::new(interval);
        let start = task.wakes_at();
        assert!(task.is_due(start, || false), "it was never configured");
        assert!(!task.is_due(start + interval / 2, || true));
        task.configured(Ok(())).unwrap();
        assert!(!task.is_due(start + interval, || false), "nothing is wrong");
        assert_eq!(task.wakes_at(), start + interval * 2);
        assert!(task.is_due(start + interval * 2, || true), "it is to be refused");
        task.configured(Err("x".into())).unwrap_err();
        assert!(task.is_due(start + interval * 3, || false), "it is served as before");
        task.configured(Ok(())).unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(async {
            let _ = stopped.await;
        });
        task.running = Some(Fake(true, stop, served));
        assert!(task.is_due(start + interval * 4, || false), "it is lost");
        task.end().unwrap().await.unwrap();
        assert!(task.end().is_none());
    }
}
