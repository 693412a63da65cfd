//! The flows of the last list, each with its own numbers.
//!
//! A flow that has left the list without a report has ended: what it had counts on, and what others have gained meanwhile is not
//! taken for it. The next daemon begins with them, since nobody reports ends while none runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::flow_sums::{FlowNumber, FlowPresence, FlowSums, LiveFlows};

/// Service and backend of a flow.
type FlowOwner = (Box<str>, SocketAddr);

/// Flows by their numbers, up to [`MOST_LISTED`](super::flow_sums::MOST_LISTED).
#[derive(Debug, Default)]
pub(super) struct KnownFlows {
    owners: Vec<FlowOwner>,
    /// Place of the owner in `owners`, and the numbers at the last list.
    flows: BTreeMap<FlowNumber, (u32, FlowSums)>,
}

/// The flows as they are written.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct WrittenFlows {
    /// Number that tells whether the next program numbers flows in the same way.
    numbering: u64,
    flows: Vec<(FlowOwner, Vec<(FlowNumber, FlowSums)>)>,
}

impl KnownFlows {
    /// Adds flows of a backend of a service.
    pub(super) fn add(&mut self, name: &str, backend: SocketAddr, flows: &[(FlowNumber, FlowSums)]) {
        if flows.is_empty() {
            return;
        }
        let Ok(owner) = u32::try_from(self.owners.len()) else {
            return;
        };
        self.owners.push((name.into(), backend));
        self.flows
            .extend(flows.iter().map(|(number, sums)| (*number, (owner, *sums))));
    }

    /// Forgets a flow whose end was reported.
    pub(super) fn forget(&mut self, number: FlowNumber) {
        self.flows.remove(&number);
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes all flows that are not in the list of the live ones, by service and backend: those that have ended without a report, then
    /// those whose report is under way.
    pub(super) fn take_absent(
        &mut self,
        live: &mut LiveFlows,
    ) -> [BTreeMap<FlowOwner, Vec<(FlowNumber, FlowSums)>>; 2] {
        let Self { owners, flows } = std::mem::take(self);
        let mut absent = [BTreeMap::new(), BTreeMap::new()];
        for (number, (owner, sums)) in flows {
            let of = match live.presence(number) {
                FlowPresence::Live => continue,
                FlowPresence::Absent => &mut absent[0],
                FlowPresence::Dying => &mut absent[1],
            };
            if let Some(owner) = owners.get(owner as usize) {
                let flows: &mut Vec<_> = of.entry(owner.clone()).or_default();
                flows.push((number, sums));
            }
        }
        absent
    }

    /// Returns the flows as they are to be written.
    pub(super) fn written(&self) -> WrittenFlows {
        let mut flows: Vec<(FlowOwner, Vec<_>)> = self.owners.iter().map(|owner| (owner.clone(), Vec::new())).collect();
        for (number, (owner, sums)) in &self.flows {
            if let Some((_, of)) = flows.get_mut(*owner as usize) {
                of.push((*number, *sums));
            }
        }
        flows.retain(|(_, of)| !of.is_empty());
        WrittenFlows {
            numbering: FlowNumber::numbering(),
            flows,
        }
    }

    /// Returns the flows that an earlier daemon has written; none if it has numbered them in another way.
    pub(super) fn read(written: WrittenFlows) -> Self {
        let mut known = Self::default();
        if written.numbering == FlowNumber::numbering() {
            for ((name, backend), flows) in written.flows {
                known.add(&name, backend, &flows);
            }
        }
        known
    }
}
