//! A table that becomes a list of cards on narrow screens.

use maud::{Markup, html};

/// Returns a table. The first cell of each row is its heading; on narrow screens each cell is labelled with its column.
pub fn table(columns: &[&str], rows: &[Vec<Markup>]) -> Markup {
    html! {
        table {
            thead { tr { @for column in columns { th scope="col" { (column) } } } }
            tbody {
                @for row in rows {
                    tr {
                        @for (at, (cell, column)) in row.iter().zip(columns).enumerate() {
                            @if at == 0 {
                                th scope="row" data-label=(column) { (cell) }
                            } @else {
                                td data-label=(column) { div.cell { (cell) } }
                            }
                        }
                    }
                }
            }
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
}
