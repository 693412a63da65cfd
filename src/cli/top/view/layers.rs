//! Layers above the page: list of keys, question, the client of a peer.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::{Block, Clear, Widget};

use super::canvas::{Canvas, Tone};
use crate::cli::amount::span;
use crate::cli::table::wrap;
use crate::cli::top::confirmation::TopConfirmation;
use crate::cli::top::keys::KEYS;
use crate::cli::top::model::{TopLayer, TopModel};
use crate::cli::top::query::{FlowPage, WhoTarget};
use tcpgw_core::escape;

/// Widest box, in columns, with its border.
const WIDEST: u16 = 76;

/// Lines of a box: texts, and how they look.
type BoxLines = Vec<(String, Tone)>;

/// Draws the layer above the page, if it is a box.
pub(super) fn draw(buffer: &mut Buffer, area: Rect, has_colors: bool, model: &TopModel) {
    let width = area.width.min(WIDEST);
    let inner = usize::from(width.saturating_sub(4));
    let (title, lines) = match &model.layer {
        Some(TopLayer::Help) => (" Keys ", help(inner, area.height.saturating_sub(2))),
        Some(TopLayer::Confirmation(order)) => {
            let question = TopConfirmation::new(order, model.sample.as_ref());
            let mut lines = wrapped(&question.ask, inner, Tone::Title);
            lines.extend(wrapped(&question.then, inner, Tone::Plain));
            lines.push((String::new(), Tone::Plain));
            lines.push(("y: yes    n or Esc: no, change nothing".to_owned(), Tone::Warning));
            (" Question ", lines)
        }
        Some(TopLayer::Who(target, answer)) => (" Who ", who(target, answer.as_ref(), inner)),
        _ => return,
    };
    let height = u16::try_from(lines.len() + 2).unwrap_or(area.height).min(area.height);
    let place = Rect::new(
        area.x + (area.width - width) / 2,
        area.y + (area.height - height) / 2,
        width,
        height,
    );
    Clear.render(place, buffer);
    let block = Block::bordered().title(title);
    let inside = block.inner(place);
    block.render(place, buffer);
    let inside = Rect::new(inside.x + 1, inside.y, inside.width.saturating_sub(2), inside.height);
    let mut canvas = Canvas::new(buffer, inside, has_colors);
    // The last line says what the keys do.
    let last = lines.len().saturating_sub(1);
    let room = usize::from(canvas.height());
    let shown = lines.iter().enumerate().filter(|(at, _)| *at + 1 < room || *at == last);
    for (y, (_, (text, tone))) in (0..).zip(shown) {
        canvas.line(y, text, *tone);
    }
}

fn wrapped(text: &str, width: usize, tone: Tone) -> BoxLines {
    let text = wrap(&escape::text(text), 0, 0, width);
    text.lines().map(|line| (line.to_owned(), tone)).collect()
}

/// Returns the list of keys, in two columns where the box is too low for one.
fn help(width: usize, height: u16) -> BoxLines {
    let line = |(keys, what): &(&str, &str)| format!("{keys:<13}{what}");
    let mut lines: Vec<String> = KEYS.iter().map(line).collect();
    if lines.len() + 1 > height.into() {
        // The most important ones fit.
        lines = KEYS.iter().map(|(keys, what)| format!("{keys}: {what}")).collect();
        lines = wrap(&lines.join("; "), 0, 0, width)
            .lines()
            .map(str::to_owned)
            .collect();
    }
    let mut lines: BoxLines = lines.into_iter().map(|line| (line, Tone::Plain)).collect();
    lines.push(("any key closes this".to_owned(), Tone::Faint));
    lines
}

fn who(target: &WhoTarget, answer: Option<&Result<FlowPage, String>>, width: usize) -> BoxLines {
    let mut lines = match answer {
        None => vec![("the daemon is being asked".to_owned(), Tone::Faint)],
        Some(Err(why)) => wrapped(why, width, Tone::Bad),
        Some(Ok(page)) if page.flows.is_empty() => wrapped(
            &format!(
                "no backend sees a connection from {}: it may have ended, or it did not come through tcpgw",
                target.seen_as
            ),
            width,
            Tone::Warning,
        ),
        Some(Ok(page)) => page
            .flows
            .iter()
            .flat_map(|flow| {
                let age = flow.age.map_or_else(String::new, |age| format!(", for {}", span(age)));
                let text = format!(
                    "{} is the client {}, of service {}{age}",
                    format_args!("{} at {}", flow.seen_as, flow.backend),
                    flow.client,
                    flow.service.as_deref().unwrap_or("(unnamed)"),
                );
                wrapped(&text, width, Tone::Plain)
            })
            .collect(),
    };
    lines.push(("Esc closes this".to_owned(), Tone::Faint));
    lines
}
