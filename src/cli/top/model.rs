//! State of the live view: samples, keys and answers in, effects out. It knows no terminal, no socket and no clock: times are
//! given to it, counted from the start of the command.

use std::net::SocketAddr;
use std::time::Duration;

use super::history::TopHistory;
use super::list::{ServiceListing, TopScroll, TopSort};
use super::query::{FlowPage, FlowsTarget, TopAnswer, TopOrder, TopQuery, WhoTarget};
use super::sample::{ServiceLine, TopSample};

/// Least size of the terminal: columns and lines.
pub(super) const LEAST_SIZE: (u16, u16) = (40, 8);
/// Lines from which problems and plots get more than one.
pub(super) const TALL: u16 = 20;
/// Time for which a notice is shown.
const NOTICE: Duration = Duration::from_secs(10);

/// Time after two intervals from which values are called old.
const SLACK: Duration = Duration::from_secs(1);

/// Effect that the model wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TopEffect {
    /// Sends a query or order to the daemon.
    Query(TopQuery),
    /// Stops this process, as Ctrl-Z does.
    Suspend,
    /// Draws everything anew.
    Redraw,
    /// Ends the command.
    Quit,
}

/// Page that is shown, below which are the ones that it was opened from.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct TopPages {
    /// Open service.
    pub(super) service: Option<TopServicePage>,
    /// Open list of flows, above the service.
    pub(super) flows: Option<FlowsPage>,
}

/// Page of a service.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct TopServicePage {
    /// Title of the service.
    pub(super) title: Box<str>,
    /// Position in the list of backends.
    pub(super) scroll: TopScroll,
    /// Selected backend.
    pub(super) selected: Option<SocketAddr>,
}

/// List of flows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FlowsPage {
    /// Flows that are asked for.
    pub(super) target: FlowsTarget,
    /// The last answer.
    pub(super) page: Option<FlowPage>,
    /// Reason why there is no newer answer.
    pub(super) error: Option<String>,
    /// Whether an answer is awaited.
    pub(super) is_asked: bool,
    /// Position in the list.
    pub(super) scroll: TopScroll,
}

/// Layer above the page, which gets the keys.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TopLayer {
    /// List of keys.
    Help,
    /// Input of the filter; the text before it began.
    Filter(String),
    /// Input of a peer, and what is wrong with it.
    WhoInput {
        /// Text of the input.
        text: String,
        /// Reason why it was not accepted.
        error: Option<String>,
    },
    /// The client of a peer; `None`: the answer is awaited.
    Who(WhoTarget, Option<Result<FlowPage, String>>),
    /// Question before a change.
    Confirmation(TopOrder),
}

/// Message in the last line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopNotice {
    /// Text of the message.
    pub(super) text: String,
    /// Whether something failed.
    pub(super) is_error: bool,
    /// Time from which it is not shown any more.
    pub(super) until: Duration,
}

/// State of the connection to the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DaemonLink {
    /// There has been no answer yet.
    Waiting,
    /// The last query was answered at this time.
    Answers(Duration),
    /// The last query had no answer.
    Lost {
        /// Time of the last answer; `None`: there was none.
        last: Option<Duration>,
        /// Reason why there is no answer.
        why: String,
    },
}

/// State of the live view.
#[derive(Debug)]
pub(super) struct TopModel {
    /// Time between two samples.
    pub(super) interval: Duration,
    /// Time of the last event.
    pub(super) now: Duration,
    /// Size of the terminal: columns and lines.
    pub(super) size: (u16, u16),
    /// The last sample.
    pub(super) sample: Option<TopSample>,
    /// Values of earlier samples.
    pub(super) history: TopHistory,
    /// Connection to the daemon.
    pub(super) link: DaemonLink,
    /// List of services.
    pub(super) list: ServiceListing,
    /// Open pages.
    pub(super) pages: TopPages,
    /// Layer above the page.
    pub(super) layer: Option<TopLayer>,
    /// Message in the last line.
    pub(super) notice: Option<TopNotice>,
}

impl TopModel {
    /// Creates the state at the start, for a terminal of this size.
    pub(super) fn new(interval: Duration, sort: TopSort, filter: &str, size: (u16, u16)) -> Self {
        Self {
            interval,
            now: Duration::ZERO,
            size,
            sample: None,
            history: TopHistory::default(),
            link: DaemonLink::Waiting,
            list: ServiceListing::new(sort, filter),
            pages: TopPages::default(),
            layer: None,
            notice: None,
        }
    }

    /// Notes the time.
    pub(super) fn tick(&mut self, now: Duration) {
        self.now = self.now.max(now);
        if self.notice.as_ref().is_some_and(|notice| notice.until <= self.now) {
            self.notice = None;
        }
    }

    /// Notes another size of the terminal.
    pub(super) fn resize(&mut self, size: (u16, u16)) {
        self.size = size;
        self.settle();
    }

    /// Takes a sample, or the reason why there is none. Flows that are shown are then asked for again.
    pub(super) fn sampled(&mut self, sample: Result<TopSample, String>) -> Option<TopEffect> {
        match sample {
            Ok(sample) => {
                if matches!(self.link, DaemonLink::Lost { .. }) {
                    self.history.interrupt();
                }
                self.history.add(self.now, &sample);
                self.sample = Some(sample);
                self.link = DaemonLink::Answers(self.now);
                self.arrange();
                self.ask_for_flows()
            }
            Err(why) => {
                let last = match self.link {
                    DaemonLink::Answers(at) => Some(at),
                    DaemonLink::Lost { last, .. } => last,
                    DaemonLink::Waiting => None,
                };
                self.link = DaemonLink::Lost { last, why };
                None
            }
        }
    }

    /// Takes an answer. One that nobody waits for any more is dropped.
    pub(super) fn answered(&mut self, answer: TopAnswer) -> Option<TopEffect> {
        match answer {
            TopAnswer::Flows(target, result) => {
                let page = self.pages.flows.as_mut()?;
                page.is_asked = false;
                if page.target != target {
                    // The filter has changed meanwhile.
                    return self.ask_for_flows();
                }
                match result {
                    Ok(flows) => {
                        page.page = Some(flows);
                        page.error = None;
                    }
                    Err(why) => page.error = Some(why),
                }
                self.settle();
            }
            TopAnswer::Who(target, result) => {
                if let Some(TopLayer::Who(asked, answer)) = &mut self.layer
                    && *asked == target
                {
                    *answer = Some(result);
                }
            }
            TopAnswer::Order(Ok(done)) => self.notify(done, false),
            TopAnswer::Order(Err(why)) => self.notify(why, true),
        }
        None
    }

    /// Shows a message for some seconds.
    pub(super) fn notify(&mut self, text: String, is_error: bool) {
        let until = self.now + NOTICE;
        self.notice = Some(TopNotice { text, is_error, until });
    }

    /// Sorts and filters anew.
    pub(super) fn arrange(&mut self) {
        if let Some(sample) = &self.sample {
            self.list.arrange(sample, &self.history);
        }
        self.settle();
    }

    /// Returns the query for the flows that are shown, unless an answer to it is awaited.
    pub(super) fn ask_for_flows(&mut self) -> Option<TopEffect> {
        let page = self.pages.flows.as_mut()?;
        if page.is_asked {
            return None;
        }
        page.is_asked = true;
        Some(TopEffect::Query(TopQuery::Flows(page.target.clone())))
    }

    /// Returns the service of the open page, or of the list's selection; `None`: it is not there any more.
    pub(super) fn service(&self) -> Option<&ServiceLine> {
        let sample = self.sample.as_ref()?;
        match &self.pages.service {
            Some(page) => sample.service(&page.title),
            None => self.list.chosen(sample),
        }
    }

    /// Returns whether the values are those of the last answer of a daemon that does not answer now.
    pub(super) fn is_old(&self) -> bool {
        matches!(self.link, DaemonLink::Lost { .. })
    }

    /// Returns the age of the values, if the next ones are overdue.
    pub(super) fn overdue(&self) -> Option<Duration> {
        let DaemonLink::Answers(at) = self.link else {
            return None;
        };
        let age = self.now.saturating_sub(at);
        (age > self.interval * 2 + SLACK).then_some(age)
    }

    /// Returns the number of lines for problems.
    pub(super) fn problem_lines(&self) -> u16 {
        let problems = self.sample.as_ref().map_or(0, |sample| sample.problem_count);
        let most = if self.size.1 >= TALL { 3 } else { 1 };
        u16::try_from(problems).unwrap_or(most).min(most)
    }

    /// Returns the number of lines of the plot on a service's page.
    pub(super) fn plot_lines(&self) -> u16 {
        match self.size.1 {
            0..14 => 0,
            14..TALL => 3,
            _ => 5,
        }
    }

    /// Returns the number of rows of the list that is shown: the height without the first line, the titles and the last line,
    /// and without what else is on the page.
    pub(super) fn rows(&self) -> usize {
        let others = if self.pages.flows.is_some() {
            4
        } else if self.pages.service.is_some() {
            // The lines about the service, and the line above the plot.
            let plot = self.plot_lines();
            5 + plot + u16::from(plot > 0)
        } else {
            3 + self.problem_lines()
        };
        self.size.1.saturating_sub(others).max(1).into()
    }

    /// Moves the selection of the list that is shown.
    pub(super) fn step(&mut self, by: isize) {
        if let Some(page) = &mut self.pages.flows {
            let count = page.page.as_ref().map_or(0, |page| page.flows.len());
            page.scroll.step(by, count);
        } else if let Some(mut page) = self.pages.service.take() {
            let backends = self.sample.as_ref().and_then(|sample| sample.service(&page.title));
            let backends = backends.map_or(&[][..], |service| &service.backends);
            page.scroll.step(by, backends.len());
            page.selected = page.scroll.at.and_then(|at| backends.get(at)).map(|of| of.backend);
            self.pages.service = Some(page);
        } else if let Some(sample) = &self.sample {
            self.list.step(by, sample);
        }
        self.settle();
    }

    /// Selects nothing in the list that is shown, and goes to its first row. Returns whether something was selected.
    pub(super) fn deselect(&mut self) -> bool {
        let scroll = if let Some(page) = &mut self.pages.flows {
            &mut page.scroll
        } else if let Some(page) = &mut self.pages.service {
            page.selected = None;
            &mut page.scroll
        } else {
            &mut self.list.scroll
        };
        let was_selected = scroll.at.is_some();
        *scroll = TopScroll::default();
        if self.pages == TopPages::default() {
            self.list.deselect();
        }
        was_selected
    }

    /// Brings the rows that are shown to the selection.
    pub(super) fn settle(&mut self) {
        let rows = self.rows();
        if let Some(page) = &mut self.pages.flows {
            let count = page.page.as_ref().map_or(0, |page| page.flows.len());
            page.scroll.settle(count, rows);
        } else if let Some(mut page) = self.pages.service.take() {
            let service = self.sample.as_ref().and_then(|sample| sample.service(&page.title));
            let backends = service.map_or(&[][..], |service| &service.backends);
            let selected = page.selected;
            page.scroll.at = selected.and_then(|of| backends.iter().position(|backend| backend.backend == of));
            page.selected = page.scroll.at.and(selected);
            page.scroll.settle(backends.len(), rows);
            self.pages.service = Some(page);
        } else {
            self.list.scroll.settle(self.list.order.len(), rows);
        }
    }
}
