//! Tables that become lists of cards on narrow screens.
//!
//! The first cell of each row is its heading; on narrow screens each cell is labelled with its column.

use maud::{Markup, html};

/// A column of a table, with its heading.
#[derive(Debug, Clone, Copy)]
pub enum PageColumn<'c> {
    /// Column of text.
    Text(&'c str),
    /// Column of numbers.
    Numbers(&'c str),
}

/// Returns a table with columns of text.
pub fn table(columns: &[&str], rows: &[Vec<Markup>]) -> Markup {
    let columns: Vec<PageColumn<'_>> = columns.iter().copied().map(PageColumn::Text).collect();
    html! { table { (content(&columns, rows)) } }
}

/// Returns a table with a class and a caption (an element).
pub fn captioned(class: &str, caption: &Markup, columns: &[PageColumn<'_>], rows: &[Vec<Markup>]) -> Markup {
    html! { table class=(class) { (caption) (content(columns, rows)) } }
}

fn content(columns: &[PageColumn<'_>], rows: &[Vec<Markup>]) -> Markup {
    html! {
        thead { tr { @for column in columns { th class=[column.class()] scope="col" { (column.heading()) } } } }
        tbody {
            @for row in rows {
                tr {
                    @for (at, (cell, column)) in row.iter().zip(columns).enumerate() {
                        @if at == 0 {
                            th scope="row" data-label=(column.heading()) { (cell) }
                        } @else {
                            td class=[column.class()] data-label=(column.heading()) { div.cell { (cell) } }
                        }
                    }
                }
            }
        }
    }
}

impl PageColumn<'_> {
    const fn heading(&self) -> &str {
        match self {
            Self::Text(heading) | Self::Numbers(heading) => heading,
        }
    }

    const fn class(&self) -> Option<&'static str> {
        match self {
            Self::Text(_) => None,
            Self::Numbers(_) => Some("n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_know_their_column() {
        let rows = [vec![html! { "a" }, html! { "<b>" }]];
        let table = table(&["One", "\"Two"], &rows).into_string();
        assert!(
            table.contains("<th scope=\"row\" data-label=\"One\">a</th><td data-label=\"&quot;Two\"><div class=\"cell\">&lt;b&gt;</div></td>"),
            "{table}"
        );
    }

    #[test]
    fn a_table_may_have_a_caption_and_columns_of_numbers() {
        let rows = [vec![html! { "a" }, html! { "7" }]];
        let columns = [PageColumn::Text("One"), PageColumn::Numbers("Two")];
        let table = captioned("short", &html! { caption { "All" } }, &columns, &rows).into_string();
        assert_eq!(
            table,
            "<table class=\"short\"><caption>All</caption>\
             <thead><tr><th scope=\"col\">One</th><th class=\"n\" scope=\"col\">Two</th></tr></thead>\
             <tbody><tr><th scope=\"row\" data-label=\"One\">a</th>\
             <td class=\"n\" data-label=\"Two\"><div class=\"cell\">7</div></td></tr></tbody></table>"
        );
    }
}
