//! Orders that wait at the same time. Independent ones are judged together and written in one transaction of the
//! store, so that they cost one examination of the gateway and one flush of the disk; the store makes or refuses each
//! by itself. Orders that cannot be judged together, or are not simply accepted, are taken one by one.
use std::collections::BTreeSet;
use std::num::NonZeroU16;

use super::acceptance::{AcceptedChange, GatewayCheck, JudgementError, ProviderSize};
use super::order::Order;
use super::pending_write::PendingWrite;
use super::{Core, Name, Now, Provider};
use crate::addon::id::PlatformId;
use crate::addon::{AddonRequest, Decision, ResourceTarget};
use crate::control::request::{ApplyOptions, Refused};
use crate::control::storage::Write;
use tcpgw_core::model::{Edits, State};

/// Maximum number of orders that are written together.
const MOST_TOGETHER: usize = 64;
/// Number of backends after which no further order joins a group, since the main loop does nothing else meanwhile.
const MOST_BACKENDS: usize = 4096;

fn folded(id: &PlatformId) -> Box<str> {
    id.as_str().to_ascii_lowercase().into()
}

/// Result of taking the first orders together.
pub(super) enum Together {
    /// The orders are to be written.
    Taken(Write),
    /// The gateway is being examined.
    Pending,
    /// The first order is to be taken by itself.
    Singly,
}

/// Independent orders, as each would be decided alone.
#[derive(Default)]
struct Group {
    /// Edits of each order; a request about a resource has its decision, too.
    members: Vec<(Edits, Option<Decision>)>,
    /// Edits of all orders together.
    edits: Edits,
    /// Names of the services that the orders are about.
    names: BTreeSet<Name>,
    /// Platforms' ids of the resources that the orders are about, in lower case: ids that differ in case only may be the same.
    apps: BTreeSet<Box<str>>,
}

impl Group {
    fn ports(&self) -> impl Iterator<Item = NonZeroU16> {
        self.edits.put.iter().map(|service| service.port)
    }

    fn backends(&self) -> usize {
        self.edits.put.iter().map(|service| service.backends.len()).sum()
    }

    fn add(&mut self, edits: Edits, decision: Option<Decision>) {
        self.edits.put.extend(edits.put.iter().cloned());
        self.edits.gone.extend(edits.gone.iter().cloned());
        self.members.push((edits, decision));
    }
}

impl Core {
    /// Takes the first waiting orders, if several can be taken together.
    pub(super) fn take_together(&mut self, vet: &mut GatewayCheck<'_>, now: Now) -> Together {
        let grouping = &mut self.order_queue.grouping;
        let most = grouping.examined.take().unwrap_or(MOST_TOGETHER);
        if grouping.singly > 0 || self.judges_singly().is_err() {
            return Together::Singly;
        }
        let group = self.first_group(most, now);
        let count = group.members.len();
        if count < 2 {
            return Together::Singly;
        }
        match self.judge_group(&group.edits, vet) {
            Ok(judged) if judged.warnings.is_empty() && judged.obstacles.is_empty() => self.accept_group(group, now),
            Err(JudgementError::Pending) => {
                self.order_queue.grouping.examined = Some(count);
                Together::Pending
            }
            Ok(_) | Err(JudgementError::Refused(_)) => {
                self.order_queue.grouping.take_singly(count);
                Together::Singly
            }
        }
    }

    /// Returns the first waiting orders, up to one that depends on them or is not simply accepted.
    fn first_group(&self, most: usize, now: Now) -> Group {
        let mut group = Group::default();
        for order in self.order_queue.orders.iter().take(most) {
            if group.backends() > MOST_BACKENDS || self.join(order, &mut group, now).is_none() {
                break;
            }
        }
        group
    }

    /// Adds an order to a group. Returns `None` when it has to be taken by itself.
    fn join(&self, order: &Order, group: &mut Group, now: Now) -> Option<()> {
        let (edits, decision, apps) = match order {
            Order::Edit(order, _) if !order.take_over => {
                let edits = self.edits_of_service(&order.name, &order.edit, order.expect).ok()?;
                self.judge_resources(&edits).ok()?;
                (edits, None, Vec::new())
            }
            Order::Addon(order, _) if self.order_queue.is_certain_of_resources() => {
                let apps: Vec<Box<str>> = match &order.request {
                    AddonRequest::Provision(wanted) => {
                        [&wanted.app].into_iter().chain(&wanted.uuid).map(folded).collect()
                    }
                    AddonRequest::Bind(ResourceTarget::App(_, app), ..) => vec![folded(app)],
                    _ => return None,
                };
                let (decision, edits) = self.decide_beside(order, group.ports(), now)?;
                (edits, Some(decision), apps)
            }
            _ => return None,
        };
        let resource = decision
            .as_ref()
            .map(|decision| decision.outcome.resource().id.service().into());
        let put = edits.put.iter().map(|service| &service.name);
        let names: Vec<Name> = put.chain(&edits.gone).cloned().chain(resource).collect();
        let is_of_others = |name| group.names.contains(name);
        // An order that changes nothing is answered at once.
        if names.is_empty() || names.iter().any(is_of_others) || apps.iter().any(|app| group.apps.contains(app)) {
            return None;
        }
        if !self.orphans_removed_by(&edits).is_empty() {
            return None;
        }
        // Each must be acceptable alone, too: the store may refuse the others.
        self.judge_change(&edits, false).ok()?;
        group.names.extend(names);
        group.apps.extend(apps);
        group.add(edits, decision);
        Some(())
    }

    fn judge_group(&self, edits: &Edits, vet: &mut GatewayCheck<'_>) -> Result<AcceptedChange, JudgementError> {
        // Conflicts within the group; conflicts with other services are judged below.
        State::new(edits.put.iter().cloned()).map_err(Refused::Invalid)?;
        let size = ProviderSize {
            provider: Provider::Api,
            before: self.api.len(),
            after: edits.put.len(),
        };
        let options = ApplyOptions {
            allow_empty: true,
            hold_back: true,
            ..ApplyOptions::default()
        };
        self.judge(edits, size, options, vet)
    }

    fn accept_group(&mut self, group: Group, now: Now) -> Together {
        let mut changes = Vec::with_capacity(group.members.len());
        for (edits, decision) in group.members {
            let (accepted, by) = match (self.order_queue.orders.pop_front(), decision) {
                (Some(Order::Edit(order, reply)), None) => {
                    PendingWrite::of_edit(order, edits, AcceptedChange::default(), reply)
                }
                (Some(Order::Addon(order, reply)), Some(decision)) => {
                    PendingWrite::of_addon(&order, decision, edits, AcceptedChange::default(), reply)
                }
                (other, _) => {
                    debug_assert!(false, "the orders are those of the group");
                    self.order_queue.orders.extend(other);
                    break;
                }
            };
            changes.push((self.change_of(&accepted), by));
            self.order_queue.accepted.push(accepted);
        }
        Together::Taken(Write::Together(changes, now.unix))
    }
}
