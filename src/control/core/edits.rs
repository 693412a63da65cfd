//! Orders for single services: their edits, and whether they are allowed.
use std::sync::Arc;

use super::acceptance::{AcceptedChange, GatewayCheck, JudgementError, ProviderSize};
use super::order::{Order, Undecided};
use super::pending_write::PendingWrite;
use super::{Core, Name, Now, Provider};
use crate::control::reply::ReplySender;
use crate::control::request::{ApplyOptions, EditOrder, Edited, Refused, ServiceEdit};
use crate::control::storage::Write;
use crate::store::{Expect, StoredService};
use tcpgw_core::model::{self, Backend, BackendState, Edits, Endpoint, InputProblem, Service};

impl ServiceEdit {
    /// Returns the command, as the history names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Put(_) => "service put",
            Self::Patch(_) => "service set",
            Self::Delete => "service rm",
            Self::Drain(_) => "drain",
            Self::Undrain(_) => "undrain",
        }
    }
}

/// Returns the error for a service that does not exist.
pub(super) fn missing(name: &str) -> Refused {
    Refused::Missing(format!("there is no service \"{name}\"; `tcpgw service ls` lists them"))
}

pub(super) fn expected(expect: Expect, current: Option<&StoredService>) -> bool {
    match expect {
        // Callers check for existence themselves, since they know of orphans, too.
        Expect::Anything | Expect::Present => true,
        Expect::Absent => current.is_none(),
        Expect::Revision(revision) => current.is_some_and(|current| current.revision == revision),
    }
}

fn not_as_expected(name: &str, expect: Expect, current: Option<&StoredService>) -> String {
    match current {
        Some(current) if expect == Expect::Absent => format!(
            "service \"{name}\" is there already, at revision {}; nothing was changed",
            current.revision
        ),
        Some(current) => format!(
            "service \"{name}\" is at revision {}, not as expected; nothing was changed",
            current.revision
        ),
        None => format!("service \"{name}\" is not there; nothing was changed"),
    }
}

/// Returns the service with the given backends, or all if none is given, in the state `state`. Fails when one of them
/// is no backend of the service.
fn with_state(service: &Service, which: &[Endpoint], state: BackendState) -> Result<Service, Refused> {
    let known = |endpoint: &Endpoint| service.backends.iter().any(|backend| backend.endpoint == *endpoint);
    if let Some(stranger) = which.iter().find(|endpoint| !known(endpoint)) {
        return Err(Refused::Missing(format!(
            "{stranger} is no backend of service \"{}\"; nothing was changed",
            service.name
        )));
    }
    let is_meant = |backend: &Backend| which.is_empty() || which.contains(&backend.endpoint);
    let backends = service.backends.iter().map(|backend| Backend {
        state: if is_meant(backend) { state } else { backend.state },
        ..*backend
    });
    Ok(Service {
        backends: backends.collect(),
        ..service.clone()
    })
}

impl Core {
    pub(super) fn take_edit(
        &mut self,
        order: EditOrder,
        reply: ReplySender<Result<Edited, Refused>>,
        vet: &mut GatewayCheck<'_>,
        now: Now,
    ) -> Result<Option<Write>, Undecided> {
        let judged = self.judges_singly().map_err(JudgementError::from);
        let (edits, judged) = match judged.and_then(|()| self.judge_edit(&order, vet)) {
            Ok(judged) => judged,
            Err(JudgementError::Pending) => return Err(Undecided(Box::new(Order::Edit(order, reply)))),
            Err(JudgementError::Refused(refused)) => {
                drop(reply.send(Err(refused)));
                return Ok(None);
            }
        };
        let (accepted, by) = PendingWrite::of_edit(order, edits, judged, reply);
        Ok(self.write(accepted, by, now))
    }

    /// Returns the edits of an order for one service, judged by this service alone.
    pub(super) fn edits_of_service(&self, name: &Name, edit: &ServiceEdit, expect: Expect) -> Result<Edits, Refused> {
        self.judge_owner(name, Provider::Api)?;
        let current = self.api.get(name);
        let orphan = self.orphans.get(name).map(|orphan| &orphan.service);
        // A service that does not exist cannot be changed, whatever was expected of it (RFC 9110, 13.2.1).
        let is_there = current.is_some() || orphan.is_some();
        if !is_there && !matches!(edit, ServiceEdit::Put(_)) {
            return Err(missing(name));
        }
        if !expected(expect, current) || expect == Expect::Present && !is_there {
            return Err(Refused::Conflict(
                not_as_expected(name, expect, current),
                current.cloned().map(Box::new),
            ));
        }
        // A change of an orphan defines it anew.
        let there = || {
            let current = current.map(|current| &current.service).or(orphan);
            current.ok_or_else(|| missing(name))
        };
        let put = match edit {
            ServiceEdit::Put(text) => Some(model::parse_service_named(name, text).map_err(Refused::Invalid)?),
            ServiceEdit::Patch(text) => Some(model::patch_service(there()?, text).map_err(Refused::Invalid)?),
            ServiceEdit::Delete => {
                there()?;
                None
            }
            ServiceEdit::Drain(which) => Some(with_state(there()?, which, BackendState::Draining)?),
            ServiceEdit::Undrain(which) => Some(with_state(there()?, which, BackendState::Active)?),
        };
        let mut edits = Edits::default();
        match put {
            Some(service) if service.name != *name => {
                let problem = InputProblem {
                    place: "name".into(),
                    message: format!(
                        "is \"{}\", but the service is named \"{name}\", and a service cannot be renamed",
                        service.name
                    ),
                };
                return Err(Refused::Invalid([problem].into_iter().collect()));
            }
            // A service that is held back is judged again.
            Some(service)
                if current.is_some_and(|current| *current.service == service) && !self.held_back.contains(name) => {}
            Some(service) => edits.put.push(Arc::new(service)),
            None => edits.gone.push(name.clone()),
        }
        Ok(edits)
    }

    fn judge_edit(
        &self,
        order: &EditOrder,
        vet: &mut GatewayCheck<'_>,
    ) -> Result<(Edits, AcceptedChange), JudgementError> {
        let edits = self.edits_of_service(&order.name, &order.edit, order.expect)?;
        let judged = self.judge_edits(&edits, order.take_over, 1, vet)?;
        Ok((edits, judged))
    }

    /// Judges edits of `count` services together with all other services.
    pub(super) fn judge_edits(
        &self,
        edits: &Edits,
        take_over: bool,
        count: usize,
        vet: &mut GatewayCheck<'_>,
    ) -> Result<AcceptedChange, JudgementError> {
        self.judge_resources(edits)?;
        let options = ApplyOptions {
            take_over,
            // Deleting the last service by its name is intended.
            allow_empty: true,
            ..ApplyOptions::default()
        };
        let size = ProviderSize {
            provider: Provider::Api,
            before: self.api.len(),
            after: count,
        };
        self.judge(edits, size, options, vet)
    }
}
