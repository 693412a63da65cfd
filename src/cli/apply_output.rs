//! JSON output of `apply` and `diff`: the report, and the result for connections of denied clients.

use serde::Serialize;

use super::denied::DeniedCounts;
use super::failure::Failure;
use super::print::print_json;

/// The JSON of `tcpgw apply -o json` and `diff -o json`, with and without a daemon.
#[derive(Serialize)]
pub(super) struct ReportJson<'r, R> {
    #[serde(flatten)]
    pub(super) report: &'r R,
    #[serde(flatten)]
    pub(super) denied: DeniedCounts,
    /// Services of other providers that stay; `None` for commands that change nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kept: Option<Vec<&'r str>>,
}

impl<R: Serialize> ReportJson<'_, R> {
    /// Prints the report, with the keys in the same order as by a daemon.
    pub(super) fn print(&self) -> Result<(), Failure> {
        let value = serde_json::to_value(self).map_err(|error| Failure::Io {
            what: "write JSON",
            source: error.into(),
        })?;
        print_json(&value)
    }
}
