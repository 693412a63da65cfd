//! The list of services: its order, the text that filters it, and the selected row.

use std::cmp::Ordering;

use clap::ValueEnum;

use super::history::TopHistory;
use super::sample::{ServiceLine, TopSample};

/// Value by which services are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum TopSort {
    /// Bytes per second, then packets per second, connections per second and flows
    Traffic,
    /// Packets per second
    Packets,
    /// New connections per second
    Connections,
    /// Flows
    Flows,
    /// Used part of the limit
    Limit,
    /// Dropped packets per second, then in all
    Dropped,
    /// Services that are not up first
    State,
    /// Name
    Name,
    /// Public port
    Port,
}

impl TopSort {
    /// Returns the word for it, which is also the value of the option.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Traffic => "traffic",
            Self::Packets => "packets",
            Self::Connections => "connections",
            Self::Flows => "flows",
            Self::Limit => "limit",
            Self::Dropped => "dropped",
            Self::State => "state",
            Self::Name => "name",
            Self::Port => "port",
        }
    }

    /// Returns the value so many places further in the list of values.
    pub(super) fn turned(self, places: isize) -> Self {
        let all = Self::value_variants();
        let at = all.iter().position(|of| *of == self).unwrap_or(0);
        let length = isize::try_from(all.len()).unwrap_or(1);
        let at = isize::try_from(at).unwrap_or(0).saturating_add(places);
        let at = usize::try_from(at.rem_euclid(length)).unwrap_or(0);
        all.get(at).copied().unwrap_or(self)
    }

    /// Compares two services: the largest values, the worst states and the first names come first.
    fn compare(self, one: &ServiceLine, other: &ServiceLine, history: &TopHistory) -> Ordering {
        let largest = |one: Option<f64>, other: Option<f64>| {
            // Values that are not known come last.
            let value = |of: Option<f64>| of.unwrap_or(-1.0);
            value(other).total_cmp(&value(one))
        };
        let (a, b) = (&one.load, &other.load);
        let packets = || largest(a.packets(), b.packets());
        let rate = |of: &ServiceLine| history.connection_rate(&of.title);
        let connections = || largest(rate(one), rate(other));
        let flows = || b.flows.cmp(&a.flows);
        match self {
            Self::Traffic => largest(a.bytes(), b.bytes())
                .then_with(packets)
                .then_with(connections)
                .then_with(flows),
            Self::Packets => packets(),
            Self::Connections => connections(),
            Self::Flows => flows(),
            Self::Limit => largest(a.of_limit, b.of_limit),
            Self::Dropped => largest(a.drop_rate, b.drop_rate).then_with(|| b.dropped.cmp(&a.dropped)),
            Self::State => one.state.cmp(&other.state),
            Self::Name => one.title.cmp(&other.title),
            Self::Port => one.port.cmp(&other.port),
        }
    }
}

/// Position in a list, and the first row that is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TopScroll {
    /// Place of the selected row; `None`: none is selected, and the list stays at its first row.
    pub(super) at: Option<usize>,
    /// Place of the first row that is shown.
    pub(super) top: usize,
}

impl TopScroll {
    /// Moves the selection by so many rows.
    pub(super) fn step(&mut self, by: isize, count: usize) {
        let last = count.saturating_sub(1);
        let to = match self.at {
            Some(at) => at.saturating_add_signed(by),
            None if by < 0 => 0,
            // The first step selects the first row, a page leads further.
            None => 0_usize.saturating_add_signed(by - 1),
        };
        self.at = (count > 0).then(|| to.min(last));
    }

    /// Brings the shown rows to the selected one, in a list of so many rows of which so many are shown.
    pub(super) fn settle(&mut self, count: usize, rows: usize) {
        self.at = self.at.filter(|_| count > 0).map(|at| at.min(count.saturating_sub(1)));
        let rows = rows.max(1);
        match self.at {
            None => self.top = 0,
            Some(at) if at < self.top => self.top = at,
            Some(at) if at >= self.top + rows => self.top = at + 1 - rows,
            Some(_) => {}
        }
        self.top = self.top.min(count.saturating_sub(rows));
    }
}

/// The services in the order in which they are shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ServiceListing {
    /// Value by which they are sorted.
    pub(super) sort: TopSort,
    /// Whether the order is turned round.
    pub(super) is_reversed: bool,
    /// Text that the shown services contain.
    pub(super) filter: String,
    /// Places in the sample.
    pub(super) order: Vec<usize>,
    /// Position in the list.
    pub(super) scroll: TopScroll,
    /// Title of the selected service, which stays selected where the order changes.
    pub(super) selected: Option<Box<str>>,
}

impl ServiceListing {
    /// Creates an empty list.
    pub(super) fn new(sort: TopSort, filter: &str) -> Self {
        Self {
            sort,
            is_reversed: false,
            filter: filter.to_owned(),
            order: Vec::new(),
            scroll: TopScroll::default(),
            selected: None,
        }
    }

    /// Sorts and filters the services of a sample anew.
    pub(super) fn arrange(&mut self, sample: &TopSample, history: &TopHistory) {
        let wanted = self.filter.to_lowercase();
        let all = sample.services.iter().enumerate();
        self.order = all
            .filter(|(_, service)| is_wanted(service, &wanted))
            .map(|(at, _)| at)
            .collect();
        let services = &sample.services;
        let (sort, is_reversed) = (self.sort, self.is_reversed);
        self.order.sort_by(|one, other| {
            let order = sort.compare(&services[*one], &services[*other], history);
            if is_reversed { order.reverse() } else { order }
        });
        let selected = self.selected.as_deref();
        self.scroll.at = selected.and_then(|title| self.order.iter().position(|at| *services[*at].title == *title));
        if self.scroll.at.is_none() {
            self.selected = None;
        }
    }

    /// Moves the selection by so many rows.
    pub(super) fn step(&mut self, by: isize, sample: &TopSample) {
        self.scroll.step(by, self.order.len());
        self.selected = self.at(self.scroll.at, sample).map(|service| service.title.clone());
    }

    /// Selects nothing, and goes to the first row.
    pub(super) fn deselect(&mut self) {
        self.selected = None;
        self.scroll = TopScroll::default();
    }

    /// Returns the selected service; the first one if none is selected.
    pub(super) fn chosen<'s>(&self, sample: &'s TopSample) -> Option<&'s ServiceLine> {
        self.at(Some(self.scroll.at.unwrap_or(0)), sample)
    }

    fn at<'s>(&self, at: Option<usize>, sample: &'s TopSample) -> Option<&'s ServiceLine> {
        sample.services.get(*self.order.get(at?)?)
    }
}

/// Returns whether a service contains a text in small letters: in its name, port, addresses, state or backends.
fn is_wanted(service: &ServiceLine, wanted: &str) -> bool {
    let contains = |text: &str| text.to_lowercase().contains(wanted);
    let mut backends = service.backends.iter();
    wanted.is_empty()
        || contains(&service.title)
        || contains(service.state.word())
        || backends.any(|backend| backend.backend.to_string().contains(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::sample_tests::{sample, service};
    use crate::view::condition::ServiceCondition;

    fn shown(list: &ServiceListing, sample: &TopSample) -> Vec<String> {
        let names = list.order.iter().map(|at| sample.services[*at].name.as_deref());
        names.map(|name| name.unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn services_are_sorted_and_filtered() {
        let mut first = service("web", 8000, 10.0);
        first.state = ServiceCondition::Down;
        let sample = sample([first, service("mail", 25, 30.0), service("Api", 8001, 20.0)]);
        let history = TopHistory::default();
        let mut list = ServiceListing::new(TopSort::Traffic, "");
        for (sort, order) in [
            (TopSort::Traffic, ["mail", "Api", "web"]),
            (TopSort::Packets, ["mail", "Api", "web"]),
            (TopSort::State, ["web", "mail", "Api"]),
            (TopSort::Port, ["mail", "web", "Api"]),
            (TopSort::Name, ["Api", "mail", "web"]),
        ] {
            list.sort = sort;
            list.arrange(&sample, &history);
            assert_eq!(shown(&list, &sample), order, "{sort:?}");
        }
        list.is_reversed = true;
        list.arrange(&sample, &history);
        assert_eq!(shown(&list, &sample), ["web", "mail", "Api"]);
        for (filter, names) in [
            ("api", vec!["Api"]),
            (":80", vec!["web", "Api"]),
            ("down", vec!["web"]),
            ("none", vec![]),
        ] {
            filter.clone_into(&mut list.filter);
            list.arrange(&sample, &history);
            assert_eq!(shown(&list, &sample), names, "{filter}");
        }
    }

    #[test]
    fn the_selected_service_stays_selected() {
        let history = TopHistory::default();
        let mut list = ServiceListing::new(TopSort::Traffic, "");
        let before = sample([service("a", 1, 30.0), service("b", 2, 20.0), service("c", 3, 10.0)]);
        list.arrange(&before, &history);
        assert_eq!(list.chosen(&before).unwrap().name.as_deref(), Some("a"));
        list.step(1, &before);
        list.step(1, &before);
        assert_eq!(list.selected.as_deref(), Some("b :2"));
        let after = sample([service("a", 1, 1.0), service("b", 2, 2.0), service("c", 3, 3.0)]);
        list.arrange(&after, &history);
        assert_eq!(list.chosen(&after).unwrap().name.as_deref(), Some("b"));
        // It is gone.
        let gone = sample([service("a", 1, 1.0)]);
        list.arrange(&gone, &history);
        assert_eq!((list.selected.as_deref(), list.scroll.at), (None, None));
    }

    #[test]
    fn the_selected_row_is_among_those_that_are_shown() {
        let mut scroll = TopScroll::default();
        for (by, count, at, top) in [
            (1, 100, 0, 0),
            (10, 100, 10, 1),
            (1000, 100, 99, 90),
            (-5, 100, 94, 90),
            (-1000, 100, 0, 0),
            (50, 100, 50, 41),
            (0, 20, 19, 10),
        ] {
            scroll.step(by, count);
            scroll.settle(count, 10);
            assert_eq!((scroll.at, scroll.top), (Some(at), top), "{by}");
        }
        scroll.settle(0, 10);
        assert_eq!(scroll, TopScroll::default());
    }

    #[test]
    fn every_sort_is_reached_by_turning() {
        let all = TopSort::value_variants();
        let mut sort = TopSort::Traffic;
        for expected in all.iter().skip(1).chain(all.first()) {
            sort = sort.turned(1);
            assert_eq!(sort, *expected);
            assert_eq!(sort.to_possible_value().unwrap().get_name(), sort.word());
        }
        assert_eq!(TopSort::Traffic.turned(-1), TopSort::Port);
    }
}
