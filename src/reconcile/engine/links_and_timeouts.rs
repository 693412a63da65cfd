//! Links and timeouts, on which the table depends besides the services.

use std::collections::BTreeSet;

use super::cached::Surroundings;
use crate::reconcile::engine::Engine;
use crate::reconcile::engine::cached::CachedState;
use tcpgw_core::plan::plan;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::links::Links;
use tcpgw_kernel::{Commit, Kernel, KernelError};

impl<K: Kernel> Engine<K> {
    /// Learns the links, and puts the difference into the table that it knows. Where that fails it forgets what it knows: the next
    /// check reads the table. Handshakes that were not answered before the change are forgotten: they may have been sent by another
    /// link, or from another address, than they would be now.
    pub fn set_links(&mut self, links: Links) {
        if self.links == links {
            return;
        }
        let before = std::mem::replace(&mut self.links, links);
        let Some(mut cached) = self.cached.take() else {
            return;
        };
        match self.commit_links(&before, &mut cached) {
            Ok(generation) => cached.identity.generation = generation,
            Err(error) => {
                self.left = Some(Surroundings {
                    links: before,
                    timeouts: self.timeouts,
                });
                return tracing::debug!(%error, "failed to update the elements that depend on network links");
            }
        }
        self.cached = Some(cached);
        if self.links.leads_elsewhere(&before) {
            let forgotten = self.kernel.sweep(self.mark, &mut |flow| !flow.status.seen_reply());
            match forgotten {
                Ok(deletion) => tracing::debug!(
                    deletion.deleted,
                    "links have changed: handshakes that no backend has answered are forgotten, so that clients are balanced anew"
                ),
                Err(error) => {
                    tracing::debug!(%error, "failed to forget handshakes that no backend has answered, after links have changed");
                }
            }
        }
    }

    /// Reads conntrack's sysctls, which the configuration may overrule, and writes them into the table that it knows if they say something else than before. Where that
    /// fails it forgets what it knows: the next check reads the table.
    pub(super) fn follow_timeouts(&mut self) {
        let timeouts = self.kernel.timeouts().with_idle(self.idle);
        if self.timeouts == timeouts {
            return;
        }
        let before = std::mem::replace(&mut self.timeouts, timeouts);
        let Some(mut cached) = self.cached.take() else {
            return;
        };
        let (others, asked) = (cached.widths.keys().copied().collect(), cached.asked());
        let of = |timeouts| {
            let nothing = Ruleset::default().among(&others, &BTreeSet::new(), &asked);
            nothing.with_timeouts(timeouts)
        };
        match self.commit_all(&of(before), &of(timeouts), &cached) {
            Ok(generation) => cached.identity.generation = generation,
            Err(error) => {
                self.left = Some(Surroundings {
                    links: self.links.clone(),
                    timeouts: before,
                });
                return tracing::debug!(%error, "failed to change the timeouts of flows");
            }
        }
        tracing::info!(
            ?timeouts,
            "the sysctls of conntrack's timeouts were changed: new flows of services follow them"
        );
        self.cached = Some(cached);
    }

    fn commit_links(&mut self, before: &Links, cached: &mut CachedState) -> Result<u32, KernelError> {
        let preserves = cached.preserving > 0;
        let (had, wanted) = (
            Ruleset::of_links(before, preserves),
            Ruleset::of_links(&self.links, preserves),
        );
        if had == wanted {
            return Ok(cached.identity.generation);
        }
        let others = cached.widths.keys().copied().collect();
        let had_asked = cached.asked();
        cached.count(&wanted, &had);
        let had = had.among(&others, &BTreeSet::new(), &had_asked);
        let wanted = wanted.among(&others, &BTreeSet::new(), &cached.asked());
        self.commit_all(&had, &wanted, cached)
    }

    fn commit_all(&mut self, had: &Ruleset, wanted: &Ruleset, cached: &CachedState) -> Result<u32, KernelError> {
        let mut generation = cached.identity.generation;
        for step in &plan(had, wanted).steps {
            let commit = Commit {
                generation,
                mark: self.mark,
                build: None,
                step,
                forget: &[],
            };
            generation = self.kernel.commit(&commit)?;
        }
        Ok(generation)
    }
}
