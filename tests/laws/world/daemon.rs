//! The life of a daemon: it starts, carries out what is due, and is killed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tcpgw::config::Config;
use tcpgw::control::core::Core;
use tcpgw::control::job::{Job, JobOutcome};
use tcpgw::control::storage::Write;
use tcpgw::daemon::kernel_thread;
use tcpgw::reconcile::engine::Engine;
use tcpgw::store::Store;
use tcpgw::store::last_services::LastServices;
use tcpgw_core::model::{FlowMark, State};
use tcpgw_core::summary::Summary;
use tcpgw_kernel::fake::Fake;

use super::clock::next_step;
use super::examinations::IsKnown;
use super::storage::Storage;
use super::{Clients, NAMESPACE, World};

impl<C: Clients> World<C> {
    /// Starts a daemon over that kernel.
    pub(crate) fn start(&mut self, kernel: Fake) {
        let active = Summary::of_kernel(&kernel.ruleset(), &Summary::default());
        let active = active.services.iter().flat_map(|service| service.active.keys());
        self.containers.met.extend(active);
        let mut engine = Engine::new(kernel, self.record_file(), NAMESPACE, FlowMark::default());
        engine.set_links(self.links.clone());
        self.engine = Some(engine);
        let (settings, now) = (self.settings(), self.time());
        self.core = Core::new(settings, self.config.clone(), NAMESPACE, now);
        let recorded = self.recorded_store();
        let last = match &mut self.storage {
            Some(storage) => {
                let (last, opened) = storage.open(recorded, &self.boot, now.unix);
                self.core.opened(opened, now);
                last
            }
            None => LastServices::default(),
        };
        self.core.served_last(last, self.boot.clone());
        self.examinations.restart();
        if self.file.is_named {
            self.tell_file();
        } else {
            self.core.begin(now);
        }
    }

    /// Kills the daemon, and returns the kernel.
    pub(crate) fn kill(&mut self) -> Fake {
        self.clients.lose_daemon();
        if let Some(storage) = &mut self.storage {
            storage.close();
        }
        let mut kernel = self.engine.take().expect("a daemon runs").into_kernel();
        kernel.restart();
        kernel
    }

    /// Kills the daemon, and starts another one.
    pub(crate) fn restart(&mut self) {
        let kernel = self.kill();
        self.start(kernel);
    }

    pub(crate) fn storage(&mut self) -> &mut Storage {
        self.storage.as_mut().expect("the daemon has a store")
    }

    pub(crate) fn store_path(&self) -> PathBuf {
        let storage = self.storage.as_ref();
        storage.expect("the daemon has a store").path().to_owned()
    }

    /// Returns the open store.
    pub(crate) fn store(&mut self) -> &mut Store {
        self.storage().store()
    }

    /// Tells the daemon what is in the state file.
    pub(crate) fn tell_file(&mut self) {
        let (news, now) = (self.file.news(), self.time());
        let (surroundings, examinations) = (&self.surroundings, &mut self.examinations);
        let vet = &mut |state: &State, is_known: &IsKnown<'_>| {
            examinations.vet(now.instant, || surroundings.vet(state, is_known))
        };
        if self.core.file_news(news, vet, now) {
            self.core.begin(now);
        }
    }

    /// Lets the daemon read its configuration again. Its listeners can be served.
    pub(crate) fn reload(&mut self) {
        let now = self.time();
        self.core.reload(self.settings(), self.config.clone(), now);
        self.core.provider_api(Ok(()), now);
        self.core.web(None, now);
    }

    /// Lets the daemon read another configuration.
    pub(crate) fn reload_with(&mut self, config: Config) {
        self.config = config;
        self.reload();
    }

    /// Carries out everything that is due now.
    pub(crate) fn run(&mut self) {
        self.run_until(|| false);
    }

    /// Carries out what is due now, until that is so.
    pub(crate) fn run_until(&mut self, mut is_enough: impl FnMut() -> bool) {
        for _ in 0..10_000 {
            if is_enough() || !self.step() {
                return;
            }
        }
        panic!("it never rests");
    }

    /// Carries out some of what is due now, and returns false when that was nothing.
    fn step(&mut self) -> bool {
        let now = self.time();
        let mut is_idle = true;
        let (surroundings, examinations) = (&self.surroundings, &mut self.examinations);
        let vet = &mut |state: &State, is_known: &IsKnown<'_>| {
            examinations.vet(now.instant, || surroundings.vet(state, is_known))
        };
        // A file that waits for an examination is no step.
        if let Some(news) = self.core.judges_again()
            && self.core.file_news(news, vet, now)
        {
            is_idle = false;
            self.core.begin(now);
        }
        // So are containers.
        if self.core.is_docker_due(now) && self.core.decide_docker(vet, now) {
            is_idle = false;
        }
        if self.core.is_judgement_due(now) {
            is_idle = false;
            self.judgements += 1;
            self.core.judge_surroundings(vet, now);
        }
        let write = self.storage.as_ref().and_then(|_| self.core.next_write(vet, now));
        if self.examinations.take_ended(now.instant) {
            is_idle = false;
            self.core.examination_ended(now);
        }
        if let Some(write) = write {
            is_idle = false;
            if !self.write(write) {
                return true;
            }
        }
        // A probe takes longer than a job.
        if let Some(job) = self.core.next_job(now) {
            self.perform(job);
            C::hear(self);
            return true;
        }
        C::hear(self);
        let probes = self.core.health().due(now.instant);
        is_idle &= probes.is_empty();
        for probe in probes {
            let outcome = self.containers.probe(probe.endpoint);
            self.core.probed(probe.id, outcome, now);
        }
        !is_idle
    }

    /// Performs a write as the store's thread does. Returns false when the daemon was killed before it got the result.
    pub(crate) fn write(&mut self, write: Write) -> bool {
        let now = self.time();
        let Some(written) = self.storage().perform(write, now.instant) else {
            self.restart();
            return false;
        };
        self.core.written(written, now);
        true
    }

    /// Performs a job as the kernel's thread does.
    pub(crate) fn perform(&mut self, job: Job) {
        let now = self.time();
        self.jobs.whole_table += usize::from(matches!(job, Job::All(..)));
        self.jobs.flushes += usize::from(matches!(job, Job::Flush(_)));
        let engine = self.engine();
        let done = kernel_thread::perform(engine, job);
        let outcome = JobOutcome {
            done,
            at: now.instant,
            took: Duration::ZERO,
            table: None,
            record_trouble: engine.record_trouble(),
        };
        self.core.done(outcome, now);
    }

    /// Lets time pass, and carries out what is due meanwhile.
    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.clock.now + time;
        loop {
            self.run();
            let Some(next) = next_step(self.wakes(), self.clock.now, end) else {
                break;
            };
            self.clock.pass(next);
        }
        self.clock.pass(end);
        self.run();
    }

    /// Returns the times at which something may be due.
    fn wakes(&mut self) -> [Option<Instant>; 3] {
        [
            self.core.wakes_at(),
            self.core.health().next_at(),
            self.examinations.ends_at(),
        ]
    }
}
