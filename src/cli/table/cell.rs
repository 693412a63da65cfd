//! A cell of a table: its text, how wide that is on a terminal, and how it may be shortened.

use tcpgw_core::escape;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Replacement of a part that was left out, one column wide.
const ELLIPSIS: char = '…';

/// Text in a row. Control characters in it are spelled out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Cell {
    text: String,
    shorten: Shorten,
}

/// Part of a cell that is left out if its column is too narrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shorten {
    /// Shortened as its column specifies.
    ByColumn,
    /// Never shortened, since people copy it.
    Never,
    /// Shortened before this many last columns, which are kept.
    Before(usize),
}

/// Part of the cells of a column that is left out by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum OmittedPart {
    /// The middle: names often differ at their ends.
    Middle,
    /// The end: sentences and lists.
    End,
}

impl Cell {
    /// Returns a cell that is never shortened: an address, or anything else that is copied into other commands.
    pub(in crate::cli) fn whole(text: impl AsRef<str>) -> Self {
        Self {
            text: escape::text(text.as_ref()),
            shorten: Shorten::Never,
        }
    }

    /// Returns a cell of two parts, of which the second is never shortened.
    pub(in crate::cli) fn ending(begin: &str, end: &str) -> Self {
        let end = escape::text(end);
        Self {
            text: escape::text(begin) + &end,
            shorten: Shorten::Before(end.width()),
        }
    }

    /// Returns its width in columns.
    pub(in crate::cli) fn width(&self) -> usize {
        self.text.width()
    }

    /// Returns the least width to which it can be shortened in a column whose cells keep `least` columns.
    pub(super) fn floor(&self, least: usize) -> usize {
        let width = self.width();
        match self.shorten {
            Shorten::ByColumn => width.min(least),
            Shorten::Never => width,
            Shorten::Before(end) => width.min(end.saturating_add(least)),
        }
    }

    /// Returns the text in at most this many columns, if it may be shortened; else the whole text.
    pub(in crate::cli) fn within(&self, width: usize, part: OmittedPart) -> String {
        if self.width() <= width {
            return self.text.clone();
        }
        let room = width.saturating_sub(1);
        let end = match (self.shorten, part) {
            (Shorten::Never, _) => return self.text.clone(),
            (Shorten::Before(end), _) if end >= room => return self.text.clone(),
            (Shorten::Before(end), _) => end,
            (Shorten::ByColumn, OmittedPart::Middle) => room / 2,
            (Shorten::ByColumn, OmittedPart::End) => 0,
        };
        let mut short = first(&self.text, room - end).to_owned();
        short.push(ELLIPSIS);
        short + last(&self.text, end)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self {
            text: escape::text(&text),
            shorten: Shorten::ByColumn,
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// Returns the beginning of a text, in at most this many columns.
fn first(text: &str, width: usize) -> &str {
    let mut used = 0;
    let mut chars = text.char_indices();
    let end = chars.find(|(_, c)| {
        used += c.width().unwrap_or(0);
        used > width
    });
    end.map_or(text, |(at, _)| &text[..at])
}

/// Returns the end of a text, in at most this many columns.
fn last(text: &str, width: usize) -> &str {
    let mut used = 0;
    let mut chars = text.char_indices().rev();
    let begin = chars.find(|(_, c)| {
        used += c.width().unwrap_or(0);
        used > width
    });
    begin.map_or(text, |(at, c)| &text[at + c.len_utf8()..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_lose_their_middle_and_sentences_their_end() {
        let name = Cell::from("a-very-long-name-of-a-service-42");
        assert_eq!(name.within(32, OmittedPart::Middle), "a-very-long-name-of-a-service-42");
        assert_eq!(name.within(12, OmittedPart::Middle), "a-very…ce-42");
        assert_eq!(
            Cell::from("connection refused").within(11, OmittedPart::End),
            "connection…"
        );
    }

    #[test]
    fn what_is_copied_is_never_shortened() {
        assert_eq!(
            Cell::whole("10.2.0.11:3000").within(3, OmittedPart::Middle),
            "10.2.0.11:3000"
        );
        let title = Cell::ending("a-very-long-name", " :20003");
        assert_eq!(title.within(14, OmittedPart::Middle), "a-very… :20003");
        assert_eq!(title.floor(6), 13);
        assert_eq!(title.within(5, OmittedPart::Middle), "a-very-long-name :20003");
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let name = Cell::from("名前-サービス");
        assert_eq!(name.width(), 13);
        let short = name.within(8, OmittedPart::Middle);
        assert_eq!(short, "名前…ス");
        assert!(short.width() <= 8);
        assert_eq!(Cell::from("e\u{301}").width(), 1);
    }

    proptest! {
        #[test]
        fn shortened_text_fits(text: String, end: String, width in 1_usize..60) {
            for part in [OmittedPart::Middle, OmittedPart::End] {
                let cell = Cell::from(&*text);
                let shown = cell.within(width, part);
                prop_assert!(shown.chars().map(|c| c.width().unwrap_or(0)).sum::<usize>() <= width || cell.width() <= width, "{shown:?}");
                prop_assert_eq!(Cell::whole(&text).within(width, part), escape::text(&text));
                prop_assert!(Cell::ending(&text, &end).within(width, part).ends_with(&escape::text(&end)));
            }
        }
    }
}
