//! Connections that the flow log lacks, by the reason why.

use std::fmt;

/// Numbers of connections without a line since the daemon began to write the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::daemon) struct MissingLines {
    /// Lines that could not be written, and the last reason.
    pub(super) unwritten: u64,
    pub(super) reason: String,
    /// Records for which the queue, or journald, had no room.
    pub(super) late: u64,
    /// Overruns of the kernel's queue of reports: each stands for one connection or more.
    pub(super) unread: u64,
}

impl MissingLines {
    /// Returns the number of all, or a smaller one where the kernel does not say how many.
    pub(in crate::daemon) fn all(&self) -> u64 {
        self.unwritten.saturating_add(self.late).saturating_add(self.unread)
    }
}

impl fmt::Display for MissingLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, or_more) = (self.all(), if self.unread > 0 { " or more" } else { "" });
        let connections = if number == 1 { "connection" } else { "connections" };
        let are = if number == 1 && self.unread == 0 { "is" } else { "are" };
        write!(f, "{number} {connections}{or_more} {are} missing in the flow log: ")?;
        let mut reasons = Vec::new();
        if self.unwritten > 0 {
            reasons.push(format!("{} could not be written ({})", self.unwritten, self.reason));
        }
        if self.late > 0 {
            reasons.push(format!("{} ended faster than they could be written", self.late));
        }
        if self.unread > 0 {
            let text = "or more ended faster than the kernel's reports of them could be read";
            reasons.push(format!("{} {text}", self.unread));
        }
        f.write_str(&reasons.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_number() {
        let mut missing = MissingLines {
            unwritten: 26,
            reason: "/log: No space left on device (os error 28)".into(),
            ..MissingLines::default()
        };
        assert_eq!(
            missing.to_string(),
            "26 connections are missing in the flow log: 26 could not be written (/log: No space left on device (os error 28))"
        );
        missing.late = 2;
        missing.unread = 1;
        assert_eq!(missing.all(), 29);
        let text = missing.to_string();
        assert!(
            text.starts_with("29 connections or more are missing in the flow log: 26 could"),
            "{text}"
        );
        assert!(
            text.ends_with(
                ", 2 ended faster than they could be written, 1 or more ended faster than the kernel's reports of them could be read"
            ),
            "{text}"
        );
    }
}
