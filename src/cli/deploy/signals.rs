//! SIGINT and SIGTERM, and what whoever sent them wants.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Failure;

/// What is to become of the deploy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Undo,
    GoOn,
    Wait,
}

enum Said {
    Signal(u8),
    Line(String),
}

/// Listens from its own thread, so that whoever waits for the daemon hears of it.
pub(super) struct Signals {
    said: Receiver<Said>,
    sender: Mutex<Sender<Said>>,
}

impl Signals {
    pub(super) fn listen() -> Result<Self, Failure> {
        let failed = |source| Failure::Io {
            what: "listen to signals",
            source,
        };
        let (sender, said) = channel();
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
                if signals.send(Said::Signal(number)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("signals".into());
        thread.spawn(move || runtime.block_on(listen)).map_err(failed)?;
        Ok(Self {
            said,
            sender: Mutex::new(sender),
        })
    }

    /// The signal that came, if one did.
    pub(super) fn caught(&self) -> Option<u8> {
        self.said.try_iter().find_map(|said| match said {
            Said::Signal(number) => Some(number),
            Said::Line(_) => None,
        })
    }

    /// Asks, where somebody can answer. One more signal is an answer, too: go on.
    pub(super) fn ask(&self) -> Option<Choice> {
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return None;
        }
        loop {
            let mut stderr = io::stderr().lock();
            let asked = write!(stderr, "\nundo, go on without me, or keep waiting? [u/g/k] ");
            asked.and_then(|()| stderr.flush()).ok()?;
            drop(stderr);
            let sender = self.sender.lock().ok()?.clone();
            let reader = thread::Builder::new().name("answer".into());
            let spawned = reader.spawn(move || {
                let mut line = String::new();
                // At its end nobody can answer any more.
                let read = io::stdin().lock().read_line(&mut line).unwrap_or(0);
                let line = if read == 0 { "g".into() } else { line };
                let _ = sender.send(Said::Line(line));
            });
            spawned.ok()?;
            match self.said.recv().ok()? {
                Said::Signal(_) => return Some(Choice::GoOn),
                Said::Line(line) => match line.trim() {
                    "u" | "undo" => return Some(Choice::Undo),
                    "g" => return Some(Choice::GoOn),
                    "k" => return Some(Choice::Wait),
                    _ => {}
                },
            }
        }
    }
}
