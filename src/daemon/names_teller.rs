//! Tells the thread that counts traffic which services the kernel has, before a change and afterwards.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc as news};
use std::time::Duration;

use crate::control::job::{Job, JobResult};
use crate::traffic::{NamedService, NamesChange};
use tcpgw_core::model::Service;
use tcpgw_core::summary::ServiceSummary;

/// Time that a change waits until what belongs to the services before it was counted. It is made already.
const PATIENCE: Duration = Duration::from_secs(1);

/// News of the kernel's services.
#[derive(Debug)]
pub(super) enum NamesNews {
    /// Change that is about to be made.
    Begins(NamesChange),
    /// End of that change. `counted` is told when what belongs to the services before it was counted; `None`: nobody waits for that.
    Ends {
        is_made: bool,
        counted: Option<news::SyncSender<()>>,
    },
}

/// End of the news that the thread of the kernel has.
#[derive(Debug, Clone)]
pub(super) struct NamesTeller {
    pub(super) news: news::Sender<NamesNews>,
    pub(super) wake: Arc<UnixStream>,
}

/// A change that was announced before it was made.
#[derive(Debug)]
pub(super) struct AnnouncedChange {
    /// Whether a service loses a place, which another one may have then.
    frees_places: bool,
}

impl NamesTeller {
    /// Tells what a job will change; `None`: it changes no service.
    pub(super) fn begins(&self, job: &Job) -> Option<AnnouncedChange> {
        let (change, frees_places) = match job {
            Job::All(services, _) => (NamesChange::all(services.values().filter_map(|of| named(of))), true),
            Job::Change(change, _) => {
                let come: Vec<NamedService> = change.new.iter().filter_map(|of| named(of)).collect();
                let new: BTreeMap<&str, &NamedService> = come.iter().map(|of| (&*of.name, of)).collect();
                let gone = change.old.iter().filter(|old| !new.contains_key(&*old.name));
                let gone: Vec<Box<str>> = gone.map(|old| old.name.clone()).collect();
                let moves = change.old.iter().filter_map(|of| named(of)).any(|old| {
                    new.get(&*old.name)
                        .is_some_and(|new| (new.port, &new.addresses) != (old.port, &old.addresses))
                });
                let frees_places = moves || !gone.is_empty();
                let change = NamesChange {
                    is_all: false,
                    gone,
                    come,
                };
                (change, frees_places)
            }
            _ => return None,
        };
        self.news.send(NamesNews::Begins(change)).ok()?;
        Some(AnnouncedChange { frees_places })
    }

    /// Tells the end of a job, and waits until what belongs to a service that has lost a place was counted, for a second at most.
    pub(super) fn ended(&self, change: &AnnouncedChange, result: &JobResult) {
        let is_made = matches!(result, JobResult::All(Ok(_)) | JobResult::Changed(Ok(Some(_))));
        let (counted, answer) = news::sync_channel(1);
        let waits = change.frees_places && is_made;
        let ends = NamesNews::Ends {
            is_made,
            counted: waits.then_some(counted),
        };
        if self.news.send(ends).is_ok() {
            ring(&self.wake);
            if waits {
                let _ = answer.recv_timeout(PATIENCE);
            }
        }
    }
}

fn named(service: &Service) -> Option<NamedService> {
    NamedService::of(&ServiceSummary::from(service))
}

/// Wakes the thread. If its stream is full, it is awake.
pub(super) fn ring(wake: &UnixStream) {
    let mut wake = wake;
    let _ = wake.write(&[0]);
}
