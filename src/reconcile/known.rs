//! Contents of the kernel, read or taken from the record.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::record::{ApplyNote, Deadline, RecordHead, RecordedPause};
use crate::store::last_services::LastServices;
use tcpgw_core::owner::{AllDetails, Owner};
use tcpgw_core::ruleset::name::{Family, SetName};
use tcpgw_core::ruleset::room::Room;
use tcpgw_core::ruleset::timeouts::KernelTimeouts;
use tcpgw_core::ruleset::{Ruleset, skeleton};
use tcpgw_core::summary::Summary;
use tcpgw_kernel::RulesetIdentity;

/// Contents of the kernel, as far as they are known.
#[derive(Debug, Clone)]
pub struct KnownContents {
    /// Generation at which the contents were read.
    pub(super) generation: u32,
    pub(super) table: KnownTable,
    /// Contents of the sets.
    pub(super) ruleset: Ruleset,
    /// Sizes of the sets.
    pub(super) room: Room,
    /// The services, with names and draining backends as far as the record tells them.
    pub summary: Summary,
    /// Contents of the record, if there is one of this boot, whether the kernel agrees with it or not.
    pub recorded: Option<RecordedContents>,
    /// Whether the flows were swept since.
    pub(super) swept: bool,
    pub(super) trusted: bool,
}

/// Contents of a record about services, of any version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedContents {
    /// The services that were served.
    pub summary: Summary,
    /// Owners of the services; `None` in a record of an earlier build.
    pub details: Option<AllDetails>,
    /// Services that were served before the last changes, and no longer there after them. The kernel holds one still if such a
    /// change was not made, or by half.
    pub left: Summary,
    /// Ends of drains.
    pub deadlines: Vec<Deadline>,
    /// Services whose new connections are held back.
    pub pauses: Vec<RecordedPause>,
    /// The last change.
    pub applied: Option<ApplyNote>,
}

impl From<RecordHead> for RecordedContents {
    fn from(head: RecordHead) -> Self {
        Self {
            summary: head.summary,
            details: head.details,
            left: head.left,
            deadlines: head.deadlines,
            pauses: head.pauses,
            applied: head.applied,
        }
    }
}

impl RecordedContents {
    /// Returns when it was so, by the clock that counts from the machine's start (`CLOCK_BOOTTIME`).
    pub fn known(&self) -> Duration {
        self.applied.as_ref().map_or(Duration::ZERO, |applied| applied.known)
    }

    /// Returns a summary of what may be in the kernel.
    pub(super) fn guide(&self) -> Summary {
        let mut guide = self.summary.clone();
        guide.complete_by_listen_keys(&self.left);
        guide
    }

    /// Returns whether a service of this name was in effect and not removed.
    fn serves(&self, name: &str) -> bool {
        let mut services = self.summary.services.iter();
        let details = self.details.as_ref().and_then(|details| details.get(name));
        services.any(|service| service.name.as_deref() == Some(name))
            && details.is_none_or(|details| details.owner != Owner::Removed)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KnownTable {
    Absent,
    Ours(u64),
    Other(Option<String>),
    /// The table has the right rules, but was created without the flag `persist`, and is to be owned.
    Plain,
}

impl KnownContents {
    /// Returns whether new connections from outside reach backends through services only.
    pub fn protects(&self) -> bool {
        self.ruleset.protects()
    }

    /// Returns the present timeouts of conntrack, if the table exists.
    pub fn timeouts(&self) -> Option<&KernelTimeouts> {
        matches!(self.table, KnownTable::Ours(_)).then(|| self.ruleset.timeouts())
    }

    /// Returns whether the elements that depend on the gateway's links differ from the desired ones.
    pub fn has_other_links(&self, desired: &Ruleset) -> bool {
        let of_links = Family::BOTH.map(SetName::LinkSources);
        let differs = |name: SetName| self.ruleset.rows(name) != desired.rows(name);
        differs(SetName::SameLink) || of_links.into_iter().any(differs)
    }

    /// Returns the services of `last`, which was written in this boot, that belong to no state file and are missing in
    /// the kernel, for example because another program removed the table. A service that was not held back and that the record does
    /// not have was removed by its provider, unless the record is older than `last`, because it could not be written.
    pub fn lost<'a>(&'a self, last: &'a LastServices) -> impl Iterator<Item = (Owner, &'a str)> {
        let found: BTreeSet<&str> = self
            .summary
            .services
            .iter()
            .filter_map(|of| of.name.as_deref())
            .collect();
        let of_others = last.services.iter().filter(|(owner, _)| *owner != Owner::File);
        let names = of_others.map(|(owner, service)| (*owner, &*service.name));
        names.filter(move |(_, name)| {
            let recorded = self.recorded.as_ref();
            let is_recorded = |recorded: &RecordedContents| recorded.serves(name) || recorded.known() < last.known;
            let is_wanted = last.unserved.contains(*name) || recorded.is_none_or(is_recorded);
            is_wanted && !found.contains(name)
        })
    }

    /// Returns the known contents after a commit, for the record.
    pub(super) fn left(generation: u32, table: u64, room: Room) -> Self {
        Self {
            generation,
            table: KnownTable::Ours(table),
            ruleset: Ruleset::default(),
            room,
            summary: Summary::default(),
            recorded: None,
            swept: true,
            trusted: true,
        }
    }

    /// Returns whether a table of tcpgw exists.
    pub fn has_table(&self) -> bool {
        self.table != KnownTable::Absent
    }

    /// Returns the identity of the kernel's rules at that time; a table with other rules has none.
    pub(super) fn identity(&self) -> RulesetIdentity {
        let table = match self.table {
            KnownTable::Ours(handle) => Some(handle),
            KnownTable::Absent | KnownTable::Other(_) | KnownTable::Plain => None,
        };
        RulesetIdentity {
            generation: self.generation,
            table,
        }
    }

    /// Returns whether the table's comment is of this version although its rules differ.
    pub fn is_edited(&self) -> bool {
        let own = format!("{},", skeleton::name());
        matches!(&self.table, KnownTable::Other(Some(comment)) if comment.starts_with(&own))
    }

    /// Returns the reason why the table has to be created again, if there is one.
    pub fn rebuild(&self) -> Option<String> {
        match &self.table {
            KnownTable::Other(comment) => Some(match comment {
                Some(_) if self.is_edited() => "another program changed the rules of the table in the kernel".into(),
                Some(comment) => format!("the table in the kernel has other rules ({comment})"),
                None => "the table in the kernel has other rules".into(),
            }),
            KnownTable::Plain => Some("the table could not be taken over: it was made without the flag persist".into()),
            KnownTable::Absent | KnownTable::Ours(_) => None,
        }
    }
}
