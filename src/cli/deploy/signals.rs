//! Handling of SIGINT and SIGTERM during a deploy, with a question to the user.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use crate::cli::failure::Failure;
use crate::cli::screen;
use crate::locked::locked;

/// Time after a signal for which the answer to an order is still awaited.
const MOMENT: Duration = Duration::from_secs(1);

/// Decision about the deploy when the command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Undo,
    GoOn,
    Wait,
}

enum SignalInput {
    Signal(u8),
    Line(String),
}

/// Receives signals in a thread of its own, so that they reach a thread that waits for the daemon.
pub(super) struct DeploySignals {
    inputs: Mutex<UnboundedReceiver<SignalInput>>,
    held: Mutex<Option<u8>>,
    sender: UnboundedSender<SignalInput>,
}

impl DeploySignals {
    pub(super) fn listen() -> Result<Self, Failure> {
        let failed = |source| Failure::Io {
            what: "listen to signals",
            source,
        };
        let (sender, inputs) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::interrupt()).map_err(failed)?,
                signal(SignalKind::terminate()).map_err(failed)?,
            )
        };
        let signals = sender.clone();
        let listen = async move {
            loop {
                let number = tokio::select! {
                    Some(()) = interrupt.recv() => 2,
                    Some(()) = terminate.recv() => 15,
                    else => return,
                };
                if signals.send(SignalInput::Signal(number)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("signals".into());
        thread.spawn(move || runtime.block_on(listen)).map_err(failed)?;
        Ok(Self {
            inputs: Mutex::new(inputs),
            held: Mutex::new(None),
            sender,
        })
    }

    /// Returns the signal that came, if any.
    pub(super) fn caught(&self) -> Option<u8> {
        let held = locked(&self.held).take();
        if held.is_some() {
            return held;
        }
        let mut inputs = locked(&self.inputs);
        loop {
            if let SignalInput::Signal(number) = inputs.try_recv().ok()? {
                return Some(number);
            }
        }
    }

    /// Returns the first signal, [`MOMENT`] after it or at a second one, so that an answer that is under way can still arrive.
    /// [`Self::caught`] then returns the signal.
    pub(super) async fn insisted(&self) -> u8 {
        let first = self.next().await;
        *locked(&self.held) = Some(first);
        let _ = timeout(MOMENT, self.next()).await;
        first
    }

    #[expect(clippy::await_holding_lock, reason = "only one thread ever looks at what was said")]
    async fn next(&self) -> u8 {
        let mut inputs = locked(&self.inputs);
        loop {
            match inputs.recv().await {
                Some(SignalInput::Signal(number)) => return number,
                Some(SignalInput::Line(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Asks the user, if standard input and standard error are terminals. Another signal counts as the answer to go on.
    pub(super) fn ask(&self) -> Option<Choice> {
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return None;
        }
        loop {
            let mut stderr = screen::terminal();
            let written = write!(stderr, "\nundo the deploy, leave it running, or keep waiting? [u/l/k] ");
            written.and_then(|()| stderr.flush()).ok()?;
            drop(stderr);
            let sender = self.sender.clone();
            let reader = thread::Builder::new().name("answer".into());
            let spawned = reader.spawn(move || {
                let mut line = String::new();
                // The end of the input means that no answer will come.
                let read = io::stdin().lock().read_line(&mut line).unwrap_or(0);
                let line = if read == 0 { "leave".into() } else { line };
                let _ = sender.send(SignalInput::Line(line));
            });
            spawned.ok()?;
            let inputs = locked(&self.inputs).blocking_recv();
            match inputs? {
                SignalInput::Signal(_) => return Some(Choice::GoOn),
                SignalInput::Line(line) => match line.trim() {
                    "u" | "undo" => return Some(Choice::Undo),
                    "l" | "leave" => return Some(Choice::GoOn),
                    "k" | "keep" => return Some(Choice::Wait),
                    _ => {}
                },
            }
        }
    }
}
