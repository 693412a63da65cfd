//! The list of flows.

use super::canvas::{Canvas, Tone};
use super::grid::{Grid, GridColumn};
use super::values::{number, state_tone};
use crate::cli::amount::span;
use crate::cli::table::Cell;
use crate::cli::top::model::{FlowsPage, TopModel};
use crate::cli::top::query::{FlowLine, MOST_FLOWS};

const COLUMNS: &[GridColumn] = &[
    GridColumn::text("CLIENT", 21, 47, 0),
    GridColumn::text("SERVICE", 10, 24, 5),
    GridColumn::text("BACKEND", 20, 47, 3),
    GridColumn::text("SEEN AS", 21, 47, 4),
    GridColumn::text("STATE", 11, 11, 1),
    GridColumn::number("AGE", 6, 2),
    GridColumn::number("BYTES", 6, 0),
];

/// Draws the list from line `y` on, without the last line of the canvas.
pub(super) fn draw(canvas: &mut Canvas<'_>, y: u16, model: &TopModel, page: &FlowsPage) {
    canvas.line(y, &title(page), Tone::Title);
    let grid = Grid::new(COLUMNS, canvas.width());
    grid.titles(canvas, y + 1, None);
    let Some(flows) = &page.page else {
        let (text, tone) = match &page.error {
            Some(why) => (why.as_str(), Tone::Bad),
            None => ("the flows are being read", Tone::Faint),
        };
        canvas.line(y + 2, text, tone);
        return;
    };
    let mut line = y + 2;
    for (at, flow) in flows.flows.iter().enumerate().skip(page.scroll.top).take(model.rows()) {
        grid.row(canvas, line, &cells(flow));
        if page.scroll.at == Some(at) {
            canvas.paint(line, Tone::Selected);
        }
        line += 1;
    }
    if flows.flows.is_empty() {
        let text = if page.target.filter.is_empty() {
            "there are no flows"
        } else {
            "no flow contains the text of the filter (Esc clears it)"
        };
        canvas.line(line, text, Tone::Faint);
    }
}

fn title(page: &FlowsPage) -> String {
    let of = match (&page.target.service, page.target.backend) {
        (Some((title, _)), Some(backend)) => format!("{title}, {backend}"),
        (Some((title, _)), None) => title.to_string(),
        (None, Some(backend)) => backend.to_string(),
        (None, None) => "all services".to_owned(),
    };
    let Some(flows) = &page.page else {
        return format!("flows of {of}");
    };
    let count = match flows.matching {
        1 => "1 flow".to_owned(),
        count => format!("{count} flows"),
    };
    let shown = if usize::try_from(flows.matching).is_ok_and(|count| count <= MOST_FLOWS) {
        String::new()
    } else {
        format!(", the {MOST_FLOWS} with the most bytes are shown")
    };
    let old = if page.error.is_some() { " (old)" } else { "" };
    format!("{of}: {count}{shown}{old}")
}

/// Returns the cells of a flow.
pub(super) fn cells(flow: &FlowLine) -> Vec<(Cell, Tone)> {
    let plain = |text: String| (Cell::from(text), Tone::Plain);
    vec![
        plain(flow.client.to_string()),
        plain(flow.service.as_deref().unwrap_or("-").to_owned()),
        plain(flow.backend.to_string()),
        plain(flow.seen_as.to_string()),
        (flow.state.clone().into(), state_tone(&flow.state)),
        plain(flow.age.map_or_else(|| "-".to_owned(), span)),
        plain(number(flow.bytes())),
    ]
}
