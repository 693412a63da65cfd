//! Output of `tcpgw up`, by a thread of its own, so that only the app's processes wait for a terminal that is stopped.

use std::io::{self, Write as _};
use std::sync::mpsc::{Sender, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::event::UpEvent;
use crate::addon::id::names_service;
use crate::date::since_1970;
use crate::up::own_daemon::DaemonLog;
use crate::up::printer::LinePrinter;
use tcpgw_core::escape;
use tcpgw_kernel::ffi::system;

/// Lines that may wait to be printed.
const WAITING_LINES: usize = 256;
/// Maximum time at the end for printing the output of processes.
const FLUSH: Duration = Duration::from_secs(1);

/// Sender of lines to the printer.
#[derive(Clone)]
pub(super) struct Output(pub(super) SyncSender<(String, Vec<u8>)>);

impl Output {
    /// Prints a line of `tcpgw up` itself. Does not wait: the line is dropped if the queue is full or the printer has ended.
    pub(super) fn say(&self, name: &str, line: &str) {
        let _ = self.0.try_send((name.to_owned(), escape::text(line).into_bytes()));
    }
}

/// Returns the time of the day in the local time zone.
fn clock() -> String {
    let now = since_1970();
    let (hour, minute, second) = system::local_time(i64::try_from(now.as_secs()).unwrap_or_default());
    format!("{hour:02}:{minute:02}:{second:02}")
}

/// Prints lines by a thread of its own, until all that could say something have gone.
pub(super) fn print(printer: LinePrinter, events: Sender<UpEvent>) -> io::Result<(Output, JoinHandle<()>)> {
    let (lines, waiting) = sync_channel::<(String, Vec<u8>)>(WAITING_LINES);
    let work = move || {
        while let Ok((name, line)) = waiting.recv() {
            let line = printer.line(&clock(), &name, &line);
            let mut stdout = io::stdout().lock();
            if stdout.write_all(&line).and_then(|()| stdout.flush()).is_err() {
                let _ = events.send(UpEvent::Closed);
                // Processes go on until they are told to end, and must not wait for it.
                while waiting.recv().is_ok() {}
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("printer".into()).spawn(work)?;
    Ok((Output(lines), thread))
}

/// Passes on what a daemon logs, but for what it says of the service of an app: each app tells that of its own
/// ([`problems`](crate::up::problems)), and the daemon is that of all of them.
pub(super) fn pass_on(mut log: DaemonLog, output: Output) -> io::Result<()> {
    let work = move || {
        while let Some(line) = log.next_line() {
            if !names_service(&line) {
                output.say("system", &line);
            }
        }
    };
    std::thread::Builder::new().name("log".into()).spawn(work).map(drop)
}

/// Waits until the printer has ended, for [`FLUSH`] at most, since a terminal may be stopped.
pub(super) fn finish_printing(printer: &JoinHandle<()>) {
    let begin = Instant::now();
    while !printer.is_finished() && begin.elapsed() < FLUSH {
        std::thread::sleep(Duration::from_millis(5));
    }
}
