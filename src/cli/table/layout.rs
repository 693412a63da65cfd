//! Layout of a table: the columns that it shows, and their widths.

use unicode_width::UnicodeWidthStr as _;

use super::cell::{Cell, OmittedPart};
use super::wrap::wrap;

/// Between two columns.
const GAP: &str = "  ";
/// Before the lines below a row, in columns.
const INDENT: usize = 10;

/// A column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Column {
    title: &'static str,
    side: Alignment,
    rank: Rank,
    /// Least width of its cells, and the part of them that is left out; `None`: they keep their width.
    shorten: Option<(usize, OmittedPart)>,
    /// Whether its cells go into lines of their own below their rows, where the terminal is too narrow. Of the last column.
    wraps: bool,
}

/// Alignment of the cells of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alignment {
    Left,
    Right,
}

/// Condition under which a column is shown. Columns of one rank are shown or hidden together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Always,
    /// Hidden if the terminal is too narrow: high numbers first.
    Usual(u8),
    /// Shown if the terminal is wide enough: low numbers first.
    Wide(u8),
    /// Shown if all columns are requested.
    All,
}

/// Part of a table that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Extent {
    /// The usual columns, whole: the output is no terminal.
    Usual,
    /// All columns, whole.
    All,
    /// The columns that fit into this width of a terminal.
    Width(usize),
}

impl Extent {
    /// Returns the width of the terminal, if lines are broken for one.
    pub(in crate::cli) const fn width(self) -> Option<usize> {
        match self {
            Self::Width(width) => Some(width),
            Self::Usual | Self::All => None,
        }
    }
}

impl Column {
    /// Returns a column of text, aligned left.
    pub(in crate::cli) const fn left(title: &'static str) -> Self {
        let (side, rank, shorten) = (Alignment::Left, Rank::Always, None);
        Self {
            title,
            side,
            rank,
            shorten,
            wraps: false,
        }
    }

    /// Returns a column of numbers, aligned right.
    pub(in crate::cli) const fn right(title: &'static str) -> Self {
        Self {
            side: Alignment::Right,
            ..Self::left(title)
        }
    }

    /// Hides the column on a terminal that is too narrow for it; high ranks first.
    pub(in crate::cli) const fn usual(self, rank: u8) -> Self {
        let rank = Rank::Usual(rank);
        Self { rank, ..self }
    }

    /// Shows the column only on a terminal that has room for it; low ranks first.
    pub(in crate::cli) const fn wide(self, rank: u8) -> Self {
        let rank = Rank::Wide(rank);
        Self { rank, ..self }
    }

    /// Shortens cells in the middle, down to this width, if the terminal is too narrow.
    pub(in crate::cli) const fn names(self, least: usize) -> Self {
        let shorten = Some((least, OmittedPart::Middle));
        Self { shorten, ..self }
    }

    /// Shortens cells at the end, down to this width, if the terminal is too narrow.
    pub(in crate::cli) const fn words(self, least: usize) -> Self {
        let shorten = Some((least, OmittedPart::End));
        Self { shorten, ..self }
    }

    /// Puts whole cells into lines below their rows if the terminal is too narrow. For the last column.
    pub(in crate::cli) const fn wrapped(self) -> Self {
        Self { wraps: true, ..self }
    }

    pub(super) fn title(&self) -> &'static str {
        self.title
    }

    pub(super) fn only_if_all(&mut self) {
        self.rank = Rank::All;
    }
}

/// Width of a column if there is room for all columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Natural {
    width: usize,
    floor: usize,
}

impl Natural {
    pub(super) fn of_title(column: &Column) -> Self {
        let width = column.title.width();
        Self { width, floor: width }
    }

    pub(super) fn add(&mut self, column: &Column, cell: &Cell) {
        let width = cell.width();
        let floor = column.shorten.map_or(width, |(least, _)| cell.floor(least));
        self.width = self.width.max(width);
        self.floor = self.floor.max(floor);
    }
}

/// The columns that are shown.
#[derive(Debug)]
pub(super) struct TableLayout {
    /// Place of each among the cells of a row, and its width.
    shown: Vec<(usize, Column, usize)>,
    /// Whether cells are brought to the width of their column.
    fits: bool,
    /// The place among the cells of the one that follows in lines of its own, and the width of these.
    below: Option<(usize, usize)>,
}

impl TableLayout {
    pub(super) fn new(columns: &[Column], natural: &[Natural], extent: Extent) -> Self {
        let of_rank = |most: Rank| {
            let shown = columns.iter().zip(natural).enumerate();
            let shown = shown.filter(move |(_, (column, _))| column.rank <= most);
            shown.map(|(at, (column, natural))| (at, *column, *natural))
        };
        let widths = |shown: Vec<(usize, Column, Natural)>| {
            let shown = shown.into_iter();
            shown.map(|(at, column, natural)| (at, column, natural.width)).collect()
        };
        let width = match extent {
            Extent::All | Extent::Usual => {
                let most = if extent == Extent::All {
                    Rank::All
                } else {
                    Rank::Usual(u8::MAX)
                };
                return Self {
                    shown: widths(of_rank(most).collect()),
                    fits: false,
                    below: None,
                };
            }
            Extent::Width(width) => width,
        };
        if let Some((last, others)) = columns.split_last().filter(|(last, _)| last.wraps) {
            let usual = of_rank(Rank::Usual(u8::MAX)).map(|(_, _, natural)| natural.width);
            if last.rank != Rank::All && total(&usual.collect::<Vec<_>>()) > width {
                let natural = natural.get(..others.len()).unwrap_or(natural);
                return Self {
                    below: Some((others.len(), width)),
                    ..Self::new(others, natural, extent)
                };
            }
        }
        let mut ranks: Vec<Rank> = columns.iter().map(|column| column.rank).collect();
        ranks.sort_unstable();
        ranks.dedup();
        ranks.retain(|rank| *rank != Rank::All);
        let fits = |most: Rank, width_of: fn(&Natural) -> usize| {
            let widths: Vec<usize> = of_rank(most).map(|(_, _, natural)| width_of(&natural)).collect();
            total(&widths) <= width
        };
        // Whole cells are better than more columns than usual.
        let whole = ranks.iter().rev().find(|rank| fits(**rank, |natural| natural.width));
        let usual = ranks.iter().rev().filter(|rank| **rank < Rank::Wide(0));
        let shortened = usual.clone().find(|rank| fits(**rank, |natural| natural.floor));
        let most_usual = usual.clone().next().copied().unwrap_or(Rank::Always);
        let most = match (whole, shortened) {
            (Some(whole), _) if *whole >= most_usual => *whole,
            (_, Some(shortened)) => *shortened,
            (Some(whole), None) => *whole,
            (None, None) => Rank::Always,
        };
        let shown: Vec<_> = of_rank(most).collect();
        let mut widths: Vec<usize> = shown.iter().map(|(_, _, natural)| natural.width).collect();
        while total(&widths) > width {
            let can_shrink = (0..shown.len()).filter(|at| widths[*at] > shown[*at].2.floor);
            let Some(widest) = can_shrink.max_by_key(|at| widths[*at]) else {
                break;
            };
            let second = (0..shown.len()).filter(|at| *at != widest && widths[*at] > shown[*at].2.floor);
            let second = second.map(|at| widths[at]).max().unwrap_or(0);
            let over = total(&widths) - width;
            let to = shown[widest].2.floor.max(second.min(widths[widest] - 1));
            widths[widest] -= over.min((widths[widest] - to).max(1));
        }
        let shown = shown.into_iter().zip(widths);
        Self {
            shown: shown.map(|((at, column, _), width)| (at, column, width)).collect(),
            fits: true,
            below: None,
        }
    }

    /// Returns the line of titles.
    pub(super) fn head(&self) -> String {
        let titles = self.shown.iter();
        join(titles.map(|(_, column, width)| (column.title.to_owned(), column.side, *width)))
    }

    /// Returns the line of a row, and those of the cell that is below it.
    pub(super) fn line(&self, cells: &[Cell]) -> String {
        let mut line = self.row(cells);
        let below = self.below.and_then(|(at, width)| Some((cells.get(at)?, width)));
        let below = below.filter(|(cell, _)| cell.width() > 0);
        if let Some((cell, width)) = below {
            let text = cell.within(usize::MAX, OmittedPart::End);
            line.push('\n');
            line.push_str(&wrap(&text, INDENT, INDENT, width));
        }
        line
    }

    fn row(&self, cells: &[Cell]) -> String {
        join(self.shown.iter().filter_map(|(at, column, width)| {
            let cell = cells.get(*at)?;
            let text = match column.shorten {
                Some((_, part)) if self.fits => cell.within(*width, part),
                _ => cell.within(usize::MAX, OmittedPart::End),
            };
            Some((text, column.side, *width))
        }))
    }
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1)
}

fn join(cells: impl Iterator<Item = (String, Alignment, usize)>) -> String {
    let mut line = String::new();
    for (at, (text, side, width)) in cells.enumerate() {
        if at > 0 {
            line += GAP;
        }
        let padding = " ".repeat(width.saturating_sub(text.width()));
        match side {
            Alignment::Left => line += &(text + &padding),
            Alignment::Right => line += &(padding + &text),
        }
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COLUMNS: &[Column] = &[
        Column::left("SERVICE").names(8),
        Column::left("STATE"),
        Column::right("FLOWS").usual(1),
        Column::left("BACKEND").usual(2),
        Column::right("BYTES").wide(2),
        Column::left("REASON").words(10).wide(1),
    ];

    fn lines(width: Extent, rows: &[[&str; 6]]) -> Vec<String> {
        let rows: Vec<Vec<Cell>> = rows
            .iter()
            .map(|row| {
                let mut cells: Vec<Cell> = row.iter().map(|text| Cell::from(*text)).collect();
                cells[3] = Cell::whole(row[3]);
                cells
            })
            .collect();
        let mut natural: Vec<Natural> = COLUMNS.iter().map(Natural::of_title).collect();
        for row in &rows {
            for ((natural, cell), column) in natural.iter_mut().zip(row).zip(COLUMNS) {
                natural.add(column, cell);
            }
        }
        let layout = TableLayout::new(COLUMNS, &natural, width);
        let rows = rows.iter().map(|row| layout.line(row));
        std::iter::once(layout.head()).chain(rows).collect()
    }

    const ROWS: &[[&str; 6]] = &[
        ["web", "up", "12", "10.2.0.11:3000", "1447k", "-"],
        [
            "a-service-with-a-long-name-1",
            "DOWN",
            "0",
            "10.2.0.12:3000",
            "-",
            "connection refused by the backend",
        ],
    ];

    #[test]
    fn columns_come_and_go_with_the_width() {
        assert_eq!(
            lines(Extent::Width(20), ROWS),
            ["SERVICE        STATE", "web            up", "a-serv…name-1  DOWN"]
        );
        assert_eq!(
            lines(Extent::Width(40), ROWS),
            [
                "SERVICE     STATE  FLOWS  BACKEND",
                "web         up        12  10.2.0.11:3000",
                "a-ser…me-1  DOWN       0  10.2.0.12:3000",
            ]
        );
        let usual = [
            "SERVICE                       STATE  FLOWS  BACKEND",
            "web                           up        12  10.2.0.11:3000",
            "a-service-with-a-long-name-1  DOWN       0  10.2.0.12:3000",
        ];
        assert_eq!(lines(Extent::Width(80), ROWS), usual);
        assert_eq!(lines(Extent::Usual, ROWS), usual);
        let all = [
            "SERVICE                       STATE  FLOWS  BACKEND         BYTES  REASON",
            "web                           up        12  10.2.0.11:3000  1447k  -",
            "a-service-with-a-long-name-1  DOWN       0  10.2.0.12:3000      -  connection refused by the backend",
        ];
        for extent in [Extent::Width(120), Extent::Width(230), Extent::All] {
            assert_eq!(lines(extent, ROWS), all);
        }
    }

    #[test]
    fn the_widest_column_gives_way_first() {
        const TWO: &[Column] = &[Column::left("A").names(4), Column::left("B").words(4)];
        let natural = [Natural { width: 30, floor: 4 }, Natural { width: 12, floor: 4 }];
        let widths = |width| {
            let layout = TableLayout::new(TWO, &natural, Extent::Width(width));
            layout.shown.iter().map(|(.., width)| *width).collect::<Vec<_>>()
        };
        assert_eq!(widths(44), [30, 12]);
        assert_eq!(widths(34), [20, 12]);
        assert_eq!(widths(22), [10, 10]);
        assert_eq!(widths(3), [4, 4]);
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_it_has_to_be(
            rows in prop::collection::vec(prop::array::uniform6("[a-z名 ]{0,30}"), 0..5),
            width in 1_usize..250,
        ) {
            let rows: Vec<[&str; 6]> = rows.iter().map(|row| row.each_ref().map(|text| &**text)).collect();
            let lines = lines(Extent::Width(width), &rows);
            let widest = rows.iter().map(|row| row[1].width()).max().unwrap_or(0).max(5);
            let longest = lines.iter().map(|line| line.width()).max().unwrap_or(0);
            prop_assert!(longest <= width.max(8 + 2 + widest), "{longest} {lines:?}");
        }
    }
}
