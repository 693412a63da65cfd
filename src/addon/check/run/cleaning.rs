//! The removal of what was made.

use std::time::Duration;

use super::super::message::{CheckExchange, CheckRequest, NoAnswer, ProviderAnswer};
use super::super::{osb, resources};
use super::CheckRun;
use super::stage::{CheckStage, MAX_LOST};
use crate::addon::check::created_resource::{ProviderResource, ResourcePresence};

/// Number of tries of a removal.
const REMOVALS: u32 = 2;

impl CheckRun {
    pub(super) fn begin_cleaning(&mut self) {
        self.context.is_cleaning = true;
        self.lost = 0;
        // The last thing first: bindings before their instance.
        let made = self.context.made.iter().enumerate();
        let left = made
            .filter(|(_, made)| made.presence != ResourcePresence::Gone)
            .map(|(at, _)| at);
        self.stage = CheckStage::Cleaning {
            left: left.collect(),
            tries: 0,
        };
    }

    pub(super) fn removal(&self, thing: &ProviderResource) -> Option<CheckRequest> {
        if self.is_osb() {
            osb::removing(&self.context, thing)
        } else {
            resources::removing(&self.context, thing)
        }
    }

    /// Returns the request that removes the last of the things that are left.
    pub(super) fn remove_first(&mut self, mut left: Vec<usize>, tries: u32) -> Option<CheckRequest> {
        let Some(made) = left.last().and_then(|at| self.context.made.get(*at)) else {
            self.stage = CheckStage::Over;
            return None;
        };
        let request = self.removal(&made.thing).filter(|_| tries < REMOVALS);
        self.stage = if let Some(request) = &request {
            CheckStage::Removing {
                request: Box::new(request.clone()),
                left,
                tries,
            }
        } else {
            left.pop();
            CheckStage::Cleaning { left, tries: 0 }
        };
        request
    }

    pub(super) fn removed(
        &mut self,
        request: CheckRequest,
        left: Vec<usize>,
        tries: u32,
        came: Result<ProviderAnswer, NoAnswer>,
    ) -> Option<Duration> {
        let answer = match came {
            Ok(answer) => answer,
            Err(lost) => {
                self.context.lost(&request.effect, lost.is_sent);
                // A provider that answers nothing any more is not asked for all of it.
                if self.lost < MAX_LOST {
                    self.stage = CheckStage::Cleaning { left, tries: tries + 1 };
                }
                return None;
            }
        };
        let exchange = self.exchange(request, answer);
        let thing = exchange.request.effect.thing().cloned();
        if let Some(thing) = thing.filter(|_| self.is_osb() && exchange.status() == 202) {
            return self.poll(exchange, &thing, Some((left, tries)));
        }
        self.settle_removal(&exchange, left, tries);
        None
    }

    pub(super) fn settle_removal(&mut self, exchange: &CheckExchange, mut left: Vec<usize>, tries: u32) {
        self.context.settles(exchange);
        let last = left.last().and_then(|at| self.context.made.get(*at));
        let is_gone = last.is_none_or(|made| made.presence == ResourcePresence::Gone);
        if is_gone {
            left.pop();
        }
        self.stage = CheckStage::Cleaning {
            left,
            tries: if is_gone { 0 } else { tries + 1 },
        };
    }
}
