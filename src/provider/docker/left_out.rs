//! Events that are too long to be read, and the containers that they are of.

use std::collections::{BTreeMap, BTreeSet};

use super::lines::LONGEST_EVENT;
use tcpgw_core::escape;
use tcpgw_core::words::count;

/// Largest number of containers that are remembered.
const MAX_CONTAINERS: usize = 256;
/// Number of containers that a message names, and the number of characters of an id in it.
const SHOWN: usize = 3;
const SHOWN_ID: usize = 12;

/// Events that were left out.
#[derive(Debug, Default)]
pub(super) struct LeftOutEvents {
    /// Number of events of each container that exists, by its id.
    containers: BTreeMap<Box<str>, u64>,
    /// Number of those of this connection whose container is not known.
    others: u64,
}

impl LeftOutEvents {
    /// Notes an event. `container`: the id of its container, if it is known.
    pub(super) fn add(&mut self, container: Option<Box<str>>) {
        let number = match container {
            Some(id) if self.containers.len() < MAX_CONTAINERS || self.containers.contains_key(&id) => {
                self.containers.entry(id).or_default()
            }
            _ => &mut self.others,
        };
        *number = number.saturating_add(1);
    }

    /// Returns the containers of such events.
    pub(super) fn containers(&self) -> BTreeSet<Box<str>> {
        self.containers.keys().cloned().collect()
    }

    /// Forgets the containers among `asked` that a list has not named.
    pub(super) fn retain(&mut self, asked: &BTreeSet<Box<str>>, listed: &BTreeSet<Box<str>>) {
        self.containers
            .retain(|id, _| listed.contains(id) || !asked.contains(id));
    }

    /// Forgets the events whose container is not known, since the engine is connected anew.
    pub(super) fn connected(&mut self) {
        self.others = 0;
    }

    /// Returns what was left out; `None`: nothing whose reason lasts.
    pub(super) fn message(&self) -> Option<String> {
        let number = self
            .containers
            .values()
            .fold(self.others, |sum, of| sum.saturating_add(*of));
        if number == 0 {
            return None;
        }
        let ids = self.containers.keys().take(SHOWN);
        let ids: Vec<String> = ids
            .map(|id| escape::text(&id.chars().take(SHOWN_ID).collect::<String>()))
            .collect();
        let more = self.containers.len().saturating_sub(SHOWN);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        let of = if ids.is_empty() {
            String::new()
        } else {
            format!(" (containers {}{more})", ids.join(", "))
        };
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        Some(format!(
            "left out {} of Docker's engine{of}: an event has all labels of its container, and more than {} MiB are not read; such \
             containers are followed by lists only. Create them anew with smaller labels, or remove them",
            count(number, "event"),
            LONGEST_EVENT >> 20
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[&str]) -> BTreeSet<Box<str>> {
        ids.iter().map(|id| (*id).into()).collect()
    }

    #[test]
    fn events_are_told_while_their_containers_are_there() {
        let mut events = LeftOutEvents::default();
        assert_eq!(events.message(), None);
        for id in ["a", "a", "b"] {
            events.add(Some(id.into()));
        }
        let message = events.message().unwrap();
        assert!(
            message.starts_with("left out 3 events of Docker's engine (containers a, b): "),
            "{message}"
        );
        // One that came while the list was on its way stays.
        events.retain(&set(&["a"]), &set(&[]));
        assert_eq!(events.containers(), set(&["b"]));
        events.retain(&set(&["b"]), &set(&["b"]));
        assert!(events.message().is_some());
        events.retain(&set(&["b"]), &set(&[]));
        assert_eq!(events.message(), None);
        events.add(None);
        assert!(
            events
                .message()
                .unwrap()
                .contains("left out 1 event of Docker's engine: ")
        );
        events.connected();
        assert_eq!(events.message(), None);
    }

    #[test]
    fn their_memory_and_message_are_bounded() {
        let mut events = LeftOutEvents::default();
        for number in 0..10_000 {
            events.add(Some(format!("\u{1b}{number:0>64}").into()));
        }
        let message = events.message().unwrap();
        assert_eq!(events.containers.len(), MAX_CONTAINERS);
        assert!(
            message.contains("10000 events") && message.contains("and 253 more"),
            "{message}"
        );
        assert!(message.len() < 500 && !message.contains('\u{1b}'), "{message}");
    }
}
