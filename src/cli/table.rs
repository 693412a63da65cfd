//! Tables for people. A table has columns in order of importance; how many of them are shown, and how wide, follows from the
//! width of the terminal. Nothing here asks for that width: the caller says it.

mod cell;
mod layout;
mod wrap;

use std::io::{self, Write};

pub(super) use self::cell::{Cell, OmittedPart};
pub(super) use self::layout::{Column, Extent};
use self::layout::{Natural, TableLayout};
pub(super) use self::wrap::{after, wrap};
use super::failure::Failure;

/// Rows that are held back to see how wide they are.
const HELD: usize = 1000;

/// A table on its way out. The rows that come first decide the layout, so that a table of any length needs little memory.
pub(super) struct TextTable<W: Write> {
    out: W,
    columns: Vec<Column>,
    extent: Extent,
    held: Vec<Vec<Cell>>,
    most_held: usize,
    layout: Option<TableLayout>,
}

impl<W: Write> TextTable<W> {
    pub(super) fn new(out: W, columns: &[Column], extent: Extent) -> Self {
        Self {
            out,
            columns: columns.to_vec(),
            extent,
            held: Vec::new(),
            most_held: HELD,
            layout: None,
        }
    }

    /// Holds all rows back, where all are in memory anyway.
    pub(super) fn holding_all(mut self) -> Self {
        self.most_held = usize::MAX;
        self
    }

    /// Leaves out columns that have nothing to show, unless all are asked for.
    pub(super) fn without(mut self, titles: &[&str]) -> Self {
        for column in &mut self.columns {
            if titles.contains(&column.title()) {
                column.only_if_all();
            }
        }
        self
    }

    /// Adds a row: one cell for each column.
    pub(super) fn row(&mut self, cells: Vec<Cell>) -> io::Result<()> {
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        if let Some(layout) = &self.layout {
            return writeln!(self.out, "{}", layout.line(&cells));
        }
        self.held.push(cells);
        if self.held.len() >= self.most_held {
            self.release()?;
        }
        Ok(())
    }

    /// Writes the whole table.
    pub(super) fn print(mut self, mut rows: impl Iterator<Item = Vec<Cell>>) -> Result<(), Failure> {
        let printed = rows.try_for_each(|row| self.row(row));
        printed
            .and_then(|()| self.end())
            .map(drop)
            .map_err(|source| Failure::Io {
                what: "write to standard output",
                source,
            })
    }

    /// Writes the rows that are still buffered.
    pub(super) fn end(mut self) -> io::Result<W> {
        self.release()?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn release(&mut self) -> io::Result<()> {
        if self.layout.is_some() {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        let mut natural: Vec<Natural> = self.columns.iter().map(Natural::of_title).collect();
        for cells in &held {
            for ((natural, cell), column) in natural.iter_mut().zip(cells).zip(&self.columns) {
                natural.add(column, cell);
            }
        }
        let layout = TableLayout::new(&self.columns, &natural, self.extent);
        writeln!(self.out, "{}", layout.head())?;
        for cells in held {
            writeln!(self.out, "{}", layout.line(&cells))?;
        }
        self.layout = Some(layout);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &[Column] = &[Column::left("NAME"), Column::right("N")];

    fn cells(left: &str, right: &str) -> Vec<Cell> {
        vec![left.into(), right.into()]
    }

    #[test]
    fn columns_are_as_wide_as_what_is_held() {
        let mut table = TextTable::new(Vec::new(), BOTH, Extent::Usual);
        table.row(cells("a", "7")).unwrap();
        table.row(cells("longer", "1234")).unwrap();
        assert_eq!(table.end().unwrap(), b"NAME       N\na          7\nlonger  1234\n");
    }

    #[test]
    fn a_table_without_rows_has_its_titles() {
        let table = TextTable::new(Vec::new(), BOTH, Extent::Usual);
        assert_eq!(table.end().unwrap(), b"NAME  N\n");
    }

    #[test]
    fn a_million_rows_are_not_held() {
        let mut table = TextTable::new(Vec::new(), BOTH, Extent::Usual);
        for _ in 0..HELD {
            table.row(cells("a", "b")).unwrap();
        }
        assert!(table.held.is_empty() && !table.out.is_empty());
        table.row(cells("wider", "c")).unwrap();
        assert!(table.end().unwrap().ends_with(b"a     b\nwider  c\n"));
    }

    #[test]
    fn text_that_a_terminal_would_obey_is_spelled_out_and_measured_so() {
        let mut table = TextTable::new(Vec::new(), BOTH, Extent::Width(20));
        table.row(cells("a\u{1b}[2J", "1")).unwrap();
        table.row(cells("b\nc", "2")).unwrap();
        let text = String::from_utf8(table.end().unwrap()).unwrap();
        assert_eq!(text, "NAME        N\na\\u{1b}[2J  1\nb\\nc        2\n");
    }

    #[test]
    fn a_column_with_nothing_to_show_is_left_out_unless_all_are_asked_for() {
        let text = |extent| {
            let mut table = TextTable::new(Vec::new(), BOTH, extent).without(&["N"]);
            table.row(cells("a", "-")).unwrap();
            String::from_utf8(table.end().unwrap()).unwrap()
        };
        assert_eq!(text(Extent::Usual), "NAME\na\n");
        assert_eq!(text(Extent::Width(200)), "NAME\na\n");
        assert_eq!(text(Extent::All), "NAME  N\na     -\n");
    }
}
