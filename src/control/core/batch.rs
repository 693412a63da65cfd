//! Batches: several services change in one transaction, or none does.
use std::collections::BTreeSet;

use super::acceptance::{AcceptedChange, GatewayCheck, JudgementError};
use super::order::{Order, Undecided, by};
use super::pending_write::{OnWritten, PendingWrite};
use super::{Core, Name, Now};
use crate::control::reply::ReplySender;
use crate::control::request::{BatchOrder, Edited, EditedBatch, MAX_BATCH, Refused};
use crate::control::storage::Write;
use crate::store::CommittedChange;
use tcpgw_core::model::{Edits, InputProblem, InputProblems, State};

impl Core {
    pub(super) fn take_batch(
        &mut self,
        order: BatchOrder,
        reply: ReplySender<Result<EditedBatch, Refused>>,
        vet: &mut GatewayCheck<'_>,
        now: Now,
    ) -> Result<Option<Write>, Undecided> {
        let judged = self.judges_singly().map_err(JudgementError::from);
        let (edits, AcceptedChange { warnings, obstacles }) = match judged.and_then(|()| self.judge_batch(&order, vet))
        {
            Ok(judged) => judged,
            Err(JudgementError::Pending) => return Err(Undecided(Box::new(Order::Batch(order, reply)))),
            // The client may have disconnected.
            Err(JudgementError::Refused(refused)) => {
                drop(reply.send(Err(refused)));
                return Ok(None);
            }
        };
        let names: Vec<Name> = order.items.into_iter().map(|item| item.name).collect();
        let accepted = PendingWrite {
            edits,
            cause: format!("services set: {} ({})", names.len(), order.by.author()),
            drain: order.drain,
            warnings,
            obstacles,
            then: OnWritten::Batch(names, reply),
        };
        Ok(self.write(accepted, by(order.by, "services set"), now))
    }

    fn judge_batch(
        &self,
        order: &BatchOrder,
        vet: &mut GatewayCheck<'_>,
    ) -> Result<(Edits, AcceptedChange), JudgementError> {
        let count = order.items.len();
        if !(1..=MAX_BATCH).contains(&count) {
            let message = format!("must be 1 to {MAX_BATCH} changes, not {count}");
            return Err(invalid("services".into(), message).into());
        }
        let revision = self.api.revision();
        if order.revision.is_some_and(|expected| expected != revision) {
            let message = format!("the store is at revision {revision}, not as expected; nothing was changed");
            return Err(Refused::Conflict(message, None).into());
        }
        let (mut edits, mut names) = (Edits::default(), BTreeSet::new());
        for (at, item) in order.items.iter().enumerate() {
            if !names.insert(&item.name) {
                let message = format!("is \"{}\", which is changed by an earlier one already", item.name);
                return Err(invalid(format!("services[{at}].name"), message).into());
            }
            let one = self.edits_of_service(&item.name, &item.edit, item.expect);
            let one = one.map_err(|refused| placed(refused, at))?;
            edits.put.extend(one.put);
            edits.gone.extend(one.gone);
        }
        // Conflicts within the batch; conflicts with other services are judged below.
        State::new(edits.put.iter().cloned()).map_err(Refused::Invalid)?;
        let judged = self.judge_edits(&edits, order.take_over, edits.put.len(), vet)?;
        Ok((edits, judged))
    }

    /// Returns the result of the edits for one of their services.
    pub(super) fn edited_of(
        &self,
        name: &str,
        edits: &Edits,
        committed: &CommittedChange,
        warnings: Vec<String>,
    ) -> Edited {
        let before = self.api.get(name);
        let put = edits.put.iter().find(|service| *service.name == *name);
        let is_gone = edits.gone.iter().any(|gone| **gone == *name);
        let after = put.or(before.map(|before| &before.service));
        // Orphans are not in the store.
        let is_orphan = self.orphans.get(name).is_some() && (put.is_some() || is_gone);
        let changed = committed.changed.iter().any(|changed| **changed == *name) || is_orphan;
        Edited {
            service: after.filter(|_| !is_gone).cloned(),
            revision: if changed || before.is_none() {
                committed.revision
            } else {
                before.map_or(0, |before| before.revision)
            },
            created: before.is_none() && put.is_some(),
            changed,
            warnings,
        }
    }

    pub(super) fn edited_batch(
        &self,
        names: Vec<Name>,
        edits: &Edits,
        committed: &CommittedChange,
        warnings: Vec<String>,
    ) -> EditedBatch {
        let services = names.into_iter().map(|name| {
            let edited = self.edited_of(&name, edits, committed, Vec::new());
            (name, edited)
        });
        let services: Vec<_> = services.collect();
        EditedBatch {
            revision: committed.revision,
            changed: services.iter().any(|(_, edited)| edited.changed),
            services,
            warnings,
        }
    }
}

fn invalid(place: String, message: String) -> Refused {
    Refused::Invalid([InputProblem { place, message }].into_iter().collect())
}

/// Adds the index of the item to the places of its problems.
fn placed(refused: Refused, at: usize) -> Refused {
    let Refused::Invalid(problems) = refused else {
        return refused;
    };
    let problems = problems.iter().map(|problem| InputProblem {
        place: format!("services[{at}].{}", problem.place),
        message: problem.message.clone(),
    });
    Refused::Invalid(problems.collect::<InputProblems>())
}
