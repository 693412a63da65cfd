//! Columns of a list: those that fit, and their places. Their widths do not follow the values, so that nothing moves while
//! values change.

use super::canvas::{Canvas, Tone};
use crate::cli::table::{Cell, OmittedPart};

/// Column of a list.
#[derive(Debug, Clone, Copy)]
pub(super) struct GridColumn {
    title: &'static str,
    width: u16,
    /// Width up to which the column takes what is left.
    most: u16,
    is_right: bool,
    /// Order in which columns are left out on narrow terminals: the highest first; 0: never.
    rank: u8,
}

impl GridColumn {
    /// Returns a column of text, with its least and its largest width.
    pub(super) const fn text(title: &'static str, width: u16, most: u16, rank: u8) -> Self {
        Self {
            title,
            width,
            most,
            is_right: false,
            rank,
        }
    }

    /// Returns a column of numbers.
    pub(super) const fn number(title: &'static str, width: u16, rank: u8) -> Self {
        Self {
            title,
            width,
            most: width,
            is_right: true,
            rank,
        }
    }
}

/// Column that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GridPlace {
    /// Place among all columns.
    pub(super) at: usize,
    /// First column on the screen.
    pub(super) x: u16,
    /// Width in columns.
    pub(super) width: u16,
}

/// The columns that are shown.
#[derive(Debug)]
pub(super) struct Grid<'c> {
    columns: &'c [GridColumn],
    places: Vec<GridPlace>,
}

impl<'c> Grid<'c> {
    /// Chooses the columns for a width. Room that is left goes to the columns that can use it, from the left.
    pub(super) fn new(columns: &'c [GridColumn], width: u16) -> Self {
        let total = |rank: u8| -> u16 {
            let shown = columns.iter().filter(|column| column.rank <= rank);
            shown.map(|column| column.width + 1).sum::<u16>().saturating_sub(1)
        };
        let mut ranks: Vec<u8> = columns.iter().map(|column| column.rank).collect();
        ranks.sort_unstable();
        let rank = ranks
            .iter()
            .rev()
            .find(|rank| total(**rank) <= width)
            .copied()
            .unwrap_or(0);
        let mut left = width.saturating_sub(total(rank));
        let mut x = 0;
        let shown = columns.iter().enumerate().filter(|(_, column)| column.rank <= rank);
        let places = shown
            .map(|(at, column)| {
                let more = left.min(column.most - column.width);
                left -= more;
                let place = GridPlace {
                    at,
                    x,
                    width: column.width + more,
                };
                x += place.width + 1;
                place
            })
            .collect();
        Self { columns, places }
    }

    /// Returns the place of the column at this place among all columns, if it is shown.
    pub(super) fn place(&self, at: usize) -> Option<GridPlace> {
        self.places.iter().copied().find(|place| place.at == at)
    }

    /// Writes the titles. The column that the list is sorted by is marked.
    pub(super) fn titles(&self, canvas: &mut Canvas<'_>, y: u16, sorted: Option<usize>) {
        for place in &self.places {
            let column = &self.columns[place.at];
            let title = if sorted == Some(place.at) {
                format!("{}*", column.title)
            } else {
                column.title.to_owned()
            };
            self.put(canvas, *place, y, &Cell::from(title), Tone::Title);
        }
    }

    /// Writes a row: a cell, and how it looks, for each column.
    pub(super) fn row(&self, canvas: &mut Canvas<'_>, y: u16, cells: &[(Cell, Tone)]) {
        for place in &self.places {
            if let Some((cell, tone)) = cells.get(place.at) {
                self.put(canvas, *place, y, cell, *tone);
            }
        }
    }

    fn put(&self, canvas: &mut Canvas<'_>, place: GridPlace, y: u16, cell: &Cell, tone: Tone) {
        let width = usize::from(place.width);
        let taken = cell.width().min(width);
        let indent = if self.columns[place.at].is_right {
            width - taken
        } else {
            0
        };
        let x = place.x + u16::try_from(indent).unwrap_or(0);
        canvas.put_cell((x, y), place.width, cell, OmittedPart::Middle, tone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_with_the_width_and_the_rest_is_used() {
        const COLUMNS: &[GridColumn] = &[
            GridColumn::text("NAME", 10, 20, 0),
            GridColumn::number("N", 5, 1),
            GridColumn::number("M", 5, 2),
        ];
        let widths = |width| {
            let grid = Grid::new(COLUMNS, width);
            grid.places
                .iter()
                .map(|place| (place.x, place.width))
                .collect::<Vec<_>>()
        };
        assert_eq!(widths(5), [(0, 10)]);
        assert_eq!(widths(15), [(0, 15)]);
        assert_eq!(widths(16), [(0, 10), (11, 5)]);
        assert_eq!(widths(22), [(0, 10), (11, 5), (17, 5)]);
        assert_eq!(widths(100), [(0, 20), (21, 5), (27, 5)]);
    }
}
