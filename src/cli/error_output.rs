//! Output of the error by which a command fails. A daemon waits for a reader of it for a limited time.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::failure::Failure;
use super::global::{Global, OutputFormat};
use super::screen;

/// Maximum time for the daemon's last lines when it ends.
pub(super) const LAST_LINES: Duration = Duration::from_secs(1);

/// Prints the error by which a command fails. `is_daemon`: waits [`LAST_LINES`] at most for it to be written.
pub(super) fn report(global: &Global, failure: &Failure, is_daemon: bool) {
    let json = match failure {
        Failure::Invalid { file, problems } if global.output == OutputFormat::Json => {
            let json = serde_json::json!({ "file": file, "errors": problems });
            Some(format!("{json:#}\n"))
        }
        _ => None,
    };
    let label = if global.colors(&io::stderr()) {
        "\u{1b}[1;31merror:\u{1b}[0m"
    } else {
        "error:"
    };
    let mut lines = String::new();
    for line in failure.to_string().lines() {
        lines.extend([label, " ", line, "\n"]);
    }
    let write = move || {
        if let Some(json) = json {
            let _ = super::print::print_on(screen::json(), &json);
        }
        let _ = super::print::print_on(screen::stderr(), &lines);
    };
    if is_daemon {
        within(LAST_LINES, write);
    } else {
        write();
    }
}

/// Runs `write` on a thread of its own, and waits for it this long at most: it may hang until the process ends.
pub(super) fn within(time: Duration, write: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let started = thread::Builder::new().spawn(move || {
        write();
        // The receiver may have stopped waiting.
        let _ = done.send(());
    });
    if started.is_ok() {
        let _ = is_done.recv_timeout(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_not_waited_for() {
        let (held, hangs) = mpsc::channel::<()>();
        within(Duration::from_millis(10), move || assert!(hangs.recv().is_err()));
        let (done, is_done) = mpsc::channel();
        within(Duration::from_secs(60), move || done.send(()).unwrap());
        assert_eq!(is_done.try_recv(), Ok(()), "what ends is waited for");
        drop(held);
    }
}
