//! Established connections of clients that a service denies now: access lists judge new connections only, so these
//! continue until they are counted and deleted here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::access_lists::AccessLists;
use tcpgw_core::model::FlowMark;
use tcpgw_core::summary::Summary;
use tcpgw_core::words::count;
use tcpgw_kernel::conntrack::Deletion;
use tcpgw_kernel::netlink::error::NetlinkError;
use tcpgw_kernel::{InFlight, Kernel, KernelError, reading};

/// Maximum number of passes over the flows until none is found.
const PASSES: u32 = 50;

/// Flows that continue though their clients are denied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeniedFlows {
    /// Number of all such flows.
    pub flows: u64,
    /// Services that have such flows.
    pub services: Vec<DeniedOfService>,
}

/// Flows of denied clients of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeniedOfService {
    /// Name of the service, if it is known.
    pub name: Option<Box<str>>,
    /// Public port of the service.
    pub port: u16,
    /// Number of flows of denied clients.
    pub flows: u64,
}

/// Result of deleting such flows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeniedFlushed {
    /// Number of flows that were deleted.
    pub flushed: u64,
    /// Number of flows that could not be deleted.
    pub failed: u64,
}

/// Counts the flows that continue though their clients are denied. `only`: position of the only service to count.
///
/// # Errors
/// Fails when [`Kernel::flows`] fails.
pub fn count_denied(
    kernel: &mut dyn Kernel,
    mark: FlowMark,
    summary: &Summary,
    only: Option<usize>,
) -> Result<DeniedFlows, KernelError> {
    let lists = AccessLists::of(summary);
    if lists.is_empty() {
        return Ok(DeniedFlows::default());
    }
    let counts = reading(|| {
        let mut counts: BTreeMap<usize, u64> = BTreeMap::new();
        kernel.flows(mark, &mut |flow| {
            if let Some(at) = lists.denied_by(flow).filter(|at| only.is_none_or(|only| only == *at)) {
                *counts.entry(at).or_default() += 1;
            }
        })?;
        Ok(counts)
    })?;
    let of_service = |(at, flows): (&usize, &u64)| {
        let service = &summary.services[*at];
        DeniedOfService {
            name: service.name.clone(),
            port: service.port,
            flows: *flows,
        }
    };
    Ok(DeniedFlows {
        flows: counts.values().sum(),
        services: counts.iter().map(of_service).collect(),
    })
}

/// Deletes the flows of denied clients, including those whose first packet passed just before the lists changed.
///
/// # Errors
/// Fails when [`Kernel::sweep`] fails, and with [`NetlinkError::Overrun`] when every pass loses answers.
pub fn flush_denied(
    kernel: &mut dyn Kernel,
    mark: FlowMark,
    summary: &Summary,
    only: Option<usize>,
) -> Result<DeniedFlushed, KernelError> {
    let lists = AccessLists::of(summary);
    let mut flushed = DeniedFlushed::default();
    if lists.is_empty() {
        return Ok(flushed);
    }
    for _ in 0..PASSES {
        let in_flight = kernel.settle()?;
        if in_flight == InFlight::NoFlows {
            return Ok(flushed);
        }
        let Deletion {
            deleted,
            gone,
            failed,
            incomplete,
            ..
        } = kernel.sweep(mark, &mut |flow| {
            lists
                .denied_by(flow)
                .is_some_and(|at| only.is_none_or(|only| only == at))
        })?;
        flushed.flushed += deleted;
        flushed.failed = failed;
        let through = in_flight == InFlight::Through || deleted == 0 && gone == 0;
        if failed > 0 || through && !incomplete {
            return Ok(flushed);
        }
    }
    Err(NetlinkError::Overrun.into())
}

impl DeniedFlows {
    /// Returns the sentence about these flows for people, if there are any.
    pub fn words(&self) -> Option<String> {
        const SHOWN: usize = 5;
        if self.flows == 0 {
            return None;
        }
        let name = |of: &DeniedOfService| match &of.name {
            Some(name) => format!("{name} {}", of.flows),
            None => format!(":{} {}", of.port, of.flows),
        };
        let mut names: Vec<String> = self.services.iter().take(SHOWN).map(name).collect();
        if self.services.len() > SHOWN {
            names.push(count(self.services.len() - SHOWN, "more service"));
        }
        let flows = count(usize::try_from(self.flows).unwrap_or(usize::MAX), "connection");
        let (verb, them) = if self.flows == 1 {
            ("goes", "it")
        } else {
            ("go", "them")
        };
        Some(format!(
            "{flows} of denied clients {verb} on ({}); --flush-denied ends {them}",
            names.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_the_services_and_count_right() {
        let of = |flows: &[(&str, u64)]| DeniedFlows {
            flows: flows.iter().map(|(_, flows)| flows).sum(),
            services: flows
                .iter()
                .map(|(name, flows)| DeniedOfService {
                    name: Some((*name).into()),
                    port: 2000,
                    flows: *flows,
                })
                .collect(),
        };
        assert_eq!(of(&[]).words(), None);
        assert_eq!(
            of(&[("web", 1)]).words().unwrap(),
            "1 connection of denied clients goes on (web 1); --flush-denied ends it"
        );
        let many: Vec<(&str, u64)> = vec![("a", 2); 7];
        assert_eq!(
            of(&many).words().unwrap(),
            "14 connections of denied clients go on (a 2, a 2, a 2, a 2, a 2, 2 more services); --flush-denied ends them"
        );
    }
}
