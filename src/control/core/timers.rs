//! Times of later work.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{RETRY, RETRY_MOST};
use tcpgw_kernel::conntrack::Pair;

/// Delay from the first drain to the first count of its flows: by then handshakes have been answered, or deleted.
const FIRST_COUNT: Duration = Duration::from_millis(200);
/// Minimum interval between counts; it is at least ten times as long as a count takes.
const COUNT: Duration = Duration::from_millis(500);
/// Minimum delay from a change to a write of the record; it is at least fifty times as long as a write takes.
const RECORD: Duration = Duration::from_secs(1);
/// Minimum delay from a failed write of the record to the next attempt.
const RECORD_AGAIN: Duration = Duration::from_secs(5);
/// Time after which an overdue record is written before further changes, which could otherwise postpone it without
/// end.
const LATE: Duration = Duration::from_secs(5);
/// Maximum time that a teardown waits for the file of last services.
const LAST: Duration = Duration::from_secs(2);
/// Delay from a change to the removal of counters of removed services and backends.
const TIDY: Duration = Duration::from_secs(10);

/// Times at which work is due; `None`: never, as things are.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// Next attempt after a failure.
    pub(super) retry: Option<Instant>,
    drift: bool,
    forget: Option<(Instant, BTreeSet<Pair>)>,
    count: Option<Instant>,
    check: Option<Instant>,
    check_interval: Option<Duration>,
    tidy: Option<Instant>,
    record: Option<Instant>,
    /// Next attempt to delete flows that could not be deleted.
    flush: Option<Instant>,
    flush_failures: u32,
    /// Time at which a port becomes free that containers may wait for.
    pub(super) port_free: Option<Instant>,
    /// Next judgement of the services by the state of the gateway.
    judge: Option<Instant>,
    /// Next attempt after a failure of the store; not part of [`Self::next`].
    pub(super) store: Option<Instant>,
    record_pause: Duration,
    /// Next write of the file of last services; not part of [`Self::next`].
    remember: Option<Instant>,
    /// Whether the note of a teardown is outdated.
    pub(super) is_note_outdated: bool,
    remember_pause: Duration,
    /// End of a teardown's wait for that file; not part of [`Self::next`].
    pub(super) teardown: Option<Instant>,
}

impl Due {
    pub(super) fn new(check_interval: Option<Duration>) -> Self {
        Self {
            check_interval,
            record_pause: RECORD,
            remember_pause: RECORD,
            ..Self::default()
        }
    }

    /// Returns the first of these times.
    pub(super) fn next(&self) -> Option<Instant> {
        let forget = self.forget.as_ref().map(|(at, _)| *at);
        let times = [
            self.retry,
            forget,
            self.count,
            self.check,
            self.tidy,
            self.record,
            self.flush,
            self.judge,
            self.port_free,
        ];
        times.into_iter().flatten().min()
    }

    pub(super) fn set_check_interval(&mut self, interval: Option<Duration>, now: Instant) {
        self.check_interval = interval;
        self.check = interval.map(|interval| now + interval);
    }

    /// Schedules the judgement of services at this time.
    pub(super) fn judge(&mut self, at: Instant) {
        self.judge = Some(at);
    }

    /// Schedules the judgement of services at this time, or earlier if it is so already.
    pub(super) fn judge_by(&mut self, at: Instant) {
        self.judge = Some(self.judge.map_or(at, |before| before.min(at)));
    }

    /// Cancels the judgement of services until the next one is scheduled.
    pub(super) fn judge_later(&mut self) {
        self.judge = None;
    }

    pub(super) fn is_judgement_due(&self, now: Instant) -> bool {
        self.judge.is_some_and(|at| at <= now)
    }

    /// Schedules a check at once, since another program has written to nftables, or may have.
    pub(super) fn drift(&mut self) {
        self.drift = true;
    }

    pub(super) fn take_store(&mut self, now: Instant) -> bool {
        self.store.take_if(|at| *at <= now).is_some()
    }

    /// Schedules another attempt to delete flows, with a delay that doubles each time.
    pub(super) fn flush_again(&mut self, now: Instant) {
        if self.flush.is_none() {
            let pause = RETRY.saturating_mul(1 << self.flush_failures.min(16)).min(RETRY_MOST);
            self.flush_failures = self.flush_failures.saturating_add(1);
            self.flush = Some(now + pause);
        }
    }

    /// Cancels attempts to delete flows, since none is left.
    pub(super) fn all_flushed(&mut self) {
        self.flush = None;
        self.flush_failures = 0;
    }

    pub(super) fn take_flush(&mut self, now: Instant) -> bool {
        self.flush.take_if(|at| *at <= now).is_some()
    }

    pub(super) fn take_drift(&mut self) -> bool {
        std::mem::take(&mut self.drift)
    }

    pub(super) fn forget(&mut self, pairs: impl Iterator<Item = Pair>, at: Instant) {
        let (due, all) = self.forget.get_or_insert_with(|| (at, BTreeSet::new()));
        *due = at;
        all.extend(pairs);
    }

    pub(super) fn take_forget(&mut self, now: Instant) -> Option<BTreeSet<Pair>> {
        let (_, all) = self.forget.take_if(|(at, _)| *at <= now)?;
        Some(all)
    }

    /// Starts or stops counting flows of draining backends.
    pub(super) fn drains(&mut self, any: bool, now: Instant) {
        if any {
            self.count.get_or_insert(now + FIRST_COUNT);
        } else {
            self.count = None;
        }
    }

    pub(super) fn take_count(&mut self, now: Instant) -> bool {
        self.count.take_if(|at| *at <= now).is_some()
    }

    /// Schedules the next count, after one that took `took`.
    pub(super) fn counted(&mut self, any_left: bool, took: Duration, now: Instant) {
        if any_left {
            self.count = Some(now + COUNT.max(took.saturating_mul(10)));
        }
    }

    pub(super) fn take_check(&mut self, now: Instant) -> bool {
        let Some(interval) = self.check_interval else {
            return false;
        };
        let at = *self.check.get_or_insert(now + interval);
        if at > now {
            return false;
        }
        self.check = Some(now + interval);
        true
    }

    /// Schedules the removal of unused counters.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.tidy.get_or_insert(now + TIDY);
    }

    pub(super) fn take_tidy(&mut self, now: Instant) -> bool {
        self.tidy.take_if(|at| *at <= now).is_some()
    }

    /// Schedules a write of the record.
    pub(super) fn record(&mut self, now: Instant) {
        self.record.get_or_insert(now + self.record_pause);
    }

    /// Schedules a write of the record after one has failed.
    pub(super) fn record_again(&mut self, now: Instant) {
        self.record.get_or_insert(now + self.record_pause.max(RECORD_AGAIN));
    }

    pub(super) fn next_record(&self) -> Option<Instant> {
        self.record
    }

    /// Schedules immediate writes, so that removed services do not come back when the daemon dies.
    pub(super) fn record_at_once(&mut self, now: Instant) {
        (self.record, self.remember) = (Some(now), Some(now));
    }

    pub(super) fn take_record(&mut self, now: Instant) -> bool {
        self.record.take_if(|at| *at <= now).is_some()
    }

    /// Returns whether the record is overdue for so long that changes have to wait, and resets that.
    pub(super) fn take_late_record(&mut self, now: Instant) -> bool {
        self.record.take_if(|at| *at + LATE <= now).is_some()
    }

    /// Schedules a write of the file of last services.
    pub(super) fn remember(&mut self, now: Instant) {
        self.remember.get_or_insert(now + self.remember_pause);
    }

    /// Schedules an immediate write of the file of last services.
    pub(super) fn remember_at_once(&mut self, now: Instant) {
        self.remember = Some(now);
    }

    /// Returns the end of a teardown's wait for the file of last services.
    pub(super) fn wait_for_last(&mut self, now: Instant) -> Instant {
        *self.teardown.get_or_insert(now + LAST)
    }

    pub(super) fn take_remember(&mut self, now: Instant) -> bool {
        self.remember.take_if(|at| *at <= now).is_some()
    }

    pub(super) fn has_to_remember(&self) -> bool {
        self.remember.is_some()
    }

    pub(super) fn next_remember(&self) -> Option<Instant> {
        self.remember
    }

    /// Sets the delay for the file of last services by the duration of the last write.
    pub(super) fn remembered(&mut self, took: Duration) {
        self.remember_pause = RECORD.max(took.saturating_mul(10));
    }

    /// Sets the delay for the record by the duration of the last write.
    pub(super) fn recorded(&mut self, took: Duration) {
        self.record_pause = RECORD.max(took.saturating_mul(50));
    }
}
