//! The loop of the live view: events in, the screen out.

use std::io;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use super::inputs::{TopInput, TopInputs};
use super::list::TopSort;
use super::model::{TopEffect, TopModel};
use super::query::TopQuery;
use super::terminal::TopTerminal;
use crate::api::client::Client;
use crate::cli::failure::{Code, Failure, Outcome};

/// Longest time between two looks at the clock.
const TICK: Duration = Duration::from_secs(1);
/// Number of events that are taken before the screen is drawn.
const AT_ONCE: usize = 64;

/// Settings of the live view.
#[derive(Debug, Clone, Copy)]
pub(super) struct LiveSettings<'a> {
    /// Time over which rates are measured.
    pub(super) interval: Duration,
    /// Value that services are sorted by.
    pub(super) sort: TopSort,
    /// Text that the shown services contain.
    pub(super) filter: &'a str,
    /// Whether colours are wanted.
    pub(super) has_colors: bool,
}

/// Shows the live view until it is ended. Each of the clients is one for the same daemon.
pub(super) fn run(settings: LiveSettings<'_>, for_samples: Client, for_queries: Client) -> Outcome {
    let begin = Instant::now();
    let inputs = TopInputs::start(settings.interval, for_samples, for_queries)?;
    let mut terminal = TopTerminal::take(settings.has_colors).map_err(failed)?;
    let size = terminal.size().map_err(failed)?;
    let mut model = TopModel::new(settings.interval, settings.sort, settings.filter, size);
    loop {
        terminal.draw(&model).map_err(failed)?;
        let mut next = match inputs.events.recv_timeout(TICK) {
            Ok(input) => Some(input),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Err(died()),
        };
        model.tick(begin.elapsed());
        let mut taken = 0;
        while let Some(input) = next {
            let effect = match input {
                TopInput::Key(key) => model.key(key),
                TopInput::Paste(text) => model.paste(&text),
                TopInput::Resize(columns, lines) => {
                    model.resize((columns, lines));
                    None
                }
                TopInput::Sampled(sample) => model.sampled(sample),
                TopInput::Answered(answer) => model.answered(answer),
                TopInput::End(signal) => return Ok(Code::Signal(signal)),
                TopInput::Suspend => Some(TopEffect::Suspend),
                TopInput::Continued => Some(TopEffect::Redraw),
                TopInput::Unreadable(error) => return Err(failed(error)),
                TopInput::ThreadDied => return Err(died()),
            };
            if act(effect, &mut model, &mut terminal, &inputs)? {
                return Ok(Code::Success);
            }
            taken += 1;
            next = if taken < AT_ONCE {
                inputs.events.try_recv().ok()
            } else {
                None
            };
        }
    }
}

/// Carries out an effect. Returns whether the command ends.
fn act(
    effect: Option<TopEffect>,
    model: &mut TopModel,
    terminal: &mut TopTerminal,
    inputs: &TopInputs,
) -> Result<bool, Failure> {
    match effect {
        None => {}
        Some(TopEffect::Quit) => return Ok(true),
        Some(TopEffect::Redraw) => terminal.renew().map_err(failed)?,
        Some(TopEffect::Suspend) => {
            terminal.suspend().map_err(failed)?;
            // The size may have changed meanwhile.
            model.resize(terminal.size().map_err(failed)?);
        }
        Some(TopEffect::Query(query)) => {
            if let Err(query) = inputs.ask(query) {
                model.not_asked(&query);
            }
        }
    }
    Ok(false)
}

fn failed(source: io::Error) -> Failure {
    Failure::Io {
        what: "use the terminal",
        source,
    }
}

fn died() -> Failure {
    Failure::Refused("a thread of `tcpgw top` has crashed: this is a bug in tcpgw, please report it".into())
}

impl TopModel {
    /// Notes that a query was not sent, since too many wait.
    fn not_asked(&mut self, query: &TopQuery) {
        if let (TopQuery::Flows(_), Some(page)) = (query, &mut self.pages.flows) {
            page.is_asked = false;
        }
        self.notify(
            "the daemon has not answered earlier questions yet: nothing was asked".into(),
            true,
        );
    }
}
