//! Connections of one client that wait for a serving slot. Pure.

use std::collections::VecDeque;

use tokio::sync::oneshot;

/// Connections of one client that wait for a serving slot: the first one gets the next. A serving slot that a silent connection had to leave goes by
/// turns to the last one and the first one: then many that ask nothing, and all came before, do not keep a request waiting until each
/// of them had a serving slot.
#[derive(Debug, Default)]
pub(super) struct WaitingConnections {
    queue: VecDeque<(u64, oneshot::Sender<()>)>,
    /// Whether the next connection that leaves for others does so for the first one.
    is_turn_of_first: bool,
    /// Number of the next serving slots that the last ones get.
    for_last: usize,
}

impl WaitingConnections {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Adds the connection with this number, which is told when it is given a serving slot.
    pub(super) fn add(&mut self, number: u64, give: oneshot::Sender<()>) {
        self.queue.push_back((number, give));
    }

    /// Notes that a silent connection was told to leave its serving slot for one of these.
    pub(super) fn is_left_a_serving_slot(&mut self) {
        if !self.is_turn_of_first {
            self.for_last += 1;
        }
        self.is_turn_of_first = !self.is_turn_of_first;
    }

    /// Returns the connection that gets the next serving slot.
    pub(super) fn next(&mut self) -> Option<(u64, oneshot::Sender<()>)> {
        let next = if self.for_last > 0 {
            self.for_last -= 1;
            self.queue.pop_back()
        } else {
            self.queue.pop_front()
        };
        if self.queue.is_empty() {
            self.for_last = 0;
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(numbers: std::ops::Range<u64>) -> WaitingConnections {
        let mut waiting = WaitingConnections::default();
        for number in numbers {
            waiting.add(number, oneshot::channel().0);
        }
        waiting
    }

    fn order(waiting: &mut WaitingConnections, count: usize) -> Vec<u64> {
        let next = std::iter::from_fn(|| waiting.next().map(|(number, _)| number));
        next.take(count).collect()
    }

    #[test]
    fn who_came_first_is_next() {
        let mut waiting = waiting(0..4);
        assert_eq!(order(&mut waiting, 2), [0, 1]);
        waiting.add(9, oneshot::channel().0);
        assert_eq!(order(&mut waiting, 9), [2, 3, 9]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_serving_slot_that_was_left_goes_by_turns_to_the_last_and_the_first() {
        let mut waiting = waiting(0..100);
        for expected in [99, 0, 98, 1, 97, 2] {
            waiting.is_left_a_serving_slot();
            assert_eq!(order(&mut waiting, 1), [expected]);
        }
        // Others may come between, and serving slots that became free by themselves go to the first.
        waiting.is_left_a_serving_slot();
        waiting.add(100, oneshot::channel().0);
        assert_eq!(order(&mut waiting, 3), [100, 3, 4]);
    }

    /// Serving slots that nobody waited for any more are no claim of later ones.
    #[test]
    fn turns_end_with_the_queue() {
        let mut waiting = waiting(0..1);
        for _ in 0..4 {
            waiting.is_left_a_serving_slot();
        }
        assert_eq!(order(&mut waiting, 9), [0]);
        for number in 1..4 {
            waiting.add(number, oneshot::channel().0);
        }
        assert_eq!(order(&mut waiting, 9), [1, 2, 3]);
    }
}
