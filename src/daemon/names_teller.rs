//! Tells the thread that counts traffic which services the kernel has, before a change and afterwards.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc as news};
use std::time::{Duration, Instant};

use super::table_counters::read_counters;
use crate::control::job::{Job, JobResult};
use crate::traffic::counter_keys::counter_keys;
use crate::traffic::{LastCounts, NamedService, NamesChange};
use tcpgw_core::model::Service;
use tcpgw_core::ruleset::name::SetName;
use tcpgw_core::summary::ServiceSummary;
use tcpgw_kernel::{Kernel, KernelError};

/// Time that a change waits until what belongs to the services before it was counted. It is made already.
const PATIENCE: Duration = Duration::from_secs(1);
/// Largest number of counters that are looked up one by one, some 10 µs each. Where there are more, whole sets are read.
const MOST_KEYS: usize = 2000;
/// Time for which backends that a service has lost are remembered: longer than between two samples.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Largest number of backends that are remembered.
const MOST_REMEMBERED: usize = 10_000;

/// News of the kernel's services.
#[derive(Debug)]
pub(super) enum NamesNews {
    /// Change that is about to be made.
    Begins(NamesChange),
    /// End of that change: whether it was made, and what belongs to the services before it.
    Ends(bool, CountsBefore),
    /// The table is about to be removed: all of its counters.
    TableEnds(LastCounts),
}

/// Counts of the services before a change.
#[derive(Debug)]
pub(super) enum CountsBefore {
    /// No service has lost an address or a port.
    None,
    /// Counters of the services that have lost an address or a port, as they were right after the change.
    Read(LastCounts),
    /// The thread is to read them, and to tell when it has.
    Awaited(news::SyncSender<()>),
}

/// Sender of changes of services, which the kernel thread announces to the traffic thread.
#[derive(Debug)]
pub(super) struct NamesTeller {
    news: news::Sender<NamesNews>,
    wake: Arc<UnixStream>,
    /// Backends that services have lost, the oldest first. Connections to them may not be counted yet.
    lost: VecDeque<(Instant, Box<str>, SocketAddr)>,
}

/// A change that was announced before it was made.
#[derive(Debug)]
pub(super) struct AnnouncedChange {
    freed: FreedPlaces,
    /// Backends that services lose.
    lost: Vec<(Box<str>, SocketAddr)>,
}

/// Places that services lose by a change, which others may have then.
#[derive(Debug, PartialEq, Eq)]
enum FreedPlaces {
    None,
    /// A few, and the counters of their services.
    Few(Vec<(SetName, Box<[u8]>)>),
    /// Many, or some with flows that go on with another service.
    Any,
}

impl NamesTeller {
    pub(super) fn new(news: news::Sender<NamesNews>, wake: Arc<UnixStream>) -> Self {
        Self {
            news,
            wake,
            lost: VecDeque::new(),
        }
    }

    /// Tells what a job will change; `None`: it changes no service.
    pub(super) fn begins(&mut self, job: &Job) -> Option<AnnouncedChange> {
        let (change, announced) = match job {
            Job::All(services, _) => {
                let change = NamesChange::all(services.values().filter_map(|of| named(of)));
                let announced = AnnouncedChange {
                    freed: FreedPlaces::Any,
                    lost: Vec::new(),
                };
                (change, announced)
            }
            Job::Change(change, _) => {
                let old: Vec<NamedService> = change.old.iter().filter_map(|of| named(of)).collect();
                let come: Vec<NamedService> = change.new.iter().filter_map(|of| named(of)).collect();
                let announced = self.announced(&old, &come);
                let new: BTreeSet<&str> = come.iter().map(|of| &*of.name).collect();
                let gone = change.old.iter().filter(|old| !new.contains(&*old.name));
                let gone = gone.map(|old| old.name.clone()).collect();
                let change = NamesChange {
                    is_all: false,
                    gone,
                    come,
                };
                (change, announced)
            }
            _ => return None,
        };
        self.news.send(NamesNews::Begins(change)).ok()?;
        Some(announced)
    }

    fn announced(&mut self, old: &[NamedService], come: &[NamedService]) -> AnnouncedChange {
        let new: BTreeMap<&str, &NamedService> = come.iter().map(|of| (&*of.name, of)).collect();
        let lost = old.iter().flat_map(|old| {
            let new = new.get(&*old.name);
            let is_lost = move |backend: &&SocketAddr| new.is_some_and(|new| !new.backends.contains(*backend));
            old.backends
                .iter()
                .filter(is_lost)
                .map(|backend| (old.name.clone(), *backend))
        });
        let lost = lost.collect();
        let leaves = |old: &&NamedService| {
            let new = new.get(&*old.name);
            new.is_none_or(|new| (new.port, &new.addresses) != (old.port, &old.addresses))
        };
        let leaving: Vec<&NamedService> = old.iter().filter(leaves).collect();
        AnnouncedChange {
            freed: self.freed(&leaving, come),
            lost,
        }
    }

    fn freed(&mut self, leaving: &[&NamedService], come: &[NamedService]) -> FreedPlaces {
        if leaving.is_empty() {
            return FreedPlaces::None;
        }
        let hands_over = leaving.iter().any(|old| {
            let others = come.iter().filter(|new| new.name != old.name && new.port == old.port);
            others.into_iter().any(|new| !new.backends.is_disjoint(&old.backends))
        });
        let most = MOST_REMEMBERED <= self.lost.len();
        if hands_over || most || leaving.len() > MOST_KEYS {
            return FreedPlaces::Any;
        }
        let mut keys = Vec::new();
        for service in leaving {
            let lost = self.lost.iter().filter(|(_, name, _)| *name == service.name);
            let had = lost.map(|(_, _, backend)| *backend);
            keys.extend(counter_keys(service, had));
            if keys.len() > MOST_KEYS {
                return FreedPlaces::Any;
            }
        }
        FreedPlaces::Few(keys)
    }

    /// Tells the end of a job, with what belongs to services that have lost a place. Where that is much, it waits until the other thread
    /// has counted it, for a second at most.
    pub(super) fn ended(&mut self, change: AnnouncedChange, result: &JobResult, kernel: &mut impl Kernel) {
        let is_made = matches!(result, JobResult::All(Ok(_)) | JobResult::Changed(Ok(Some(_))));
        let (counted, answer) = news::sync_channel(1);
        let before = match &change.freed {
            FreedPlaces::Few(keys) if is_made => match read(kernel, keys) {
                Ok(counts) => CountsBefore::Read(counts),
                Err(_) => CountsBefore::Awaited(counted),
            },
            FreedPlaces::Any if is_made => CountsBefore::Awaited(counted),
            _ => CountsBefore::None,
        };
        let waits = matches!(before, CountsBefore::Awaited(_));
        if is_made {
            self.remember(change.lost, Instant::now());
        }
        if self.news.send(NamesNews::Ends(is_made, before)).is_ok() {
            ring(&self.wake);
            if waits {
                let _ = answer.recv_timeout(PATIENCE);
            }
        }
    }

    /// Tells the counters of the table before a job that removes it. Connections that come between both are not counted.
    pub(super) fn table_ends(&mut self, kernel: &mut impl Kernel) {
        // Without them, what came since the last sample is not counted, which is no reason to keep the table.
        let Ok(Some((table, sets))) = read_counters(kernel) else {
            return;
        };
        let counted = sets
            .into_iter()
            .flat_map(|(set, counted)| counted.into_iter().map(move |counted| (set, counted)));
        let last = LastCounts {
            table,
            counted: counted.collect(),
        };
        if self.news.send(NamesNews::TableEnds(last)).is_ok() {
            ring(&self.wake);
        }
    }

    fn remember(&mut self, lost: Vec<(Box<str>, SocketAddr)>, now: Instant) {
        while self
            .lost
            .front()
            .is_some_and(|(at, ..)| now.saturating_duration_since(*at) > REMEMBERED)
        {
            self.lost.pop_front();
        }
        let room = MOST_REMEMBERED.saturating_sub(self.lost.len());
        let lost = lost.into_iter().take(room);
        self.lost.extend(lost.map(|(name, backend)| (now, name, backend)));
    }
}

fn read(kernel: &mut impl Kernel, keys: &[(SetName, Box<[u8]>)]) -> Result<LastCounts, KernelError> {
    let table = kernel.identity()?.table;
    let counted = kernel.counters(keys)?;
    let sets = keys.iter().map(|(set, _)| *set);
    Ok(LastCounts {
        table,
        counted: sets.zip(counted).collect(),
    })
}

fn named(service: &Service) -> Option<NamedService> {
    NamedService::of(&ServiceSummary::from(service))
}

/// Wakes the thread. If its stream is full, it is awake.
pub(super) fn ring(wake: &UnixStream) {
    let mut wake = wake;
    let _ = wake.write(&[0]);
}
