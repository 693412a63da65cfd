//! The thread that changes the kernel: it runs one job after the other, so that there is one writer and the main loop
//! never waits.

use std::sync::mpsc as jobs;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc as results;

use super::names_teller::NamesTeller;
use super::service_manager::JobSigns;
use crate::control::job::{Job, JobOutcome, JobResult};
use crate::reconcile::engine::Engine;
use crate::view::TableView;
use tcpgw_core::ruleset::links::Links;
use tcpgw_kernel::Kernel;

/// Handle of the kernel thread.
#[derive(Debug)]
pub struct KernelThread {
    jobs: Option<jobs::SyncSender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl KernelThread {
    /// Starts the thread. The engine belongs to the network namespace of the thread that created it. `names` is told which services the
    /// kernel has.
    ///
    /// # Errors
    /// Fails when no thread can be started.
    pub(super) fn start<K: Kernel + Send + 'static>(
        engine: Engine<K>,
        links: impl FnMut() -> Option<Links> + Send + 'static,
        signs: JobSigns,
        names: NamesTeller,
        results: results::Sender<JobOutcome>,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = jobs::sync_channel(1);
        let thread = thread::Builder::new()
            .name("kernel".into())
            .spawn(move || work(engine, links, &signs, names, &receiver, &results))?;
        Ok(Self {
            jobs: Some(sender),
            thread: Some(thread),
        })
    }

    /// Starts a job; the job before must have ended. Returns whether the thread still works.
    pub fn give(&self, job: Job) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok())
    }

    /// Ends the thread, and with it its sockets.
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
    signs: &JobSigns,
    mut names: NamesTeller,
    jobs: &jobs::Receiver<Job>,
    results: &results::Sender<JobOutcome>,
) {
    while let Ok(job) = jobs.recv() {
        let outcome = signs.during(|| attend(&mut engine, &mut links, &mut names, job));
        if results.blocking_send(outcome).is_err() {
            return;
        }
    }
}

fn attend<K: Kernel>(
    engine: &mut Engine<K>,
    links: &mut impl FnMut() -> Option<Links>,
    names: &mut NamesTeller,
    job: Job,
) -> JobOutcome {
    let begin = Instant::now();
    let writes = matches!(
        job,
        Job::ReadContents(_) | Job::All(..) | Job::Check(..) | Job::Teardown(_)
    );
    if matches!(job, Job::All(..) | Job::Check(..))
        && let Some(links) = links()
    {
        engine.set_links(links);
    }
    let announced = names.begins(&job);
    if matches!(job, Job::Teardown(_)) {
        names.table_ends(engine.kernel());
    }
    let done = perform(engine, job);
    let at = Instant::now();
    let took = begin.elapsed();
    if let Some(announced) = announced {
        names.ended(announced, &done, engine.kernel());
    }
    let swept = match &done {
        JobResult::All(Ok(report)) | JobResult::Changed(Ok(Some(report))) => report.flushing,
        _ => Duration::ZERO,
    };
    let table = writes.then(|| {
        let about = engine.about().ok();
        about.and_then(|(about, generation)| Some(TableView::new(about?, generation)))
    });
    JobOutcome {
        done,
        at: at.checked_sub(swept).unwrap_or(at),
        took,
        table,
        record_trouble: engine.record_trouble(),
    }
}

/// Runs one job.
pub fn perform<K: Kernel>(engine: &mut Engine<K>, job: Job) -> JobResult {
    match job {
        Job::ReadContents(guide) => JobResult::ContentsRead(engine.read_contents(&guide)),
        Job::All(services, memo) => JobResult::All(engine.apply_all(&services, memo)),
        Job::Change(change, memo) => JobResult::Changed(engine.change(&change.old, &change.new, &change.beside, memo)),
        Job::Forget(backends) => JobResult::Forgot(engine.forget(&backends)),
        Job::Count(backends) => JobResult::Counted(engine.count(&backends)),
        Job::Check(services, memo) => JobResult::Checked(engine.check(&services, memo)),
        Job::Flush(services) => JobResult::Flushed(engine.flush_stale(&services)),
        Job::Tidy(services) => JobResult::Tidied(engine.tidy(&services)),
        Job::Record(services, memo) => {
            engine.record(&services, memo);
            JobResult::Recorded
        }
        Job::NoteTeardown(by) => {
            engine.note_teardown(&by);
            JobResult::Recorded
        }
        Job::Teardown(by) => JobResult::TornDown(engine.teardown(&by), by),
    }
}
