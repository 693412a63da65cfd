//! Tables for people, of any length: the first rows decide how wide the columns are.

use std::io::{self, Write};

use super::Failure;

/// Rows that are held back to see how wide they are.
const HELD: usize = 1000;

/// A table on its way out.
pub(super) struct Columns<W: Write> {
    out: W,
    aligned: &'static [Align],
    widths: Vec<usize>,
    held: Vec<Vec<String>>,
    most_held: usize,
    flowing: bool,
}

/// Which side of a column its cells keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

impl<W: Write> Columns<W> {
    pub(super) fn new(out: W, aligned: &'static [Align]) -> Self {
        Self {
            out,
            aligned,
            widths: vec![0; aligned.len()],
            held: Vec::new(),
            most_held: HELD,
            flowing: false,
        }
    }

    /// Holds all rows back, where all are in memory anyway.
    pub(super) fn holding_all(mut self) -> Self {
        self.most_held = usize::MAX;
        self
    }

    pub(super) fn row(&mut self, cells: Vec<String>) -> io::Result<()> {
        if self.flowing {
            return self.write(&cells);
        }
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = (*width).max(cell.chars().count());
        }
        self.held.push(cells);
        if self.held.len() >= self.most_held {
            self.release()?;
        }
        Ok(())
    }

    /// The whole table, its head first.
    pub(super) fn print<const N: usize>(
        mut self,
        head: [&str; N],
        rows: impl Iterator<Item = [String; N]>,
    ) -> Result<(), Failure> {
        let mut rows = std::iter::once(head.map(str::to_owned)).chain(rows);
        let printed = rows.try_for_each(|row| self.row(row.to_vec()));
        printed
            .and_then(|()| self.end())
            .map(drop)
            .map_err(|source| Failure::Io {
                what: "write to standard output",
                source,
            })
    }

    /// Writes what is still held back.
    pub(super) fn end(mut self) -> io::Result<W> {
        self.release()?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn release(&mut self) -> io::Result<()> {
        self.flowing = true;
        for cells in std::mem::take(&mut self.held) {
            self.write(&cells)?;
        }
        Ok(())
    }

    fn write(&mut self, cells: &[String]) -> io::Result<()> {
        let mut line = String::new();
        for ((cell, width), align) in cells.iter().zip(&self.widths).zip(self.aligned) {
            if !line.is_empty() {
                line += "  ";
            }
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            match align {
                Align::Left => line += &(cell.clone() + &padding),
                Align::Right => line += &(padding + cell),
            }
        }
        writeln!(self.out, "{}", line.trim_end())
    }
}

/// `1234`, `56.7k`, `8.9M`
pub(super) fn short(number: f64) -> String {
    let units = ["", "k", "M", "G", "T", "P", "E"];
    let (mut number, mut at) = (number, 0);
    while number >= 9_999.5 && at + 1 < units.len() {
        number /= 1000.0;
        at += 1;
    }
    let places = usize::from(at > 0 && number < 100.0);
    format!("{number:.places$}{}", units[at])
}

/// `12s`, `3m20s`, `5h01m`, `2d03h`
pub(super) fn span(seconds: u64) -> String {
    let two = |large: u64, by: u64, unit, small: u64, small_unit| {
        format!("{}{unit}{:02}{small_unit}", large / by, large % by / small)
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => two(seconds, 60, 'm', 1, 's'),
        3600..86_400 => two(seconds, 3600, 'h', 60, 'm'),
        _ => two(seconds, 86_400, 'd', 3600, 'h'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &[Align] = &[Align::Left, Align::Right];

    fn cells(left: &str, right: &str) -> Vec<String> {
        vec![left.into(), right.into()]
    }

    #[test]
    fn columns_are_as_wide_as_what_is_held() {
        let mut columns = Columns::new(Vec::new(), BOTH);
        columns.row(cells("a", "7")).unwrap();
        columns.row(cells("long", "1234")).unwrap();
        assert_eq!(columns.end().unwrap(), b"a        7\nlong  1234\n");
    }

    #[test]
    fn a_million_rows_are_not_held() {
        let mut columns = Columns::new(Vec::new(), BOTH);
        for _ in 0..HELD {
            columns.row(cells("a", "b")).unwrap();
        }
        assert!(columns.held.is_empty() && !columns.out.is_empty());
        columns.row(cells("wider", "c")).unwrap();
        assert!(columns.end().unwrap().ends_with(b"a  b\nwider  c\n"));
    }

    #[test]
    fn numbers_and_times_are_short() {
        let numbers = [0.0, 9_999.0, 9_999.9, 12_345.0, 123_456.0, 1e7, 2.5e9];
        assert_eq!(
            numbers.map(short),
            ["0", "9999", "10.0k", "12.3k", "123k", "10.0M", "2500M"]
        );
        let spans = [0, 59, 60, 3599, 3600, 86_399, 86_400, 432_000];
        assert_eq!(
            spans.map(span),
            ["0s", "59s", "1m00s", "59m59s", "1h00m", "23h59m", "1d00h", "5d00h"]
        );
    }
}
