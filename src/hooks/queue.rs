//! The events that are still to be delivered to a hook: one after the other, each again after a failure, up to a bound.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Number of events that may wait for a hook. When one more comes, the oldest of them is lost.
pub const MOST_WAITING: usize = 1024;
/// Pauses before the second and each later attempt: an event is given up 5 minutes after its first attempt, plus the time that
/// its attempts take.
pub const PAUSES: [Duration; 4] = [
    Duration::from_secs(5),
    Duration::from_secs(25),
    Duration::from_secs(90),
    Duration::from_secs(180),
];
/// Number of attempts to deliver an event.
pub const ATTEMPTS: usize = PAUSES.len() + 1;
/// Time for which a loss is a problem.
pub const TOLD: Duration = Duration::from_secs(600);

/// Result of an attempt to deliver an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The event was delivered.
    Delivered,
    /// The event is delivered again at this time.
    Again(Instant),
    /// The event is lost, since this was the last attempt.
    Lost,
}

/// The queue of one hook.
#[derive(Debug)]
pub struct HookQueue<E> {
    waiting: VecDeque<E>,
    /// The event that is delivered now, or is to be delivered again.
    current: Option<CurrentEvent<E>>,
    lost: u64,
    last_loss: Option<Instant>,
}

#[derive(Debug)]
struct CurrentEvent<E> {
    event: E,
    /// Number of attempts that have begun.
    attempts: usize,
    /// Time of the next attempt; `None`: one is under way.
    at: Option<Instant>,
}

impl<E> Default for HookQueue<E> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            current: None,
            lost: 0,
            last_loss: None,
        }
    }
}

impl<E: Clone> HookQueue<E> {
    /// Adds an event. Returns the oldest waiting one if that is lost for it.
    pub fn offer(&mut self, event: E, now: Instant) -> Option<E> {
        let oldest = if self.waiting.len() < MOST_WAITING {
            None
        } else {
            self.waiting.pop_front()
        };
        if oldest.is_some() {
            self.lose(1, now);
        }
        self.waiting.push_back(event);
        oldest
    }

    /// Begins an attempt to deliver an event, if one is due and none is under way. Returns the event and the number of the
    /// attempt, from 1. [`Self::ended`] has to follow.
    pub fn begin(&mut self, now: Instant) -> Option<(E, usize)> {
        if self.current.is_none() {
            let event = self.waiting.pop_front()?;
            self.current = Some(CurrentEvent {
                event,
                attempts: 0,
                at: Some(now),
            });
        }
        let current = self.current.as_mut()?;
        current.at.take_if(|at| *at <= now)?;
        current.attempts += 1;
        Some((current.event.clone(), current.attempts))
    }

    /// Ends the attempt under way. Returns its result.
    pub fn ended(&mut self, is_delivered: bool, now: Instant) -> DeliveryOutcome {
        if is_delivered {
            self.current = None;
            return DeliveryOutcome::Delivered;
        }
        let pause = self
            .current
            .as_ref()
            .and_then(|current| PAUSES.get(current.attempts.checked_sub(1)?));
        if let (Some(pause), Some(current)) = (pause, &mut self.current) {
            let at = now + *pause;
            current.at = Some(at);
            return DeliveryOutcome::Again(at);
        }
        self.current = None;
        self.lose(1, now);
        DeliveryOutcome::Lost
    }

    /// Returns the time at which [`Self::begin`] has work; `None`: not before an attempt has ended, or an event comes.
    pub fn begins_at(&self, now: Instant) -> Option<Instant> {
        match &self.current {
            Some(current) => current.at,
            None => (!self.waiting.is_empty()).then_some(now),
        }
    }

    /// Returns whether an attempt is under way.
    pub fn is_under_way(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.at.is_none())
    }

    /// Counts events that were lost before they got here.
    pub fn lose(&mut self, events: u64, now: Instant) {
        self.lost += events;
        self.last_loss = Some(now);
    }

    /// Returns the number of events that were lost since this queue was made.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Returns whether an event was lost in the last [`TOLD`].
    pub fn is_losing(&self, now: Instant) -> bool {
        self.last_loss
            .is_some_and(|last| now.saturating_duration_since(last) < TOLD)
    }

    /// Returns the number of events that are not delivered yet.
    pub fn left(&self) -> usize {
        self.waiting.len() + usize::from(self.current.is_some())
    }

    /// Returns the number of attempts that have failed or are under way for the present event.
    pub fn attempts(&self) -> usize {
        self.current.as_ref().map_or(0, |current| current.attempts)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_event_that_never_arrives_is_given_up_after_five_minutes() {
        let (begin, mut queue) = (Instant::now(), HookQueue::default());
        assert_eq!((queue.begins_at(begin), queue.is_under_way()), (None, false));
        queue.offer('a', begin);
        queue.offer('b', begin);
        let (mut now, mut times) = (begin, Vec::new());
        loop {
            assert_eq!(queue.begins_at(now), Some(now));
            let (event, attempt) = queue.begin(now).expect("an attempt");
            assert_eq!((event, attempt), ('a', times.len() + 1));
            times.push(now.duration_since(begin).as_secs());
            assert_eq!((queue.begin(now), queue.begins_at(now)), (None, None), "one at a time");
            assert!(queue.is_under_way());
            match queue.ended(false, now) {
                DeliveryOutcome::Again(at) => {
                    assert_eq!(queue.begin(now + Duration::from_secs(4)), None, "not before its time");
                    now = at;
                }
                fate => {
                    assert_eq!(fate, DeliveryOutcome::Lost);
                    break;
                }
            }
        }
        assert_eq!(times, [0, 5, 30, 120, 300]);
        assert_eq!((times.len(), queue.lost(), queue.left()), (ATTEMPTS, 1, 1));
        assert!(queue.is_losing(now) && !queue.is_losing(now + TOLD));
        assert_eq!(queue.begin(now), Some(('b', 1)), "the next one is not kept waiting");
        assert_eq!(queue.ended(true, now), DeliveryOutcome::Delivered);
        assert_eq!(queue.left(), 0);
    }

    #[test]
    fn of_too_many_the_oldest_is_lost_and_not_the_one_that_is_told() {
        let (now, mut queue) = (Instant::now(), HookQueue::default());
        queue.offer(0, now);
        assert_eq!(queue.begin(now), Some((0, 1)));
        let dropped: Vec<usize> = (1..MOST_WAITING + 3)
            .filter_map(|event| queue.offer(event, now))
            .collect();
        assert_eq!((dropped, queue.lost(), queue.left()), (vec![1, 2], 2, MOST_WAITING + 1));
        assert!(matches!(queue.ended(false, now), DeliveryOutcome::Again(_)));
        assert_eq!(queue.begin(now + PAUSES[0]), Some((0, 2)));
    }

    #[derive(Debug, Clone)]
    enum QueueStep {
        Offer(usize),
        Begin,
        End(bool),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<QueueStep>> {
        let step = prop_oneof![
            2 => (1_usize..700).prop_map(QueueStep::Offer),
            8 => Just(QueueStep::Begin),
            8 => any::<bool>().prop_map(QueueStep::End),
            4 => (0_u64..200).prop_map(QueueStep::Wait),
        ];
        prop::collection::vec(step, 0..120)
    }

    proptest! {
        /// Whatever happens: each event is delivered at most once and in order, is tried 5 times at most and never two at a time,
        /// and is delivered, lost and counted, or still there.
        #[test]
        fn every_event_is_delivered_once_in_order_or_counted(steps in steps()) {
            let (mut now, mut queue) = (Instant::now(), HookQueue::default());
            let (mut offered, mut under_way) = (0_usize, None);
            let (mut delivered, mut tries): (Vec<usize>, usize) = (Vec::new(), 0);
            for step in steps {
                match step {
                    QueueStep::Offer(count) => {
                        for _ in 0..count {
                            queue.offer(offered, now);
                            offered += 1;
                        }
                    }
                    QueueStep::Begin => {
                        let is_due = queue.begins_at(now).is_some_and(|at| at <= now);
                        let begun = queue.begin(now);
                        prop_assert_eq!(begun.is_some(), is_due);
                        if let Some((event, attempt)) = begun {
                            prop_assert!(under_way.is_none(), "two at a time");
                            tries = if attempt == 1 { 1 } else { tries + 1 };
                            prop_assert_eq!(attempt, tries);
                            prop_assert!(attempt <= ATTEMPTS);
                            under_way = Some(event);
                        }
                    }
                    QueueStep::End(is_delivered) => {
                        let Some(event) = under_way.take() else { continue };
                        match queue.ended(is_delivered, now) {
                            DeliveryOutcome::Delivered => {
                                prop_assert!(is_delivered);
                                prop_assert!(delivered.last().is_none_or(|last| *last < event), "out of order");
                                delivered.push(event);
                            }
                            DeliveryOutcome::Again(at) => prop_assert!(!is_delivered && at > now && tries < ATTEMPTS),
                            DeliveryOutcome::Lost => prop_assert!(!is_delivered && tries == ATTEMPTS),
                        }
                    }
                    QueueStep::Wait(seconds) => now += Duration::from_secs(seconds),
                }
                let lost = usize::try_from(queue.lost()).unwrap();
                prop_assert_eq!(offered, delivered.len() + lost + queue.left());
                prop_assert!(queue.left() <= MOST_WAITING + 1);
                prop_assert_eq!(queue.begins_at(now).is_none(), under_way.is_some() || queue.left() == 0);
            }
        }
    }
}
