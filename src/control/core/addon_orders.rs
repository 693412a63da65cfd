//! Requests of platforms about resources: their decision, and the steps after they are written.
use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::sync::Arc;

use serde_json::json;

use super::acceptance::{AcceptedChange, GatewayCheck, JudgementError, ProviderSize};
use super::order::{Order, Undecided, by};
use super::pending::ReplyKind;
use super::pending_write::{OnWritten, PendingWrite};
use super::provisioned::Provisioned;
use super::{Core, DaemonPhase, Now, Provider};
use crate::addon::{
    AddonOutcome, AddonRequest, BusyPorts, Decision, Plans, PortRefusal, PortSet, Provision, Refusal, RegistryFacts,
    ResourceChange,
};
use crate::config::Config;
use crate::control::membership::Membership;
use crate::control::name::Name;
use crate::control::obstacle::ObstacleKind;
use crate::control::reply::ReplySender;
use crate::control::request::{AddonOrder, AddonRefused, ApplyOptions, Refused};
use crate::control::storage::Write;
use crate::store::ChangeAuthor;
use tcpgw_core::model::{self, Edits, Service};

/// Maximum number of ports that one request skips because local programs listen on them.
const MOST_SKIPPED: usize = 64;

/// Ports of services that belong to no resource. They are looked up one by one, since there may be 10,000 services.
#[derive(Debug)]
pub(super) struct PortsOfOthers<'c> {
    membership: &'c Membership,
    config: &'c Config,
    /// Ports that the membership does not know.
    pub(super) others: PortSet,
}

impl BusyPorts for PortsOfOthers<'_> {
    fn has(&self, port: NonZeroU16) -> bool {
        self.others.contains(port) || self.membership.has_port(port)
    }

    fn allows(&self, port: NonZeroU16) -> bool {
        self.config.allows_port(port)
    }
}

/// Reason why a request is not carried out.
pub(super) enum AddonOrderError {
    /// The gateway is being examined, so the request is decided later.
    Pending,
    /// The request is refused.
    Refused(AddonRefused),
}

impl<R: Into<AddonRefused>> From<R> for AddonOrderError {
    fn from(refused: R) -> Self {
        Self::Refused(refused.into())
    }
}

impl PendingWrite {
    /// Returns the pending write of a decided request, and its author.
    pub(super) fn of_addon(
        order: &AddonOrder,
        decision: Decision,
        edits: Edits,
        judged: AcceptedChange,
        reply: ReplySender<Result<AddonOutcome, AddonRefused>>,
    ) -> (Self, ChangeAuthor) {
        let Decision { change, outcome } = decision;
        let accepted = Self {
            edits,
            cause: format!(
                "{} of app {} (uid {})",
                order.what(),
                outcome.resource().app,
                order.by.uid
            ),
            drain: None,
            warnings: judged.warnings,
            obstacles: judged.obstacles,
            then: OnWritten::Addon(Provisioned { change, outcome, reply }),
        };
        (accepted, by(order.by, &order.what()))
    }
}

impl From<Refusal> for AddonRefused {
    fn from(refusal: Refusal) -> Self {
        Self::Resource(refusal)
    }
}

impl From<PortRefusal> for AddonRefused {
    fn from(refusal: PortRefusal) -> Self {
        Self::Resource(refusal.into())
    }
}

impl Core {
    pub(super) fn take_addon(
        &mut self,
        order: AddonOrder,
        reply: ReplySender<Result<AddonOutcome, AddonRefused>>,
        vet: &mut GatewayCheck<'_>,
        now: Now,
    ) -> Result<Option<Write>, Undecided> {
        let mut skipped = std::mem::take(&mut self.addon.skipped);
        let known = self.judges_singly().and_then(|()| self.knows_resources());
        let decided = known.map_err(|refused| AddonOrderError::Refused(AddonRefused::Daemon(refused)));
        let decided = decided.and_then(|()| self.decide_addon(&order, &mut skipped, vet, now));
        if let AddonRequest::Provision(Provision { port: None, .. }) = &order.request
            && !matches!(decided, Err(AddonOrderError::Pending))
        {
            let given = decided.as_ref().ok().and_then(|(decision, ..)| match &decision.change {
                Some(ResourceChange::Put(resource)) => Some(resource.port),
                _ => None,
            });
            self.addon.learn_listened(&skipped, given, now);
        }
        let (decision, edits, judged) = match decided {
            Ok(decided) => decided,
            Err(AddonOrderError::Pending) => {
                self.addon.skipped = skipped;
                return Err(Undecided(Box::new(Order::Addon(order, reply))));
            }
            Err(AddonOrderError::Refused(refused)) => {
                drop(reply.send(Err(refused)));
                return Ok(None);
            }
        };
        let (accepted, by) = PendingWrite::of_addon(&order, decision, edits, judged, reply);
        Ok(self.write(accepted, by, now))
    }

    /// Decides a request without an examination of the gateway, next to requests that take the ports `others`. Returns
    /// `None` when it is refused or changes nothing.
    pub(super) fn decide_beside(
        &self,
        order: &AddonOrder,
        others: impl Iterator<Item = NonZeroU16>,
        now: Now,
    ) -> Option<(Decision, Edits)> {
        let settings = self.addon.settings.as_ref()?;
        let mut busy = self.ports_of_others();
        busy.others.extend(others);
        let facts = RegistryFacts {
            plans: &settings.plans,
            busy: &busy,
            random: order.random,
            now: now.unix,
        };
        let decision = self.addon.registry.decide(&order.request, facts).ok()?;
        let edits = self.edits_of(Some(decision.change.as_ref()?), &settings.plans).ok()?;
        Some((decision, edits))
    }

    fn decide_addon(
        &self,
        order: &AddonOrder,
        skipped: &mut BTreeSet<NonZeroU16>,
        vet: &mut GatewayCheck<'_>,
        now: Now,
    ) -> Result<(Decision, Edits, AcceptedChange), AddonOrderError> {
        let none = Plans::none();
        let plans = match &self.addon.settings {
            Some(settings) => &settings.plans,
            // Resources that there are can be suspended, resumed and removed.
            None if order.request.needs_no_plan() => &none,
            None => return Err(AddonRefused::Off.into()),
        };
        let takes_port = matches!(order.request, AddonRequest::Provision(_));
        let mut busy = takes_port.then(|| self.ports_of_others());
        let nothing = PortSet::default();
        while skipped.len() <= MOST_SKIPPED {
            if let Some(busy) = &mut busy {
                busy.others.extend(skipped.iter().copied());
            }
            let facts = RegistryFacts {
                plans,
                busy: busy.as_ref().map_or(&nothing as &dyn BusyPorts, |busy| busy),
                random: order.random,
                now: now.unix,
            };
            let decision = self.addon.registry.decide(&order.request, facts)?;
            let mut edits = self.edits_of(decision.change.as_ref(), plans)?;
            let mut judged = self.judge_resource(&edits, vet);
            let is_of_status = matches!(order.request, AddonRequest::Suspend(_) | AddonRequest::Resume(_));
            if is_of_status && matches!(judged, Err(AddonOrderError::Refused(_))) {
                // Where the plan has another limit now, which a service with the same container has not, the old one stays.
                edits = self.with_limits_kept(edits);
                judged = self.judge_resource(&edits, vet);
            }
            let judged = judged?;
            let (Some(ResourceChange::Put(resource)), AddonRequest::Provision(_)) = (&decision.change, &order.request)
            else {
                return Ok((decision, edits, judged));
            };
            let mut obstacles = judged.obstacles.values().flatten();
            match obstacles.next() {
                None => return Ok((decision, edits, judged)),
                Some(obstacle) if obstacle.kind == ObstacleKind::PortTaken => skipped.insert(resource.port),
                // A resource whose service cannot be served is not provisioned.
                Some(obstacle) => return Err(AddonRefused::Daemon(Refused::Refused(obstacle.reason())).into()),
            };
        }
        Err(AddonRefused::from(PortRefusal::Listening(MOST_SKIPPED)).into())
    }

    /// Returns the ports that are used or wanted by services that belong to no resource.
    pub(super) fn ports_of_others(&self) -> PortsOfOthers<'_> {
        // While the daemon runs, the membership has all defined services except those that are held back.
        let is_in_use = self.phase == DaemonPhase::Running;
        let others = (!is_in_use || !self.held_back.is_empty()).then(|| {
            let others = self.defined();
            others.filter(|service| !is_in_use || self.held_back.contains(&service.name))
        });
        let others = others.into_iter().flatten().map(|service| service.port);
        // The ports of the daemon's own listeners are left out on any address, which may become another one.
        let own = self.own_listeners().into_iter();
        let own = own.filter_map(|listener| NonZeroU16::new(listener.address.port()));
        PortsOfOthers {
            membership: &self.membership,
            config: &self.config,
            others: others.chain(own).collect(),
        }
    }

    fn judge_resource(&self, edits: &Edits, vet: &mut GatewayCheck<'_>) -> Result<AcceptedChange, AddonOrderError> {
        if edits.is_empty() {
            return Ok(AcceptedChange::default());
        }
        let size = ProviderSize {
            provider: Provider::Api,
            before: self.api.len(),
            after: 1,
        };
        let options = ApplyOptions {
            allow_empty: true,
            hold_back: true,
            ..ApplyOptions::default()
        };
        self.judge(edits, size, options, vet)
            .map_err(|unjudged| match unjudged {
                JudgementError::Pending => AddonOrderError::Pending,
                JudgementError::Refused(refused) => AddonRefused::Daemon(refused).into(),
            })
    }

    /// Returns the edits without their changes of limits.
    fn with_limits_kept(&self, mut edits: Edits) -> Edits {
        for service in &mut edits.put {
            if let Some(there) = self.api.get(&service.name) {
                Arc::make_mut(service).limit = there.service.limit;
            }
        }
        edits
    }

    /// Returns the edits of the service for a change of its resource.
    fn edits_of(&self, change: Option<&ResourceChange>, plans: &Plans) -> Result<Edits, AddonRefused> {
        let mut edits = Edits::default();
        match change {
            None => {}
            Some(ResourceChange::Remove(removed)) => {
                let name: Name = removed.id.service().into();
                if self.api.get(&name).is_some() {
                    edits.gone.push(name);
                }
            }
            Some(ResourceChange::Put(resource)) => {
                let name = resource.id.service();
                let before = self.addon.registry.get(resource.id);
                let there = self.api.get(&name).map(|stored| &*stored.service);
                let is_same = before.is_some_and(|before| {
                    (&before.plan, &before.plan_id, before.status)
                        == (&resource.plan, &resource.plan_id, resource.status)
                });
                if is_same && there.is_some() {
                    return Ok(edits);
                }
                // Resources keep the limit of a plan that was removed from the configuration.
                let limit = plans.of(resource).map(|plan| plan.limit);
                let service = if let Some(there) = there {
                    Service {
                        limit: limit.or(there.limit),
                        ..there.clone()
                    }
                } else {
                    let text = json!({"name": name, "port": resource.port, "backends": []}).to_string();
                    let service = model::parse_service(text.as_bytes());
                    let service = service.map_err(|problems| AddonRefused::Daemon(Refused::Invalid(problems)))?;
                    Service { limit, ..service }
                };
                edits.put.push(Arc::new(service));
            }
        }
        Ok(edits)
    }

    /// Applies a change of a resource that the store has written.
    pub(super) fn provisioned(&mut self, provisioned: Provisioned, now: Now) -> ReplyKind {
        let Provisioned { change, outcome, reply } = provisioned;
        if let Some(change) = &change {
            self.addon.registry.commit(change, now.unix);
            self.addon.amendments.is_overtaken(change);
            if let ResourceChange::Put(resource) = change {
                self.deploys.service_changed(&resource.id.service());
            }
            self.due.remember(now.instant);
        }
        ReplyKind::Addon(reply, Box::new(outcome))
    }
}
