//! Events of the live view: keys, signals, samples and answers, each from a thread of its own.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::query::{TopAnswer, TopQuery};
use super::sample::TopSample;
use super::{source, terminal};
use crate::api::client::Client;
use crate::cli::failure::Failure;

/// Number of inputs that may wait.
const WAITING: usize = 64;
/// Number of queries that may wait.
const QUERIES: usize = 8;
/// Pause before a daemon that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest pause between two samples, besides the interval.
const MOST_PAUSE: Duration = Duration::from_secs(60);
/// Pause after a sample as a multiple of the time that it took besides its interval: the daemon is not kept busy with samples
/// for more than a quarter of the time.
const TIMES: u32 = 3;
/// Time to end after a signal. A terminal that takes no output keeps the command from ending in good order.
const ENDING: Duration = Duration::from_secs(2);

/// Event of the live view.
#[derive(Debug)]
pub(super) enum TopInput {
    /// A key was pressed.
    Key(KeyEvent),
    /// Text was pasted.
    Paste(String),
    /// The terminal has another size: columns and lines.
    Resize(u16, u16),
    /// A sample, or the reason why there is none.
    Sampled(Result<TopSample, String>),
    /// An answer to a query.
    Answered(TopAnswer),
    /// A signal that ends the command.
    End(u8),
    /// SIGTSTP.
    Suspend,
    /// SIGCONT.
    Continued,
    /// The terminal cannot be read.
    Unreadable(io::Error),
    /// A thread has died.
    ThreadDied,
}

/// Receiver of events, and sender of queries.
#[derive(Debug)]
pub(super) struct TopInputs {
    pub(super) events: Receiver<TopInput>,
    queries: SyncSender<TopQuery>,
}

impl TopInputs {
    /// Starts the threads. The clients are those of samples and of queries: orders do not wait for a sample.
    pub(super) fn start(interval: Duration, for_samples: Client, for_queries: Client) -> Result<Self, Failure> {
        let (sender, events) = sync_channel(WAITING);
        let (queries, asked) = sync_channel::<TopQuery>(QUERIES);
        listen_to_signals(sender.clone())?;
        let watched = ThreadWatch(sender.clone());
        spawn("samples", move || take_samples(&for_samples, interval, &watched.0))?;
        let watched = ThreadWatch(sender.clone());
        spawn("queries", move || answer_queries(&for_queries, asked, &watched.0))?;
        let watched = ThreadWatch(sender);
        spawn("keys", move || read_keys(&watched.0))?;
        Ok(Self { events, queries })
    }

    /// Sends a query, unless too many wait.
    pub(super) fn ask(&self, query: TopQuery) -> Result<(), TopQuery> {
        self.queries.try_send(query).map_err(|error| match error {
            TrySendError::Full(query) | TrySendError::Disconnected(query) => query,
        })
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let spawned = thread::Builder::new().name(name.into()).spawn(work);
    spawned.map(drop).map_err(|source| Failure::Io {
        what: "start a thread",
        source,
    })
}

fn answer_queries(daemon: &Client, queries: Receiver<TopQuery>, sender: &SyncSender<TopInput>) {
    for query in queries {
        let answer = source::answer(daemon, query);
        if sender.send(TopInput::Answered(answer)).is_err() {
            return;
        }
    }
}

/// Reports a panic of its thread.
struct ThreadWatch(SyncSender<TopInput>);

impl Drop for ThreadWatch {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.try_send(TopInput::ThreadDied);
        }
    }
}

/// Takes samples without end. The first one has no rates, so that there is something to show at once.
fn take_samples(daemon: &Client, interval: Duration, sender: &SyncSender<TopInput>) {
    let mut over = Duration::ZERO;
    loop {
        let begin = Instant::now();
        let sample = source::sample(daemon, over).map_err(|error| error.to_string());
        let pause = match &sample {
            Ok(_) => pause_after(begin.elapsed(), over),
            Err(_) => AGAIN,
        };
        over = if sample.is_ok() { interval } else { Duration::ZERO };
        if sender.send(TopInput::Sampled(sample)).is_err() {
            return;
        }
        thread::sleep(pause);
    }
}

/// Returns the pause after a sample that took this time, its interval included.
fn pause_after(took: Duration, interval: Duration) -> Duration {
    (took.saturating_sub(interval) * TIMES).min(MOST_PAUSE)
}

fn read_keys(sender: &SyncSender<TopInput>) {
    loop {
        let input = match event::read() {
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => TopInput::Key(key),
            Ok(Event::Paste(text)) => TopInput::Paste(text),
            Ok(Event::Resize(columns, lines)) => TopInput::Resize(columns, lines),
            Ok(_) => continue,
            Err(error) => TopInput::Unreadable(error),
        };
        let is_end = matches!(input, TopInput::Unreadable(_));
        if sender.send(input).is_err() || is_end {
            return;
        }
    }
}

/// Starts the thread that receives signals. If the command has not ended a while after one that ends it, the thread ends it.
pub(super) fn listen_to_signals(sender: SyncSender<TopInput>) -> Result<(), Failure> {
    let failed = |source| Failure::Io {
        what: "listen to signals",
        source,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed)?;
    let listener = |kind| -> Result<Signal, Failure> {
        let _inside = runtime.enter();
        signal(kind).map_err(failed)
    };
    let mut interrupt = listener(SignalKind::interrupt())?;
    let mut terminate = listener(SignalKind::terminate())?;
    let mut hangup = listener(SignalKind::hangup())?;
    let mut quit = listener(SignalKind::quit())?;
    let mut stop = listener(SignalKind::from_raw(nix::libc::SIGTSTP))?;
    let mut go_on = listener(SignalKind::from_raw(nix::libc::SIGCONT))?;
    let listen = async move {
        loop {
            let input = tokio::select! {
                Some(()) = interrupt.recv() => TopInput::End(2),
                Some(()) = terminate.recv() => TopInput::End(15),
                Some(()) = hangup.recv() => TopInput::End(1),
                Some(()) = quit.recv() => TopInput::End(3),
                Some(()) = stop.recv() => TopInput::Suspend,
                Some(()) = go_on.recv() => TopInput::Continued,
                else => return,
            };
            let end = if let TopInput::End(number) = input {
                Some(number)
            } else {
                None
            };
            // The queue may be full if the terminal takes no output.
            let _ = sender.try_send(input);
            if let Some(number) = end {
                tokio::time::sleep(ENDING).await;
                terminal::give_back_mode();
                std::process::exit(128 + i32::from(number));
            }
        }
    };
    let spawned = thread::Builder::new()
        .name("signals".into())
        .spawn(move || runtime.block_on(listen));
    spawned.map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_is_slow_to_look_at_is_looked_at_less_often() {
        let seconds = Duration::from_secs;
        for (took, interval, pause) in [(2, 2, 0), (3, 2, 3), (12, 2, 30), (100, 2, 60), (1, 2, 0)] {
            assert_eq!(pause_after(seconds(took), seconds(interval)), seconds(pause));
        }
    }
}
