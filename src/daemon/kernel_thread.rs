//! The thread that talks to the kernel: one job after the other, so that there is one writer and the loop never waits.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::mpsc as jobs;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc as results;

use super::service_manager::Pulse;
use crate::control::membership::{Change, Name};
use crate::reconcile::engine::{ChangeMemo, Checked, Engine, Found, Memo, Services};
use crate::reconcile::{ReconcileError, Report, Torn};
use crate::record::TornDown;
use crate::view::Table;
use tcpgw_core::ruleset::links::Links;
use tcpgw_core::summary::Summary;
use tcpgw_kernel::conntrack::{Deletion, Pair};
use tcpgw_kernel::{Kernel, KernelError};

/// One thing to do.
#[derive(Debug)]
pub enum Job {
    /// Look what is in the kernel.
    Look(Summary),
    /// Make the kernel equal to these services, whatever it holds.
    All(Services, Memo),
    /// Put some services in the place of others, with what is to be written down before.
    Change(Change, ChangeMemo),
    /// Delete the handshakes that these backends of services have not answered.
    Forget(BTreeSet<Pair>),
    /// Count the flows of these backends, each of the service that it leaves.
    Count(BTreeMap<Pair, Name>),
    /// See whether somebody else has written, and put it right.
    Check(Services, Memo),
    /// Delete the flows that none of these services explains, and look at nothing else.
    Flush(Services),
    /// Remove the counters of what is gone.
    Tidy(Services),
    /// Leave the record.
    Record(Services, Memo),
    /// Remove everything; by whom.
    Teardown(TornDown),
}

/// What it came to.
#[derive(Debug)]
pub enum Done {
    /// Of [`Job::Look`].
    Looked(Result<Found, ReconcileError>),
    /// Of [`Job::All`].
    All(Result<Report, ReconcileError>),
    /// Of [`Job::Change`]: `None` where a full run is due.
    Changed(Result<Option<Report>, ReconcileError>),
    /// Of [`Job::Forget`].
    Forgot(Result<Deletion, KernelError>),
    /// Of [`Job::Count`].
    Counted(Result<BTreeMap<(Name, SocketAddr), u64>, KernelError>),
    /// Of [`Job::Check`].
    Checked(Result<Checked, ReconcileError>),
    /// Of [`Job::Flush`].
    Flushed(Result<Report, ReconcileError>),
    /// Of [`Job::Tidy`].
    Tidied(Result<(), ReconcileError>),
    /// Of [`Job::Record`].
    Recorded,
    /// Of [`Job::Teardown`].
    TornDown(Result<Torn, ReconcileError>, TornDown),
}

/// A job that was done.
#[derive(Debug)]
pub struct Outcome {
    /// What it came to.
    pub done: Done,
    /// When the kernel had been told; of a change, before its flows were swept.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
    /// The table afterwards, where the job may have changed it.
    pub table: Option<Option<Table>>,
}

/// The thread, seen from the loop.
#[derive(Debug)]
pub struct Worker {
    jobs: Option<jobs::SyncSender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Worker {
    /// Starts it. The engine belongs to the network namespace of whoever made it.
    ///
    /// # Errors
    /// That no thread can be had.
    pub fn start<K: Kernel + Send + 'static>(
        engine: Engine<K>,
        links: impl FnMut() -> Option<Links> + Send + 'static,
        pulse: Pulse,
        results: results::Sender<Outcome>,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = jobs::sync_channel(1);
        let thread = thread::Builder::new()
            .name("kernel".into())
            .spawn(move || work(engine, links, &pulse, &receiver, &results))?;
        Ok(Self {
            jobs: Some(sender),
            thread: Some(thread),
        })
    }

    /// Gives it a job; it must have done the one before. Whether it still works.
    pub fn give(&self, job: Job) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok())
    }

    /// Ends it, and with it its sockets.
    pub fn end(mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that talks to the kernel has died");
        }
    }
}

fn work<K: Kernel>(
    mut engine: Engine<K>,
    mut links: impl FnMut() -> Option<Links>,
    pulse: &Pulse,
    jobs: &jobs::Receiver<Job>,
    results: &results::Sender<Outcome>,
) {
    while let Ok(job) = jobs.recv() {
        let outcome = pulse.during(|| attend(&mut engine, &mut links, job));
        if results.blocking_send(outcome).is_err() {
            return;
        }
    }
}

fn attend<K: Kernel>(engine: &mut Engine<K>, links: &mut impl FnMut() -> Option<Links>, job: Job) -> Outcome {
    let begin = Instant::now();
    let writes = matches!(job, Job::Look(_) | Job::All(..) | Job::Check(..) | Job::Teardown(_));
    if matches!(job, Job::All(..) | Job::Check(..))
        && let Some(links) = links()
    {
        engine.set_links(links);
    }
    let done = perform(engine, job);
    let at = Instant::now();
    let swept = match &done {
        Done::All(Ok(report)) | Done::Changed(Ok(Some(report))) => report.flushing,
        _ => Duration::ZERO,
    };
    let table = writes.then(|| {
        let about = engine.about().ok();
        about.and_then(|(about, generation)| Some(Table::new(about?, generation)))
    });
    Outcome {
        done,
        at: at.checked_sub(swept).unwrap_or(at),
        took: begin.elapsed(),
        table,
    }
}

/// Does one job.
pub fn perform<K: Kernel>(engine: &mut Engine<K>, job: Job) -> Done {
    match job {
        Job::Look(guide) => Done::Looked(engine.look(&guide)),
        Job::All(services, memo) => Done::All(engine.apply_all(&services, memo)),
        Job::Change(change, memo) => Done::Changed(engine.change(&change.old, &change.new, &change.beside, memo)),
        Job::Forget(backends) => Done::Forgot(engine.forget(&backends)),
        Job::Count(backends) => Done::Counted(engine.count(&backends)),
        Job::Check(services, memo) => Done::Checked(engine.check(&services, memo)),
        Job::Flush(services) => Done::Flushed(engine.flush_stale(&services)),
        Job::Tidy(services) => Done::Tidied(engine.tidy(&services)),
        Job::Record(services, memo) => {
            engine.record(&services, memo);
            Done::Recorded
        }
        Job::Teardown(by) => Done::TornDown(engine.teardown(&by), by),
    }
}
