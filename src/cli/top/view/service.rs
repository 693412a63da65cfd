//! The page of a service: its traffic against the limit, and its backends.

use super::canvas::{Canvas, Tone};
use super::grid::{Grid, GridColumn};
use super::values::{drop_rate, number, part, per_second, rate, state_tone, tone_of_part};
use crate::cli::amount::{short, span};
use crate::cli::table::Cell;
use crate::cli::top::model::{TopModel, TopServicePage};
use crate::cli::top::sample::{BackendLine, ServiceLine, TopSample};
use tcpgw_core::words::count;

/// Columns before the plot.
const MARGIN: u16 = 12;

const COLUMNS: &[GridColumn] = &[
    GridColumn::text("BACKEND", 16, 47, 0),
    GridColumn::text("STATE", 9, 9, 0),
    GridColumn::number("FLOWS", 6, 0),
    GridColumn::number("PKT/S", 6, 2),
    GridColumn::number("B/S", 6, 1),
    GridColumn::number("DROP/S", 6, 3),
    GridColumn::number("LIMIT", 6, 2),
    GridColumn::text("LAST PROBE", 12, 24, 4),
];

/// Draws the page from line `y` on, without the last line of the canvas.
pub(super) fn draw(canvas: &mut Canvas<'_>, y: u16, model: &TopModel, (sample, page): (&TopSample, &TopServicePage)) {
    let Some(service) = sample.service(&page.title) else {
        canvas.line(y, &page.title, Tone::Title);
        canvas.line(y + 1, "this service is not there any more (Esc goes back)", Tone::Bad);
        return;
    };
    let title = format!(
        "{}: {}, {} of {} up",
        service.title,
        service.state,
        service.up,
        count(service.active, "backend")
    );
    canvas.line(y, &title, state_tone(service.state.word()));
    canvas.line(y + 1, &traffic(model, service), Tone::Plain);
    let plot = model.plot_lines();
    let mut line = y + 2;
    if plot > 0 {
        draw_plot(canvas, line, plot, model, service);
        line += plot + 1;
    }
    let grid = Grid::new(COLUMNS, canvas.width());
    grid.titles(canvas, line, None);
    let backends = service.backends.iter().enumerate().skip(page.scroll.top);
    for (at, backend) in backends.take(model.rows()) {
        line += 1;
        grid.row(canvas, line, &cells(backend));
        if page.scroll.at == Some(at) {
            canvas.paint(line, Tone::Selected);
        }
    }
    if service.backends.is_empty() {
        canvas.line(line + 1, "it has no backends", Tone::Faint);
    }
}

/// Returns the line of the service's values.
fn traffic(model: &TopModel, service: &ServiceLine) -> String {
    let load = &service.load;
    format!(
        "{}, {}, {}, {}, {} dropped",
        count(load.flows, "flow"),
        per_second(model.history.connection_rate(&service.title), "connection"),
        per_second(load.packets(), "packet"),
        per_second(load.bytes(), "byte"),
        number(Some(load.dropped)),
    )
}

/// Draws the used part of the limit, or bytes per second where there is none, over the last samples.
fn draw_plot(canvas: &mut Canvas<'_>, y: u16, lines: u16, model: &TopModel, service: &ServiceLine) {
    let history = model.history.service(&service.title);
    let (label, top) = match (service.limit, history) {
        (Some(limit), _) => (
            format!(
                "used part of the limit of {} packets/s and {} bytes/s of each backend{}",
                short(limit.packets_per_second.into()),
                number(Some(limit.bytes_per_second)),
                if limit.shared { ", both directions together" } else { "" }
            ),
            "limit".to_owned(),
        ),
        (None, Some(history)) => (
            "bytes/s; there is no limit".to_owned(),
            format!("{} B/s", short(history.largest().into())),
        ),
        (None, None) => ("bytes/s; there is no limit".to_owned(), String::new()),
    };
    canvas.line(y, &label, Tone::Faint);
    canvas.put((0, y + 1), MARGIN - 2, &format!("{top:>10}"), Tone::Faint);
    canvas.put((0, y + lines), MARGIN - 2, &format!("{:>10}", "0"), Tone::Faint);
    for line in 1..=lines {
        canvas.put((MARGIN - 1, y + line), 1, "│", Tone::Faint);
    }
    let width = canvas.width().saturating_sub(MARGIN);
    if let Some(history) = history {
        canvas.bars((MARGIN, y + lines), width, lines, &history.fractions(width.into()));
    }
}

fn cells(backend: &BackendLine) -> Vec<(Cell, Tone)> {
    let load = &backend.load;
    let plain = |text: String| (Cell::from(text), Tone::Plain);
    let probe = match (&backend.reason, backend.seconds_left) {
        (_, Some(left)) => format!("{} left", span(left)),
        (Some(reason), None) => reason.to_string(),
        (None, None) => String::new(),
    };
    vec![
        plain(backend.backend.to_string()),
        (backend.state.clone().into(), state_tone(&backend.state)),
        plain(number(Some(load.flows))),
        plain(rate(load.packets())),
        plain(rate(load.bytes())),
        plain(drop_rate(load)),
        (part(load.of_limit).into(), tone_of_part(load.of_limit)),
        plain(probe),
    ]
}
