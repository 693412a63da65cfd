//! Drawing of the live view: the model in, cells of the terminal out.

mod canvas;
mod flows;
mod grid;
mod layers;
mod service;
mod services;
#[cfg(test)]
mod tests;
mod values;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use self::canvas::{Canvas, Tone};
use super::model::{DaemonLink, LEAST_SIZE, TopLayer, TopModel};
use super::sample::TopSample;
use crate::cli::amount::span;
use tcpgw_core::words::count;

/// Draws the whole screen.
pub(super) fn draw(buffer: &mut Buffer, area: Rect, has_colors: bool, model: &TopModel) {
    let mut canvas = Canvas::new(buffer, area, has_colors);
    let (columns, lines) = LEAST_SIZE;
    if canvas.width() < columns || canvas.height() < lines {
        let (width, height) = (canvas.width(), canvas.height());
        canvas.line(0, "the terminal is too small", Tone::Bad);
        canvas.line(
            1,
            &format!("it has {width} x {height}, needed: {columns} x {lines}"),
            Tone::Plain,
        );
        canvas.line(2, "q: quit", Tone::Plain);
        return;
    }
    header(&mut canvas, model);
    match &model.sample {
        None => waiting(&mut canvas, model),
        Some(sample) => page(&mut canvas, model, sample),
    }
    footer(&mut canvas, model);
    layers::draw(buffer, area, has_colors, model);
}

fn page(canvas: &mut Canvas<'_>, model: &TopModel, sample: &TopSample) {
    if let Some(page) = &model.pages.flows {
        flows::draw(canvas, 1, model, page);
    } else if let Some(page) = &model.pages.service {
        service::draw(canvas, 1, model, (sample, page));
    } else {
        let lines = model.problem_lines();
        problems(canvas, lines, sample);
        services::draw(canvas, 1 + lines, model, sample);
    }
}

fn waiting(canvas: &mut Canvas<'_>, model: &TopModel) {
    match &model.link {
        DaemonLink::Lost { why, .. } => {
            canvas.line(2, why, Tone::Bad);
            canvas.line(3, "the daemon is asked again and again (q: quit)", Tone::Faint);
        }
        DaemonLink::Waiting | DaemonLink::Answers(_) => canvas.line(2, "waiting for the daemon", Tone::Faint),
    }
}

/// Draws the first line: whether all is well, or that the values are old.
fn header(canvas: &mut Canvas<'_>, model: &TopModel) {
    let (text, tone) = match (&model.link, &model.sample) {
        (DaemonLink::Lost { last, why }, _) => {
            let since = last.map_or_else(
                || "NO ANSWER".to_owned(),
                |last| {
                    format!(
                        "OLD VALUES, no answer for {}",
                        span(model.now.saturating_sub(last).as_secs())
                    )
                },
            );
            (format!("{since}: {why}"), Tone::Bad)
        }
        (_, None) => ("tcpgw top".to_owned(), Tone::Title),
        (_, Some(sample)) => {
            let word = if sample.ok { "ok" } else { "unhealthy" };
            let (age, tone) = match (model.overdue(), sample.ok) {
                (Some(age), _) => (format!("VALUES {} OLD, ", span(age.as_secs())), Tone::Warning),
                (None, true) => (String::new(), Tone::Good),
                (None, false) => (String::new(), Tone::Bad),
            };
            let flows = usize::try_from(sample.flows).unwrap_or(usize::MAX);
            let text = format!(
                "{age}{word}: {}, {}, {}",
                count(sample.services.len(), "service"),
                count(sample.backend_count(), "backend"),
                count(flows, "flow"),
            );
            (text, tone)
        }
    };
    canvas.line(0, &text, tone);
    let list = &model.list;
    if model.is_old() || model.pages.service.is_some() || model.pages.flows.is_some() {
        return;
    }
    let order = if list.is_reversed { ", reversed" } else { "" };
    let filter = if list.filter.is_empty() {
        String::new()
    } else {
        format!("{} shown, ", list.order.len())
    };
    let right = format!("{filter}by {}{order}", list.sort.word());
    let width = u16::try_from(right.len()).unwrap_or(u16::MAX);
    let taken = u16::try_from(text.chars().count()).unwrap_or(u16::MAX);
    if taken.saturating_add(width).saturating_add(2) <= canvas.width() {
        let x = canvas.width() - width;
        canvas.put((x, 0), width, &right, Tone::Faint);
    }
}

/// Draws the worst problems in so many lines.
fn problems(canvas: &mut Canvas<'_>, lines: u16, sample: &TopSample) {
    let more = sample.problem_count.saturating_sub(lines.into());
    for (y, problem) in (1..=lines).zip(&sample.problems) {
        let (label, tone) = if problem.is_error {
            ("error", Tone::Bad)
        } else {
            ("warning", Tone::Warning)
        };
        let rest = if y == lines && more > 0 {
            format!(" (and {more} more)")
        } else {
            String::new()
        };
        canvas.line(y, &format!("{label}{rest}: {}", problem.message), tone);
    }
}

/// Draws the last line: an input, a message, or the keys.
fn footer(canvas: &mut Canvas<'_>, model: &TopModel) {
    let y = canvas.height().saturating_sub(1);
    let filter = match &model.pages.flows {
        Some(page) => &page.target.filter,
        None => &model.list.filter,
    };
    match (&model.layer, &model.notice) {
        (Some(TopLayer::Filter(_)), _) => {
            canvas.line(y, &input("filter: ", filter, canvas.width()), Tone::Title);
        }
        (Some(TopLayer::WhoInput { text, error: None }), _) => {
            canvas.line(y, &input("who is IP:PORT: ", text, canvas.width()), Tone::Title);
        }
        (Some(TopLayer::WhoInput { text, error: Some(why) }), _) => {
            canvas.line(y, &format!("{text}: {why}"), Tone::Bad);
        }
        (_, Some(notice)) => {
            let tone = if notice.is_error { Tone::Bad } else { Tone::Good };
            canvas.line(y, &notice.text, tone);
        }
        _ => {
            let filter = if filter.is_empty() || (model.pages.service.is_some() && model.pages.flows.is_none()) {
                String::new()
            } else {
                format!("filter: {filter}  ")
            };
            canvas.line(y, &format!("{filter}{}", keys(model)), Tone::Faint);
        }
    }
}

/// Returns the text of an input with a cursor; its end, if it is too long.
fn input(label: &str, text: &str, width: u16) -> String {
    let text = tcpgw_core::escape::text(text);
    let room = usize::from(width).saturating_sub(label.len() + 1);
    let skipped = text.chars().count().saturating_sub(room);
    let end: String = text.chars().skip(skipped).collect();
    format!("{label}{end}_")
}

fn keys(model: &TopModel) -> &'static str {
    if model.pages.flows.is_some() {
        "?: help  Esc: back  /: filter  w: who  q: quit"
    } else if model.pages.service.is_some() {
        "?: help  Esc: back  f: flows  d: drain  u: undrain  p: pause  r: resume  q: quit"
    } else {
        "?: help  q: quit  Enter: open  s: sort  /: filter  f: flows  p: pause  w: who"
    }
}
