//! Views of a working gateway: its flows, the client behind a connection, and the state of its services.
//!
//! It is pure: it takes data of the kernel and the record, and the time, and returns values that serialize to the
//! documented JSON. It knows neither how data are read nor how they are printed.

pub mod app;
pub mod changes;
pub mod condition;
pub mod drained;
pub mod drops;
pub mod facts;
pub mod flow_rates;
pub mod flows;
pub mod problems;
mod service_state;
pub mod snapshot;
pub mod snapshot_parts;
pub mod status;
pub mod tally;
pub mod totals;
pub mod totals_rates;
mod unmarked;
pub mod who;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::unmarked::UnmarkedFlows;
use crate::addon::id::PlatformId;
use crate::record::{ApplyNote, RecordedPause};
use tcpgw_core::model::FlowMark;
use tcpgw_core::owner::Owner;
use tcpgw_core::ruleset::skeleton;
use tcpgw_core::summary::{FlowVerdict, ServiceSummary, Summary};
use tcpgw_kernel::TableProperties;

/// Services of the gateway, as far as kernel and record tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServicesView {
    /// The services.
    pub summary: Summary,
    /// Backends in the kernel whose service is not known: they drain.
    pub unplaced: BTreeSet<SocketAddr>,
    /// The table, if there is one.
    pub table: Option<TableView>,
    /// Reason why the table's rules are not those of this program, if they are not.
    pub changed: Option<String>,
    /// Whether the rules were edited: they are not those of another version.
    pub is_edited: bool,
    /// The last apply that changed the table.
    pub applied: Option<ApplyNote>,
    /// Owners of the named services by the record, without those of a state file. `None`: the record has none, or a
    /// daemon knows them.
    pub owners: Option<BTreeMap<Box<str>, Owner>>,
    /// Paused services by the record; empty if a daemon knows them.
    pub pauses: Vec<RecordedPause>,
    /// Mark that the table gives its flows.
    pub mark: FlowMark,
    /// Mark in the configuration.
    pub configured: FlowMark,
}

/// The table in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableView {
    /// Handle of the table.
    pub handle: u64,
    /// Generation of the ruleset, of all tables in this network namespace together.
    pub generation: u32,
    /// Comment of the table: version of its rules, flow mark, and sizes of its sets.
    pub comment: Option<String>,
    /// Flags: `dormant`, `owner`, `persist`.
    pub flags: Vec<Cow<'static, str>>,
    /// Netlink port of the socket that owns it, usually a process id.
    pub owner: Option<u32>,
    /// Number of elements that its largest sets can hold before the table is replaced by one with larger sets.
    pub room: Option<u32>,
}

impl TableView {
    /// Returns the view of a table that the kernel has returned.
    pub fn new(about: TableProperties, generation: u32) -> Self {
        use tcpgw_core::ruleset::name::{Family, SetName};
        let names = [(1, "dormant"), (2, "owner"), (4, "persist")];
        let flags = names.into_iter().filter(|(bit, _)| about.flags & bit != 0);
        let room = about.comment.as_deref().and_then(skeleton::room_of);
        Self {
            handle: about.handle,
            generation,
            flags: flags.map(|(_, name)| name.into()).collect(),
            owner: about.owner,
            room: room.and_then(|room| room.size(SetName::Limited(Family::V4))),
            comment: about.comment,
        }
    }
}

impl ServicesView {
    /// Returns the owner of a service, as far as the record tells.
    pub fn owner(&self, name: &str) -> Option<Owner> {
        let owners = self.owners.as_ref()?;
        Some(owners.get(name).copied().unwrap_or(Owner::File))
    }

    /// Returns the verdict on a flow from `public` to `backend`.
    pub fn verdict(&self, public: SocketAddr, backend: SocketAddr) -> FlowVerdict {
        match self.summary.verdict(public, backend) {
            FlowVerdict::Stale if self.unplaced.contains(&backend) => FlowVerdict::Draining,
            known => known,
        }
    }
}

/// Name of a service on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceName {
    /// A name, or the app of a resource: `app:APP_ID`, which the daemon replaces by the name of its service.
    Name(Box<str>),
    /// A port, and an address for a service on chosen addresses: `:20003`, `203.0.113.1:20003`.
    ListensAt(Option<IpAddr>, u16),
}

impl std::str::FromStr for ServiceName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "must be a service's name, app:APP_ID, :PORT or ADDRESS:PORT";
        if let Some(app) = text.strip_prefix("app:") {
            let app: PlatformId = app.parse().map_err(|_| EXPECTED)?;
            return Ok(Self::Name(format!("app:{app}").into()));
        }
        if let Some(port) = text.strip_prefix(':') {
            let port = port.parse::<std::num::NonZeroU16>().map_err(|_| EXPECTED)?;
            return Ok(Self::ListensAt(None, port.get()));
        }
        if let Ok(at) = text.parse::<SocketAddr>() {
            return Ok(Self::ListensAt(Some(at.ip()), at.port()));
        }
        let is_name = !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
        if is_name {
            Ok(Self::Name(text.into()))
        } else {
            Err(EXPECTED)
        }
    }
}

impl std::fmt::Display for ServiceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::ListensAt(None, port) => write!(f, ":{port}"),
            Self::ListensAt(Some(address), port) => SocketAddr::new(*address, *port).fmt(f),
        }
    }
}

/// Parses an endpoint: `10.2.0.11:3000`, `[fd00::11]:3000`.
///
/// # Errors
/// Fails with a message about the accepted forms, when the text has none of them.
pub fn endpoint(text: &str) -> Result<SocketAddr, &'static str> {
    let endpoint: SocketAddr = text.parse().map_err(
        |_| "must be IP:PORT, an IPv6 address in brackets: 10.2.0.11:3000, [fd00::11]:3000 or [::ffff:10.2.0.1]:3000",
    )?;
    if endpoint.port() == 0 {
        return Err("port 0 is none");
    }
    // A server that listens on both families sees IPv4 as ::ffff:10.2.0.1.
    Ok(SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port()))
}

/// Reason why a name stands for no service.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoService {
    /// The name is that of no service.
    #[error("there is no service named \"{0}\" here; `tcpgw status` lists all services")]
    Name(Box<str>),
    /// The name is that of no service, and some services have no known name.
    #[error(
        "there is no service named \"{0}\" here, but the names of {1} are not known: there is no record of the apply that \
         made them; name it by its port, as :20003"
    )]
    Unnamed(Box<str>, usize),
    /// The port is that of no service.
    #[error("no service listens on port {0} here; `tcpgw status` lists all services")]
    ListensAt(u16),
}

impl ServiceName {
    /// Returns the service with this name.
    ///
    /// # Errors
    /// Fails with [`NoService`] when there is none.
    pub fn find<'a>(&self, summary: &'a Summary) -> Result<&'a ServiceSummary, NoService> {
        Ok(&summary.services[self.position(summary)?])
    }

    /// Returns the position of the service with this name.
    ///
    /// # Errors
    /// Fails with [`NoService`] when there is none.
    pub fn position(&self, summary: &Summary) -> Result<usize, NoService> {
        let is_it = |service: &ServiceSummary| match self {
            Self::Name(name) => service.name.as_ref() == Some(name),
            Self::ListensAt(address, port) => {
                let listens = |address| service.addresses.is_empty() || service.addresses.contains(address);
                service.port == *port && address.as_ref().is_none_or(listens)
            }
        };
        summary.services.iter().position(is_it).ok_or_else(|| {
            let unnamed = summary.services.iter().filter(|service| service.name.is_none()).count();
            match self {
                Self::ListensAt(_, port) => NoService::ListensAt(*port),
                Self::Name(name) if unnamed > 0 => NoService::Unnamed(name.clone(), unnamed),
                Self::Name(name) => NoService::Name(name.clone()),
            }
        })
    }
}

/// Whether conntrack records traffic and begins of flows; `None`: the setting could not be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConntrackSettings {
    /// Whether packets and bytes are counted: `net.netfilter.nf_conntrack_acct`.
    pub traffic: Option<bool>,
    /// Whether the start of flows is recorded: `net.netfilter.nf_conntrack_timestamp`.
    pub begin: Option<bool>,
}

/// A setting that would have to be switched on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// Data that are missing without it.
    pub missing: Vec<Cow<'static, str>>,
    /// The setting.
    pub sysctl: Cow<'static, str>,
}

impl std::fmt::Display for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "conntrack does not record {}; to record them for new connections: `sysctl -w {}`",
            self.missing.join(" and "),
            self.sysctl
        )
    }
}

impl ConntrackSettings {
    /// Returns a hint if packets and bytes are not counted.
    pub fn traffic_hint(self) -> Option<Hint> {
        (self.traffic == Some(false)).then_some(Hint {
            missing: vec!["packets".into(), "bytes".into()],
            sysctl: "net.netfilter.nf_conntrack_acct=1".into(),
        })
    }

    /// Returns hints for all data that are not recorded.
    pub fn hints(self) -> Vec<Hint> {
        let begin = (self.begin == Some(false)).then_some(Hint {
            missing: vec!["age".into()],
            sysctl: "net.netfilter.nf_conntrack_timestamp=1".into(),
        });
        self.traffic_hint().into_iter().chain(begin).collect()
    }
}

#[cfg(test)]
mod tests;
