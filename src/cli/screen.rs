//! Where the commands write: nothing reaches a terminal but through here, since what they show is not all ours.

use std::io::{self, StderrLock, StdoutLock};

use tcpgw_core::escape::Screen;

/// Standard output, for text.
pub(super) fn stdout() -> Screen<StdoutLock<'static>> {
    Screen::text(io::stdout().lock())
}

/// Standard output, for JSON.
pub(super) fn json() -> Screen<StdoutLock<'static>> {
    Screen::json(io::stdout().lock())
}

/// Standard error.
pub(super) fn stderr() -> Screen<StderrLock<'static>> {
    Screen::text(io::stderr().lock())
}
