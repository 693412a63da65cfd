//! What is to be done later, and when.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{RETRY, RETRY_MOST};
use tcpgw_kernel::conntrack::Pair;

/// From the first drain until its flows are counted: handshakes have been answered, or forgotten, by then.
const FIRST_COUNT: Duration = Duration::from_millis(200);
/// From one count to the next: at least this, and ten times as long as a count takes.
const COUNT: Duration = Duration::from_millis(500);
/// From a change until the record is written: at least this, and fifty times as long as writing it takes.
const RECORD: Duration = Duration::from_secs(1);
/// From an attempt to write the record that failed until the next: at least this.
const RECORD_AGAIN: Duration = Duration::from_secs(5);
/// A record that is due for so long goes before further changes, which would keep it out for ever.
const LATE: Duration = Duration::from_secs(5);
/// So long a teardown waits for the file of last services.
const LAST: Duration = Duration::from_secs(2);
/// From a change until counters of what is gone are removed.
const TIDY: Duration = Duration::from_secs(10);

/// The times at which something is due; `None`: never, as things are.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// The next attempt after a failure.
    pub(super) retry: Option<Instant>,
    drift: bool,
    forget: Option<(Instant, BTreeSet<Pair>)>,
    count: Option<Instant>,
    check: Option<Instant>,
    check_interval: Option<Duration>,
    tidy: Option<Instant>,
    record: Option<Instant>,
    /// The next attempt to delete flows that could not be deleted.
    flush: Option<Instant>,
    flush_failures: u32,
    /// The services are judged again by what the gateway is like.
    judge: Option<Instant>,
    /// The next attempt after the store has failed; not one of [`Self::next`].
    pub(super) store: Option<Instant>,
    record_pause: Duration,
    /// When the file of last services is to be written; not one of [`Self::next`].
    remember: Option<Instant>,
    /// The note of a teardown is not what it should say.
    pub(super) is_note_outdated: bool,
    remember_pause: Duration,
    /// Until then a teardown waits for that file; not one of [`Self::next`].
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

    /// The first of these times.
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
        ];
        times.into_iter().flatten().min()
    }

    pub(super) fn set_check_interval(&mut self, interval: Option<Duration>, now: Instant) {
        self.check_interval = interval;
        self.check = interval.map(|interval| now + interval);
    }

    /// The services are to be judged again at that time.
    pub(super) fn judge(&mut self, at: Instant) {
        self.judge = Some(at);
    }

    /// They are to be judged again at that time, if not before.
    pub(super) fn judge_by(&mut self, at: Instant) {
        self.judge = Some(self.judge.map_or(at, |before| before.min(at)));
    }

    /// They are to be judged, at a time that nobody knows yet.
    pub(super) fn judge_later(&mut self) {
        self.judge = None;
    }

    pub(super) fn is_judgement_due(&self, now: Instant) -> bool {
        self.judge.is_some_and(|at| at <= now)
    }

    /// Somebody else has written, or may have.
    pub(super) fn drift(&mut self) {
        self.drift = true;
    }

    pub(super) fn take_store(&mut self, now: Instant) -> bool {
        self.store.take_if(|at| *at <= now).is_some()
    }

    /// Some flows could not be deleted: they are tried again, each time after twice as long.
    pub(super) fn flush_again(&mut self, now: Instant) {
        if self.flush.is_none() {
            let pause = RETRY.saturating_mul(1 << self.flush_failures.min(16)).min(RETRY_MOST);
            self.flush_failures = self.flush_failures.saturating_add(1);
            self.flush = Some(now + pause);
        }
    }

    /// No flow is left that should have been deleted.
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

    /// Whether anybody drains.
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

    /// A count has taken so long.
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

    /// Something was taken away.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.tidy.get_or_insert(now + TIDY);
    }

    pub(super) fn take_tidy(&mut self, now: Instant) -> bool {
        self.tidy.take_if(|at| *at <= now).is_some()
    }

    /// The record is not up to date.
    pub(super) fn record(&mut self, now: Instant) {
        self.record.get_or_insert(now + self.record_pause);
    }

    /// The record could not be written.
    pub(super) fn record_again(&mut self, now: Instant) {
        self.record.get_or_insert(now + self.record_pause.max(RECORD_AGAIN));
    }

    pub(super) fn next_record(&self) -> Option<Instant> {
        self.record
    }

    /// What was removed must not come back when the daemon dies now.
    pub(super) fn record_at_once(&mut self, now: Instant) {
        (self.record, self.remember) = (Some(now), Some(now));
    }

    pub(super) fn take_record(&mut self, now: Instant) -> bool {
        self.record.take_if(|at| *at <= now).is_some()
    }

    /// Whether the record is due for so long that changes have to wait.
    pub(super) fn take_late_record(&mut self, now: Instant) -> bool {
        self.record.take_if(|at| *at + LATE <= now).is_some()
    }

    /// The file of last services is not up to date.
    pub(super) fn remember(&mut self, now: Instant) {
        self.remember.get_or_insert(now + self.remember_pause);
    }

    /// It is to be written without a pause.
    pub(super) fn remember_at_once(&mut self, now: Instant) {
        self.remember = Some(now);
    }

    /// Until when a teardown waits for that file.
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

    /// Writing it has taken so long.
    pub(super) fn remembered(&mut self, took: Duration) {
        self.remember_pause = RECORD.max(took.saturating_mul(10));
    }

    /// Writing it has taken so long.
    pub(super) fn recorded(&mut self, took: Duration) {
        self.record_pause = RECORD.max(took.saturating_mul(50));
    }
}
