//! Operations that go on after their answer.

use std::time::Duration;

use serde_json::Value;

use super::super::message::{CheckExchange, NoAnswer, OperationEnd, ProviderAnswer, RequestEffect};
use super::super::osb;
use super::CheckRun;
use super::stage::{CheckStage, MAX_LOST, Poll};
use crate::addon::check::created_resource::ProviderResource;

/// Time between two questions about an operation, unless the provider says another.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Longest time between them.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(10);

impl CheckRun {
    /// Begins to poll an operation that is in progress.
    pub(super) fn poll(
        &mut self,
        exchange: CheckExchange,
        thing: &ProviderResource,
        cleaning: Option<(Vec<usize>, u32)>,
    ) -> Option<Duration> {
        self.context.is_asynchronous = true;
        let operation = exchange.member("operation").and_then(Value::as_str);
        let Some(request) = osb::polling(&self.context, thing, operation) else {
            self.settle(exchange);
            return None;
        };
        let wait = interval(&exchange.answer);
        self.stage = CheckStage::Polling(Box::new(Poll {
            exchange,
            request,
            spent: wait,
            cleaning,
        }));
        Some(wait)
    }

    pub(super) fn polled(&mut self, mut poll: Box<Poll>, came: Result<ProviderAnswer, NoAnswer>) -> Option<Duration> {
        let limit = self.context.settings.poll_limit;
        let is_removal = matches!(poll.exchange.request.effect, RequestEffect::Removes(_));
        let (wait, end) = match came {
            Err(lost) if self.lost >= MAX_LOST => (POLL_INTERVAL, Some(OperationEnd::GivenUp(lost.why))),
            Err(_) => (POLL_INTERVAL, None),
            Ok(answer) => {
                let wait = interval(&answer);
                poll.spent = poll.spent.saturating_add(answer.took);
                let exchange = CheckExchange {
                    request: poll.request.clone(),
                    identity: self.identity(),
                    answer,
                    end: None,
                };
                let end = match (exchange.status(), osb::state(&exchange)) {
                    (410, _) if is_removal => Some(OperationEnd::Succeeded),
                    (200, Ok("succeeded")) => Some(OperationEnd::Succeeded),
                    (200, Ok("failed")) => {
                        let why = exchange.member("description").and_then(Value::as_str);
                        Some(OperationEnd::Failed(why.unwrap_or("no description").to_owned()))
                    }
                    (200, Err(flaw)) => Some(OperationEnd::GivenUp(format!("last_operation: {}", flaw.why))),
                    _ => None,
                };
                self.transcript.push(exchange);
                (wait, end)
            }
        };
        poll.spent = poll.spent.saturating_add(wait);
        let end = end.or_else(|| {
            let is_late = poll.spent > limit;
            is_late.then(|| OperationEnd::GivenUp(format!("in progress after {} s (--poll-timeout)", limit.as_secs())))
        });
        match end {
            None => {
                self.stage = CheckStage::Polling(poll);
                Some(wait)
            }
            Some(end) => {
                let mut exchange = poll.exchange;
                exchange.end = Some(end);
                match poll.cleaning {
                    None => self.settle(exchange),
                    Some((left, tries)) => self.settle_removal(&exchange, left, tries),
                }
                None
            }
        }
    }
}

/// Returns the time until an operation is asked after again.
fn interval(answer: &ProviderAnswer) -> Duration {
    let wanted = answer.retry_after.unwrap_or(POLL_INTERVAL);
    wanted.clamp(Duration::from_millis(100), MAX_POLL_INTERVAL)
}
