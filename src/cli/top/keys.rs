//! Keys: what each of them does to the live view.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::model::{FlowsPage, TopEffect, TopLayer, TopModel, TopServicePage};
use super::query::{FlowsTarget, OrderKind, TopOrder, TopQuery, WhoTarget};
use crate::view::endpoint;

/// Longest text of an input.
const LONGEST_INPUT: usize = 256;
/// Keys, and what they do, for the list of keys.
pub(super) const KEYS: &[(&str, &str)] = &[
    ("Up Down k j", "select the row before or after"),
    ("PgUp PgDn", "move by a page"),
    ("Home End", "select the first or last row"),
    ("Enter", "open the service, or the flows of a backend"),
    ("Esc", "deselect; go back; clear the filter"),
    ("s S", "sort by the next or previous column"),
    ("i", "turn the order round"),
    ("/", "filter by name, port, state or address"),
    ("f", "list flows, with their clients"),
    ("w", "find the client behind a peer's IP:PORT"),
    ("p", "pause the service (asks first)"),
    ("r", "resume the service (asks first)"),
    ("d", "drain the selected backend (asks first)"),
    ("u", "undrain the selected backend (asks first)"),
    ("Ctrl-L", "draw everything anew"),
    ("Ctrl-Z", "suspend"),
    ("q Ctrl-C", "quit"),
];

impl TopModel {
    /// Takes a key.
    pub(super) fn key(&mut self, key: KeyEvent) -> Option<TopEffect> {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Some(TopEffect::Quit),
                KeyCode::Char('z') => Some(TopEffect::Suspend),
                KeyCode::Char('l') => Some(TopEffect::Redraw),
                KeyCode::Char('u') => {
                    self.edit(String::clear);
                    self.filter_has_changed()
                }
                _ => None,
            };
        }
        match self.layer.take() {
            None => self.page_key(key.code),
            // Any key closes it.
            Some(TopLayer::Help) => None,
            Some(TopLayer::Who(..)) if matches!(key.code, KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q')) => None,
            Some(layer @ TopLayer::Who(..)) => {
                self.layer = Some(layer);
                None
            }
            Some(TopLayer::Confirmation(order)) => self.confirmation_key(key.code, order),
            Some(layer) => self.input_key(key.code, layer),
        }
    }

    /// Takes text that was pasted. Only inputs take it.
    pub(super) fn paste(&mut self, text: &str) -> Option<TopEffect> {
        let line = text.trim().lines().next().unwrap_or_default();
        self.edit(|input| {
            for c in line.chars().filter(|c| !c.is_control()) {
                push(input, c);
            }
        });
        self.filter_has_changed()
    }

    /// Changes the text of the input, if there is one.
    fn edit(&mut self, change: impl FnOnce(&mut String)) {
        match &mut self.layer {
            Some(TopLayer::Filter(_)) => change(self.filter_mut()),
            Some(TopLayer::WhoInput { text, error }) => {
                change(text);
                *error = None;
            }
            _ => {}
        }
    }

    fn filter_mut(&mut self) -> &mut String {
        match &mut self.pages.flows {
            Some(page) => &mut page.target.filter,
            None => &mut self.list.filter,
        }
    }

    /// Applies the filter that was edited.
    fn filter_has_changed(&mut self) -> Option<TopEffect> {
        if !matches!(self.layer, Some(TopLayer::Filter(_))) {
            return None;
        }
        self.apply_filter()
    }

    fn apply_filter(&mut self) -> Option<TopEffect> {
        if self.pages.flows.is_some() {
            return self.ask_for_flows();
        }
        self.arrange();
        None
    }

    fn input_key(&mut self, code: KeyCode, layer: TopLayer) -> Option<TopEffect> {
        match (code, layer) {
            (KeyCode::Enter, TopLayer::WhoInput { text, .. }) => self.ask_who(text),
            (KeyCode::Esc, TopLayer::Filter(before)) => {
                *self.filter_mut() = before;
                self.apply_filter()
            }
            (KeyCode::Enter, TopLayer::Filter(_)) | (KeyCode::Esc, _) => None,
            (code, layer) => {
                self.layer = Some(layer);
                match code {
                    KeyCode::Backspace => self.edit(|input| {
                        input.pop();
                    }),
                    KeyCode::Char(c) => self.edit(|input| push(input, c)),
                    _ => {}
                }
                self.filter_has_changed()
            }
        }
    }

    fn ask_who(&mut self, text: String) -> Option<TopEffect> {
        match endpoint(text.trim()) {
            Ok(seen_as) => {
                let backend = self.pages.service.as_ref().and_then(|page| page.selected);
                // A backend sees only addresses of its own family.
                let backend = backend.filter(|backend| backend.is_ipv4() == seen_as.is_ipv4());
                let target = WhoTarget { seen_as, backend };
                self.layer = Some(TopLayer::Who(target, None));
                Some(TopEffect::Query(TopQuery::Who(target)))
            }
            Err(expected) => {
                let error = Some(expected.to_owned());
                self.layer = Some(TopLayer::WhoInput { text, error });
                None
            }
        }
    }

    /// Takes a key while a question is asked: only `y` says yes.
    fn confirmation_key(&mut self, code: KeyCode, order: TopOrder) -> Option<TopEffect> {
        match code {
            KeyCode::Char('y' | 'Y') => Some(TopEffect::Query(TopQuery::Order(order))),
            KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => {
                self.notify("nothing was changed".into(), false);
                None
            }
            _ => {
                self.layer = Some(TopLayer::Confirmation(order));
                None
            }
        }
    }

    fn page_key(&mut self, code: KeyCode) -> Option<TopEffect> {
        self.notice = None;
        let page = isize::try_from(self.rows()).unwrap_or(1);
        match code {
            KeyCode::Char('q') => return Some(TopEffect::Quit),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.layer = Some(TopLayer::Help),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-page),
            KeyCode::PageDown => self.step(page),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN + 1),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX),
            KeyCode::Enter => return self.open(),
            KeyCode::Esc | KeyCode::Backspace => return self.back(),
            KeyCode::Char('/') => self.begin_filter(),
            KeyCode::Char('f') => return self.open_flows(),
            KeyCode::Char('w') => {
                let (text, error) = (String::new(), None);
                self.layer = Some(TopLayer::WhoInput { text, error });
            }
            KeyCode::Char('s') => self.turn_sort(1),
            KeyCode::Char('S') => self.turn_sort(-1),
            KeyCode::Char('i') if self.is_list() => {
                self.list.is_reversed = !self.list.is_reversed;
                self.arrange();
            }
            KeyCode::Char('p') => self.ask_about_service(OrderKind::Pause),
            KeyCode::Char('r') => self.ask_about_service(OrderKind::Resume),
            KeyCode::Char('d') => self.ask_about_backend(OrderKind::Drain),
            KeyCode::Char('u') => self.ask_about_backend(OrderKind::Undrain),
            _ => {}
        }
        None
    }

    /// Returns whether the list of services is shown.
    fn is_list(&self) -> bool {
        self.pages.service.is_none() && self.pages.flows.is_none()
    }

    fn turn_sort(&mut self, places: isize) {
        if self.is_list() {
            self.list.sort = self.list.sort.turned(places);
            self.arrange();
        }
    }

    fn begin_filter(&mut self) {
        if self.pages.flows.is_some() || self.pages.service.is_none() {
            let before = self.filter_mut().clone();
            self.layer = Some(TopLayer::Filter(before));
        }
    }

    fn open(&mut self) -> Option<TopEffect> {
        if self.pages.flows.is_some() {
            return None;
        }
        if self.pages.service.is_some() {
            return self.open_flows();
        }
        let title = self.service()?.title.clone();
        self.pages.service = Some(TopServicePage {
            title,
            ..TopServicePage::default()
        });
        self.settle();
        None
    }

    /// Opens the flows of the selected backend, of the open service, of the selected service, or of all.
    fn open_flows(&mut self) -> Option<TopEffect> {
        if self.pages.flows.is_some() {
            return None;
        }
        let is_chosen = self.pages.service.is_some() || self.list.scroll.at.is_some();
        let service = self.service().filter(|_| is_chosen);
        let service = service.map(|service| (service.title.clone(), service.selector.clone()));
        self.pages.flows = Some(FlowsPage {
            target: FlowsTarget {
                service,
                backend: self.pages.service.as_ref().and_then(|page| page.selected),
                filter: String::new(),
            },
            page: None,
            error: None,
            is_asked: false,
            scroll: super::list::TopScroll::default(),
        });
        self.ask_for_flows()
    }

    /// Deselects, or clears the filter, or closes the page; in this order.
    fn back(&mut self) -> Option<TopEffect> {
        if self.deselect() {
            return None;
        }
        if self.pages.service.is_none() || self.pages.flows.is_some() {
            let filter = self.filter_mut();
            if !filter.is_empty() {
                filter.clear();
                return self.apply_filter();
            }
        }
        if self.pages.flows.take().is_none() {
            self.pages.service = None;
        }
        self.settle();
        None
    }

    fn ask_about_service(&mut self, kind: OrderKind) {
        if self.pages.flows.is_some() {
            return;
        }
        if self.is_list() && self.list.scroll.at.is_none() {
            self.notify("select a service first, with the arrow keys".into(), true);
            return;
        }
        let Some(service) = self.service() else { return };
        match &service.name {
            Some(name) => {
                let service = name.clone();
                self.layer = Some(TopLayer::Confirmation(TopOrder { service, kind }));
            }
            None => self.notify(
                "the name of this service is not known, so that no order can name it".into(),
                true,
            ),
        }
    }

    fn ask_about_backend(&mut self, kind: fn(std::net::SocketAddr) -> OrderKind) {
        if self.pages.flows.is_some() {
            return;
        }
        let selected = self.pages.service.as_ref().and_then(|page| page.selected);
        match selected {
            Some(backend) => self.ask_about_service(kind(backend)),
            None if self.is_list() => {
                self.notify("open a service first (Enter), then select a backend of it".into(), true);
            }
            None => self.notify("select a backend first, with the arrow keys".into(), true),
        }
    }
}

/// Adds a character, unless the text is as long as an input may be.
fn push(text: &mut String, c: char) {
    if text.len() + c.len_utf8() <= LONGEST_INPUT {
        text.push(c);
    }
}
