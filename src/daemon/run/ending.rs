//! The end of the daemon: accepted orders are answered first.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};

use super::{DaemonLoop, Presence};
use crate::control::core::Now;

/// Time for which connections stay that wait for neither the store nor the kernel.
const CONNECTIONS: Duration = Duration::from_secs(1);
/// Time that the store and the kernel may take for accepted orders; after that, clients that wait for them are told
/// so.
const ANSWERS: Duration = Duration::from_secs(5);
/// Interval between checks whether something is due.
const STEP: Duration = Duration::from_millis(10);

impl DaemonLoop {
    /// Leaves everything as it is, with a record for the next one. What was accepted before is carried out and answered, within
    /// [`ANSWERS`]; what comes now is refused.
    pub(super) async fn end(mut self) {
        self.manager.stopping();
        self.core.refuse_orders();
        drop(self.stop.take());
        let listeners = [
            self.provider_api.listener.task.end(),
            self.web.listener.task.end(),
            self.readonly.task.end(),
        ];
        self.answer_all(listeners).await;
        drop(self.socket);
        Presence::withdraw(&self.run_dir, self.namespace);
        if let Some(kernel_thread) = self.kernel_thread.take() {
            // The job that is out must be done before another one is given.
            while self.core.is_busy() {
                match self.outcomes.recv().await {
                    Some(outcome) => self.core.done(outcome, Now::read()),
                    None => break,
                }
            }
            if let Some(job) = self.core.last_job(Now::read()) {
                kernel_thread.give(job);
                let _ = self.outcomes.recv().await;
            }
            kernel_thread.end();
        }
        // The thread may wait for an answer of the main loop.
        self.requests.close();
        while self.requests.try_recv().is_ok() {}
        if let Some(traffic) = self.traffic.take() {
            traffic.end();
        }
        self.web.keep(self.core.own_metrics());
        self.written.close();
        if let Some(store_thread) = self.store_thread.take() {
            store_thread.end();
        }
        if let Some((path, last)) = self.core.last_services(Now::read())
            && let Err(error) = last.save(&path)
        {
            tracing::warn!("failed to write {}: {error}", tcpgw_core::escape::path(&path));
        }
        if let Some(hooks) = self.hooks.take() {
            hooks.end();
        }
        tracing::info!("ended; the kernel forwards as before");
    }

    /// Works on until all listeners have answered all that they were asked, or the time is up.
    async fn answer_all(&mut self, listeners: [Option<JoinHandle<()>>; 3]) {
        let tasks: Vec<JoinHandle<()>> = self
            .api
            .0
            .take()
            .into_iter()
            .chain(listeners.into_iter().flatten())
            .collect();
        let to_abort: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
        let ended = async {
            for task in tasks {
                if let Err(error) = task.await {
                    tracing::error!(%error, "the task that serves an API has failed");
                }
            }
        };
        tokio::pin!(ended);
        let begin = Instant::now();
        let mut owed_at = begin;
        loop {
            let now = Now::read();
            self.signs.beat(now.instant);
            if self.core.owes_answers() {
                owed_at = now.instant;
                let working = self.write(now).and_then(|()| self.give_job(now));
                if let Err(error) = working {
                    tracing::error!("{error}");
                    break;
                }
            }
            let until = (owed_at + CONNECTIONS).min(begin + ANSWERS);
            if until <= now.instant {
                break;
            }
            // What is due by itself is not begun any more, but for a kernel that is told again.
            let again = self.core.wakes_at().filter(|_| self.core.owes_answers());
            let wake = again.map_or(until, |at| at.max(now.instant + STEP).min(until));
            let wake = self.signs.wakes_at(now.instant, Some(wake));
            tokio::select! {
                () = &mut ended => return,
                outcome = self.outcomes.recv() => match outcome {
                    Some(outcome) => self.core.done(outcome, Now::read()),
                    None => break,
                },
                written = self.written.recv() => match written {
                    Some(written) => self.core.written(written, Now::read()),
                    None => break,
                },
                Some(request) = self.requests.recv() => self.answer(request),
                Some(parsed) = self.parsed.1.recv() => self.apply(parsed),
                () = sleep_until(wake.into()) => {}
            }
        }
        self.core.give_up(Now::read());
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            self.answer(request);
        }
        if timeout(CONNECTIONS, &mut ended).await.is_err() {
            tracing::debug!("closed connections that had not ended in time");
            to_abort.iter().for_each(tokio::task::AbortHandle::abort);
        }
    }
}
