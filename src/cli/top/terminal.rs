//! The terminal: taken for the live view, and given back in whatever way the command ends.

use std::io::{self, Stdout, Write as _};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use ratatui::crossterm::queue;
use ratatui::crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};

use super::model::TopModel;
use super::view;

/// Whether the terminal is taken.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// A terminal that is taken as long as this value lives.
pub(super) struct TopTerminal {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    has_colors: bool,
}

impl TopTerminal {
    /// Takes the terminal: raw mode, and a screen of its own. A panic gives it back before it is reported.
    ///
    /// # Errors
    /// Fails when the terminal cannot be set up; it is given back then.
    pub(super) fn take(has_colors: bool) -> io::Result<Self> {
        static HOOKED: Once = Once::new();
        HOOKED.call_once(|| {
            let report = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                give_back();
                report(info);
            }));
        });
        take()?;
        // The value gives the terminal back if this fails.
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout())).inspect_err(|_| give_back())?;
        Ok(Self { terminal, has_colors })
    }

    /// Returns the size: columns and lines.
    ///
    /// # Errors
    /// Fails when the terminal does not tell its size.
    pub(super) fn size(&self) -> io::Result<(u16, u16)> {
        self.terminal.size().map(|size| (size.width, size.height))
    }

    /// Draws what has changed.
    ///
    /// # Errors
    /// Fails when the terminal cannot be written.
    pub(super) fn draw(&mut self, model: &TopModel) -> io::Result<()> {
        let has_colors = self.has_colors;
        self.terminal.draw(|frame| {
            let area = frame.area();
            view::draw(frame.buffer_mut(), area, has_colors, model);
        })?;
        Ok(())
    }

    /// Takes the terminal again, and draws everything anew with the next [`TopTerminal::draw`].
    ///
    /// # Errors
    /// Fails when the terminal cannot be set up.
    pub(super) fn renew(&mut self) -> io::Result<()> {
        // The shell may have set the mode meanwhile.
        terminal::disable_raw_mode()?;
        take()?;
        // `Terminal::clear` would ask the terminal for its cursor, whose answer is read as keys.
        self.terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        Ok(())
    }

    /// Gives the terminal back, stops this process, and takes the terminal again when the process goes on.
    ///
    /// # Errors
    /// Fails when the terminal cannot be set up again.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        // The default action of SIGTSTP, which this process catches.
        kill(Pid::this(), Signal::SIGSTOP)?;
        self.renew()
    }
}

impl Drop for TopTerminal {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> io::Result<()> {
    terminal::enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    let mut out = io::stdout();
    queue!(
        out,
        EnterAlternateScreen,
        Clear(ClearType::All),
        EnableBracketedPaste,
        Hide
    )
    .and_then(|()| out.flush())
    .inspect_err(|_| give_back())
}

/// Gives the terminal back if it is taken. A terminal that is gone needs nothing.
pub(super) fn give_back() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let mut out = io::stdout();
    let _ = queue!(out, DisableBracketedPaste, LeaveAlternateScreen, Show).and_then(|()| out.flush());
    let _ = terminal::disable_raw_mode();
}

/// Gives back the mode of the terminal only, which needs no output: for a terminal that takes none.
pub(super) fn give_back_mode() {
    let _ = terminal::disable_raw_mode();
}
