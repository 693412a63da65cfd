//! Drawing of text in cells of the terminal. All text goes through here: control characters are spelled out.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use crate::cli::table::{Cell, OmittedPart};

/// Characters of a sparkline, from an eighth of a line to a whole one.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Meaning of a text, which decides its colour. Without colours, attributes say as much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// Ordinary text.
    Plain,
    /// Less important text.
    Faint,
    /// Titles of columns and pages.
    Title,
    /// Everything is in order.
    Good,
    /// Something deserves attention.
    Warning,
    /// Something is wrong.
    Bad,
    /// Line of the screen that is set apart: the selected row.
    Selected,
}

/// Area to draw in.
#[derive(Debug)]
pub(super) struct Canvas<'b> {
    buffer: &'b mut Buffer,
    area: Rect,
    has_colors: bool,
}

impl<'b> Canvas<'b> {
    /// Creates a canvas for an area of the buffer.
    pub(super) fn new(buffer: &'b mut Buffer, area: Rect, has_colors: bool) -> Self {
        let area = area.intersection(*buffer.area());
        Self {
            buffer,
            area,
            has_colors,
        }
    }

    /// Returns the number of columns.
    pub(super) fn width(&self) -> u16 {
        self.area.width
    }

    /// Returns the number of lines.
    pub(super) fn height(&self) -> u16 {
        self.area.height
    }

    /// Writes a text, shortened at its end to this many columns.
    pub(super) fn put(&mut self, (x, y): (u16, u16), width: u16, text: &str, tone: Tone) {
        self.put_cell((x, y), width, &Cell::from(text), OmittedPart::End, tone);
    }

    /// Writes a cell of a table, shortened to this many columns.
    pub(super) fn put_cell(&mut self, (x, y): (u16, u16), width: u16, cell: &Cell, part: OmittedPart, tone: Tone) {
        let width = width.min(self.area.width.saturating_sub(x));
        if width == 0 || y >= self.area.height {
            return;
        }
        let text = cell.within(width.into(), part);
        let style = self.style(tone);
        self.buffer
            .set_stringn(self.area.x + x, self.area.y + y, text, width.into(), style);
    }

    /// Writes a text over a whole line.
    pub(super) fn line(&mut self, y: u16, text: &str, tone: Tone) {
        self.put((0, y), self.area.width, text, tone);
    }

    /// Gives a whole line this look.
    pub(super) fn paint(&mut self, y: u16, tone: Tone) {
        if y < self.area.height {
            let line = Rect::new(self.area.x, self.area.y + y, self.area.width, 1);
            let style = self.style(tone);
            self.buffer.set_style(line, style);
        }
    }

    /// Draws fractions as bars over so many lines upwards from line `y`, the last one at the right. More than 1 is drawn as 1
    /// and stands out; NaN is left out.
    pub(super) fn bars(&mut self, (x, y): (u16, u16), width: u16, lines: u16, fractions: &[f32]) {
        let skipped = fractions.len().saturating_sub(width.into());
        let shown = &fractions[skipped..];
        let begin = usize::from(width) - shown.len();
        for (at, fraction) in (begin..).zip(shown) {
            if !fraction.is_finite() {
                continue;
            }
            let eighths = f32::from(lines) * 8.0 * fraction.clamp(0.0, 1.0);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is between 0 and 8 for each line"
            )]
            let eighths = eighths.ceil() as u16;
            let tone = match fraction {
                fraction if *fraction > 1.0 => Tone::Bad,
                fraction if *fraction >= 0.8 => Tone::Warning,
                _ => Tone::Plain,
            };
            for line in 0..lines {
                let filled = eighths.saturating_sub(line * 8).min(8);
                let bar = usize::from(filled).checked_sub(1).and_then(|at| BARS.get(at));
                let (Some(bar), Some(y), Ok(at)) = (bar, y.checked_sub(line), u16::try_from(at)) else {
                    continue;
                };
                self.put((x + at, y), 1, bar.encode_utf8(&mut [0; 4]), tone);
            }
        }
    }

    fn style(&self, tone: Tone) -> Style {
        let style = Style::new();
        let colored = |color| if self.has_colors { style.fg(color) } else { style };
        match tone {
            Tone::Plain => style,
            Tone::Faint => style.add_modifier(Modifier::DIM),
            Tone::Title => style.add_modifier(Modifier::BOLD),
            Tone::Good => colored(Color::Green),
            Tone::Warning => colored(Color::Yellow).add_modifier(Modifier::BOLD),
            Tone::Bad => colored(Color::Red).add_modifier(Modifier::BOLD),
            Tone::Selected => style.add_modifier(Modifier::REVERSED),
        }
    }
}
