//! The query of the table of services: filter, order and page.

use std::fmt;

use thiserror::Error;

use super::frame::repeated;
use crate::view::condition::ServiceCondition;

/// Longest filter, in bytes.
const FILTER: usize = 200;
/// Numbers of services that a page can have.
pub(super) const SIZES: [usize; 4] = [25, 50, 100, 250];
const SIZE: usize = 50;

/// Column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceColumn {
    /// Condition, the worst first.
    State,
    /// Name.
    Name,
    /// Public port of the service.
    Port,
    /// Number of backends that get connections.
    Backends,
    /// Number of established flows.
    Flows,
    /// Connections per second.
    Pace,
    /// Number of connections since counting began.
    Connections,
    /// Bytes per second to the backends.
    ToBackends,
    /// Bytes per second from the backends.
    FromBackends,
    /// Largest used part of a backend's limit.
    Limit,
    /// Dropped packets per second.
    Drops,
    /// Provider.
    Provider,
}

impl ServiceColumn {
    /// All columns in their order, each with its word in a query, and its heading.
    pub const ALL: [(Self, &'static str, &'static str); 12] = [
        (Self::Name, "name", "Service"),
        (Self::State, "state", "State"),
        (Self::Port, "port", "Port"),
        (Self::Backends, "backends", "Backends"),
        (Self::Flows, "flows", "Open"),
        (Self::Pace, "pace", "New per second"),
        (Self::Connections, "connections", "Connections"),
        (Self::ToBackends, "to", "To backends"),
        (Self::FromBackends, "from", "From backends"),
        (Self::Limit, "limit", "Limit used"),
        (Self::Drops, "drops", "Dropped"),
        (Self::Provider, "provider", "Provider"),
    ];

    /// Returns whether the largest value is of interest first.
    fn is_descending(self) -> bool {
        !matches!(self, Self::State | Self::Name | Self::Port | Self::Provider)
    }

    fn word(self) -> &'static str {
        let found = Self::ALL.iter().find(|(column, ..)| *column == self);
        found.map_or("", |(_, word, _)| word)
    }
}

/// Reason why a query of the table is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QueryRefused {
    /// A parameter is not known.
    #[error("there is no parameter \"{0}\": sort, order, state, q, page and size are known")]
    Parameter(String),
    /// A value is none of the known ones.
    #[error("{name} cannot be \"{value}\": {known}")]
    Value {
        /// Name of the parameter.
        name: &'static str,
        /// The value as a page repeats it.
        value: String,
        /// Values that are known.
        known: String,
    },
    /// The filter is too long.
    #[error("the filter is too long: it may have {FILTER} bytes")]
    Filter,
    /// The table has fewer pages.
    #[error("there is no page {page}: with this filter there are {pages}")]
    Beyond {
        /// The page.
        page: usize,
        /// Number of pages.
        pages: usize,
    },
}

/// A query of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicesQuery {
    /// Text that services must contain, in lower case; empty for all.
    pub filter: String,
    /// Only condition to show.
    pub condition: Option<ServiceCondition>,
    /// Column to sort by.
    pub sort: ServiceColumn,
    /// Whether the largest value comes first.
    pub is_descending: bool,
    /// Number of the page, from 1.
    pub page: usize,
    /// Number of services on a page.
    pub size: usize,
}

impl Default for ServicesQuery {
    fn default() -> Self {
        Self {
            filter: String::new(),
            condition: None,
            sort: ServiceColumn::State,
            is_descending: false,
            page: 1,
            size: SIZE,
        }
    }
}

impl ServicesQuery {
    /// Parses the query of a URL. Empty values are as good as none: forms send them.
    ///
    /// # Errors
    /// Fails with [`QueryRefused`] when a parameter or its value is not known.
    pub fn parse(query: &str) -> Result<Self, QueryRefused> {
        let (mut parsed, mut order) = (Self::default(), None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.trim();
            if value.is_empty() && ["sort", "order", "state", "q", "page", "size"].contains(&&*name) {
                continue;
            }
            match &*name {
                "q" if value.len() > FILTER => return Err(QueryRefused::Filter),
                "q" => parsed.filter = value.to_lowercase(),
                "sort" => {
                    let found = ServiceColumn::ALL.iter().find(|(_, word, _)| *word == value);
                    let words = ServiceColumn::ALL.map(|(_, word, _)| word);
                    parsed.sort = found.ok_or_else(|| unknown("sort", value, &words))?.0;
                }
                "order" => {
                    order = Some(match value {
                        "asc" => false,
                        "desc" => true,
                        _ => return Err(unknown("order", value, &["asc", "desc"])),
                    });
                }
                "state" => {
                    let found = ServiceCondition::ALL.into_iter().find(|of| of.word() == value);
                    let words = ServiceCondition::ALL.map(ServiceCondition::word);
                    parsed.condition = Some(found.ok_or_else(|| unknown("state", value, &words))?);
                }
                "page" => {
                    let page = value.parse().ok().filter(|page| *page > 0);
                    parsed.page = page.ok_or_else(|| QueryRefused::Value {
                        name: "page",
                        value: repeated(value),
                        known: "pages are counted from 1".into(),
                    })?;
                }
                "size" => {
                    let size = value.parse().ok().filter(|size| SIZES.contains(size));
                    let words = SIZES.map(|size| size.to_string());
                    let words: Vec<&str> = words.iter().map(String::as_str).collect();
                    parsed.size = size.ok_or_else(|| unknown("size", value, &words))?;
                }
                other => return Err(QueryRefused::Parameter(repeated(other))),
            }
        }
        parsed.is_descending = order.unwrap_or_else(|| parsed.sort.is_descending());
        Ok(parsed)
    }

    /// Returns the query sorted by a column: in its usual order, or in the other one if it is sorted so already.
    pub(super) fn sorted_by(&self, column: ServiceColumn) -> Self {
        let usual = column.is_descending();
        Self {
            sort: column,
            is_descending: if self.sort == column {
                !self.is_descending
            } else {
                usual
            },
            page: 1,
            ..self.clone()
        }
    }

    /// Returns the query with another page.
    pub(super) fn at(&self, page: usize) -> Self {
        Self { page, ..self.clone() }
    }

    /// Returns the URL of the table with this query. What is as usual is left out.
    pub fn url(&self) -> String {
        let query = self.to_string();
        if query.is_empty() {
            "/services".into()
        } else {
            format!("/services?{query}")
        }
    }

    /// Returns the word of the order.
    pub(super) fn order(&self) -> &'static str {
        if self.is_descending { "desc" } else { "asc" }
    }
}

impl fmt::Display for ServicesQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::default();
        let mut query = form_urlencoded::Serializer::new(String::new());
        if !self.filter.is_empty() {
            query.append_pair("q", &self.filter);
        }
        if let Some(condition) = self.condition {
            query.append_pair("state", condition.word());
        }
        if self.sort != usual.sort {
            query.append_pair("sort", self.sort.word());
        }
        if self.is_descending != self.sort.is_descending() {
            query.append_pair("order", self.order());
        }
        if self.size != usual.size {
            query.append_pair("size", &self.size.to_string());
        }
        if self.page != usual.page {
            query.append_pair("page", &self.page.to_string());
        }
        f.write_str(&query.finish())
    }
}

fn unknown(name: &'static str, value: &str, known: &[&str]) -> QueryRefused {
    QueryRefused::Value {
        name,
        value: repeated(value),
        known: format!("{} are known", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_and_written() {
        for text in [
            "",
            "q=web&state=down",
            "sort=name&order=desc&size=25&page=7",
            "sort=to",
            "sort=to&order=asc",
            "q=%3Cb%3E+%26+%22",
        ] {
            let query = ServicesQuery::parse(text).unwrap();
            assert_eq!(query.to_string(), text);
            assert_eq!(ServicesQuery::parse(&query.to_string()).unwrap(), query);
        }
        let usual = ServicesQuery::parse("q=&state=&sort=&order=&page=&size=").unwrap();
        assert_eq!((usual.url(), usual), ("/services".into(), ServicesQuery::default()));
        assert_eq!(ServicesQuery::parse("q=+WEB+").unwrap().filter, "web");
        for (column, word, _) in ServiceColumn::ALL {
            assert_eq!(ServicesQuery::parse(&format!("sort={word}")).unwrap().sort, column);
        }
        for condition in ServiceCondition::ALL {
            let query = ServicesQuery::parse(&format!("state={}", condition.word())).unwrap();
            assert_eq!(query.condition, Some(condition));
        }
    }

    #[test]
    fn a_column_is_sorted_as_usual_and_then_the_other_way() {
        let query = ServicesQuery::parse("page=3").unwrap().sorted_by(ServiceColumn::Flows);
        assert_eq!((query.is_descending, query.page), (true, 1));
        assert!(!query.sorted_by(ServiceColumn::Flows).is_descending);
        assert!(!query.sorted_by(ServiceColumn::Name).is_descending);
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (text, expected) in [
            ("sort=colour", "sort cannot be \"colour\": name, state, port"),
            ("order=up", "asc, desc are known"),
            ("state=blue", "down, empty"),
            ("page=0", "pages are counted from 1"),
            ("page=-1", "pages are counted from 1"),
            ("page=99999999999999999999999", "pages are counted from 1"),
            ("size=10", "25, 50, 100, 250 are known"),
            ("shape=round", "no parameter \"shape\""),
            ("sort=%1b%5B", "\\u{1b}["),
        ] {
            let error = ServicesQuery::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let filter = |length| ServicesQuery::parse(&format!("q={}", "x".repeat(length)));
        assert!(filter(FILTER).is_ok());
        assert_eq!(filter(FILTER + 1), Err(QueryRefused::Filter));
        let long = ServicesQuery::parse(&format!("sort={}", "x".repeat(10_000))).unwrap_err();
        assert!(long.to_string().len() < 400, "{long}");
    }
}
