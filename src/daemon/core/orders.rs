//! What is ordered through the API: judged, written to the store, and done, one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::{Core, Now, Phase, Waiter};
use crate::daemon::ask::{Applied, Apply, Refused, Reply};
use crate::daemon::keeper::{Opened, Write, Written};
use crate::model::State;
use crate::store::{By, Change, Committed, Edit, StoreError, StoredService};
use crate::summary::Summary;
use crate::words::{Changes, Counts};

use super::take::Vet;

/// An `apply` whose text has been read.
pub struct ApplyOrder {
    /// As it was asked for.
    pub apply: Apply,
    /// What its text says.
    pub state: State,
    /// Who waits for it.
    pub reply: Reply<Result<Applied, Refused>>,
}

/// One that was accepted, and is being written.
pub(super) struct Accepted {
    order: ApplyOrder,
    change: Change,
    warnings: Vec<String>,
}

impl Core {
    /// What the store holds, before anything is wanted. Without it, what the kernel has and no other provider wants is taken
    /// for the API's: a store that is lost must not end what is served.
    pub fn opened(&mut self, opened: Result<Opened, StoreError>, now: Now) {
        match opened {
            Ok(opened) => {
                let services = opened.loaded.services.iter();
                let services = services.map(|stored| (*stored.service).clone()).collect();
                match State::new(services) {
                    Ok(state) => self.api = state,
                    Err(problems) => {
                        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
                        self.reject("api", problems, now);
                    }
                }
                self.loaded = opened.loaded;
                self.store_trouble(opened.trouble.as_ref());
            }
            Err(error) => {
                tracing::error!("{error}; services of the API cannot be changed");
                self.store_lost = true;
                self.store_trouble(Some(&error));
            }
        }
    }

    fn store_trouble(&mut self, trouble: Option<&StoreError>) {
        match trouble {
            Some(error) => drop(
                self.problems
                    .insert("store", format!("the store refuses changes: {error}")),
            ),
            None => drop(self.problems.remove("store")),
        }
    }

    /// Takes an order.
    pub fn order(&mut self, order: ApplyOrder) {
        self.orders.push_back(order);
    }

    /// What is to be written to the store now: one order is judged and written after the other, so that each is judged by
    /// what those before it have made.
    pub fn next_write(&mut self, vet: &mut Vet<'_>, now: Now) -> Option<Write> {
        while self.accepted.is_none() {
            let order = self.orders.pop_front()?;
            let options = order.apply.options;
            match self.judge_apply(&order.state, options, vet) {
                // Whoever asked may be gone.
                Err(refused) => drop(order.reply.send(Err(refused))),
                Ok(warnings) if options.dry_run => {
                    let (old, new) = (Summary::from(&self.api), Summary::from(&order.state));
                    drop(order.reply.send(Ok(diff(&old, &new, warnings))));
                }
                Ok(warnings) => {
                    let change = Change::replace(&self.loaded, &order.state);
                    let accepted = Accepted {
                        order,
                        change,
                        warnings,
                    };
                    if accepted.change.edits.is_empty() {
                        self.carry_out(accepted, now);
                        continue;
                    }
                    let write = Write::Change(accepted.change.clone(), accepted.by(), now.unix);
                    self.accepted = Some(accepted);
                    return Some(write);
                }
            }
        }
        None
    }

    fn judge_apply(
        &self,
        state: &State,
        options: crate::daemon::ask::ApplyOptions,
        vet: &mut Vet<'_>,
    ) -> Result<Vec<String>, Refused> {
        if matches!(self.phase, Phase::Waiting | Phase::Looking) {
            return Err(Refused::Failed("the daemon is starting: try again".into()));
        }
        let nobody = State::default();
        let others = self.file.as_ref().unwrap_or(&nobody);
        self.judge(state, others, self.api.services.len(), options, vet)
    }

    /// The store has done what it was told.
    pub fn written(&mut self, written: Written, now: Now) {
        let Written::Changed(written) = written else { return };
        let Some(accepted) = self.accepted.take() else { return };
        match written {
            Ok(committed) => {
                self.store_trouble(None);
                self.learn(&accepted.change, &committed);
                self.carry_out(accepted, now);
            }
            Err(error) => {
                if error.is_trouble() {
                    self.store_trouble(Some(&error));
                }
                let _ = accepted.order.reply.send(Err(Refused::Failed(error.to_string())));
            }
        }
    }

    /// What the store holds now.
    fn learn(&mut self, change: &Change, committed: &Committed) {
        let mut services: BTreeMap<Box<str>, StoredService> = std::mem::take(&mut self.loaded.services)
            .into_iter()
            .map(|stored| (stored.service.name.clone(), stored))
            .collect();
        for edit in &change.edits {
            match edit {
                Edit::Delete(name, _) => drop(services.remove(name)),
                Edit::Put(service, _) if committed.changed.contains(&service.name) => {
                    let stored = StoredService {
                        service: Arc::clone(service),
                        revision: committed.revision,
                    };
                    services.insert(service.name.clone(), stored);
                }
                Edit::Put(..) => {}
            }
        }
        self.loaded.revision = committed.revision;
        self.loaded.services = services.into_values().collect();
    }

    fn carry_out(&mut self, accepted: Accepted, now: Now) {
        let Accepted {
            order,
            change,
            warnings,
        } = accepted;
        // What is not edited counts for nothing, and there may be ten thousand of it.
        let edited: BTreeSet<&str> = change.edits.iter().map(name_of).collect();
        let of = |state: &State| -> Summary {
            let services = state.services.iter();
            services.filter(|service| edited.contains(&*service.name)).collect()
        };
        let (old, new) = (of(&self.api), of(&order.state));
        let (services, backends) = Counts::between(&old, &new);
        self.waiting.push(Waiter {
            reply: order.reply,
            services,
            backends,
            warnings,
            since: now.instant,
        });
        let old = std::mem::take(&mut self.api);
        self.roster.drain_within(order.apply.options.drain);
        self.wanted_instead(&order.apply.origin, &old, &order.state, now);
        self.api = order.state;
    }
}

fn name_of(edit: &Edit) -> &str {
    match edit {
        Edit::Put(service, _) => &service.name,
        Edit::Delete(name, _) => name,
    }
}

impl Accepted {
    fn by(&self) -> By {
        let peer = self.order.apply.by;
        By {
            uid: peer.uid,
            pid: peer.pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
            what: "apply".into(),
        }
    }
}

/// What `tcpgw diff` would say.
fn diff(old: &Summary, new: &Summary, warnings: Vec<String>) -> Applied {
    let changes = Changes::between(old, new, &BTreeMap::new());
    let mut text = String::new();
    for change in &changes.services {
        let _ = writeln!(text, "{change}");
    }
    Applied {
        report: serde_json::json!({
            "changed": !changes.is_empty(),
            "rebuild": null,
            "services": changes.services,
            "flows": 0,
        }),
        text,
        warnings,
    }
}
