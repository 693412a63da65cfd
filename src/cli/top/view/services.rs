//! The list of services.

use super::canvas::{Canvas, Tone};
use super::grid::{Grid, GridColumn};
use super::values::{drop_rate, name_cell, number, part, rate, state_tone, tone_of_part};
use crate::cli::table::Cell;
use crate::cli::top::history::POINTS;
use crate::cli::top::list::TopSort;
use crate::cli::top::model::TopModel;
use crate::cli::top::sample::{ServiceLine, TopSample};

#[expect(clippy::cast_possible_truncation, reason = "it is a small constant")]
const COLUMNS: &[GridColumn] = &[
    GridColumn::text("SERVICE", 14, 40, 0),
    GridColumn::text("STATE", 9, 9, 0),
    GridColumn::number("UP", 5, 5),
    GridColumn::number("FLOWS", 6, 3),
    GridColumn::number("CONN/S", 6, 4),
    GridColumn::number("PKT/S", 6, 2),
    GridColumn::number("B/S", 6, 0),
    GridColumn::number("DROP/S", 6, 6),
    GridColumn::number("LIMIT", 6, 1),
    GridColumn::text("HISTORY", 8, POINTS as u16, 1),
];
/// Place of the column of sparklines.
const HISTORY: usize = 9;

/// Draws the list from line `y` on, without the last line of the canvas.
pub(super) fn draw(canvas: &mut Canvas<'_>, y: u16, model: &TopModel, sample: &TopSample) {
    let grid = Grid::new(COLUMNS, canvas.width());
    grid.titles(canvas, y, sorted_column(model.list.sort));
    let order = model.list.order.iter().enumerate().skip(model.list.scroll.top);
    let mut line = y + 1;
    for (place, at) in order.take(model.rows()) {
        let Some(service) = sample.services.get(*at) else {
            continue;
        };
        grid.row(canvas, line, &cells(model, service));
        if let Some(place) = grid.place(HISTORY)
            && let Some(history) = model.history.service(&service.title)
        {
            let fractions = history.fractions(place.width.into());
            canvas.bars((place.x, line), place.width, 1, &fractions);
        }
        if model.list.scroll.at == Some(place) {
            canvas.paint(line, Tone::Selected);
        }
        line += 1;
    }
    if model.list.order.is_empty() {
        let text = if sample.services.is_empty() {
            "there are no services"
        } else {
            "no service contains the text of the filter (Esc clears it)"
        };
        canvas.line(line, text, Tone::Faint);
    }
}

/// Returns the column of what the list is sorted by.
fn sorted_column(sort: TopSort) -> Option<usize> {
    Some(match sort {
        TopSort::Traffic => 6,
        TopSort::Packets => 5,
        TopSort::Connections => 4,
        TopSort::Flows => 3,
        TopSort::Limit => 8,
        TopSort::Dropped => 7,
        TopSort::State => 1,
        TopSort::Name => 0,
        TopSort::Port => return None,
    })
}

fn cells(model: &TopModel, service: &ServiceLine) -> Vec<(Cell, Tone)> {
    let load = &service.load;
    let plain = |text: String| (Cell::from(text), Tone::Plain);
    let drops = drop_rate(load);
    let drop_tone = if load.drop_rate.is_some_and(|rate| rate > 0.0) {
        Tone::Warning
    } else {
        Tone::Plain
    };
    let limit = match (service.limit, load.of_limit) {
        (None, _) => "none".to_owned(),
        (Some(_), of_limit) => part(of_limit),
    };
    vec![
        (name_cell(service), Tone::Plain),
        (service.state.word().into(), state_tone(service.state.word())),
        plain(format!("{}/{}", service.up, service.active)),
        plain(number(Some(load.flows))),
        plain(rate(model.history.connection_rate(&service.title))),
        plain(rate(load.packets())),
        plain(rate(load.bytes())),
        (drops.into(), drop_tone),
        (limit.into(), tone_of_part(load.of_limit)),
    ]
}
