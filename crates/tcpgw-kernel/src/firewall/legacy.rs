//! The older kind of iptables, whose rules only its own program can read.

use std::time::Duration;
use std::{fs, io};

use thiserror::Error;

use super::program::{self, Bounds};
use super::save::parse;
use super::{FirewallChain, TableFamily};
use crate::netlink::error::NetlinkError;

/// Bounds of the program that prints the rules: a hundred thousand rules are some 10 MB, and take a second.
pub(super) const BOUNDS: Bounds = Bounds {
    time: Duration::from_secs(5),
    bytes: 64 << 20,
};

/// Reason why the rules of iptables-legacy could not be read.
#[derive(Debug, Error)]
pub enum LegacyError {
    /// The list of tables could not be read.
    #[error("failed to read {path}: {source}")]
    Names {
        /// Path of the list.
        path: &'static str,
        /// Error of reading it.
        source: io::Error,
    },
    /// Tables exist, and the program that reads them does not.
    #[error(
        "there are iptables-legacy tables ({tables}), and {program} is not installed to read them with (`apt-get install iptables`)"
    )]
    Missing {
        /// Names of the tables.
        tables: String,
        /// Name of the program.
        program: &'static str,
    },
    /// The program failed.
    #[error("{program} failed: {reason}")]
    Failed {
        /// Name of the program.
        program: &'static str,
        /// Error that the program reported.
        reason: String,
    },
    /// The request to the kernel failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

fn names_file(family: TableFamily) -> &'static str {
    match family {
        TableFamily::Ip6 => "/proc/thread-self/net/ip6_tables_names",
        _ => "/proc/thread-self/net/ip_tables_names",
    }
}

/// Returns whether iptables-legacy has its table `nat` in this network namespace.
///
/// # Errors
///
/// Fails when the kernel's list of tables cannot be read, which only root may do.
pub fn has_legacy_nat(family: TableFamily) -> io::Result<bool> {
    match fs::read_to_string(names_file(family)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other.map(|names| names.lines().any(|name| name == "nat")),
    }
}

/// Returns the chains of iptables-legacy; none if the kernel has no such tables in this network namespace. If it has,
/// this runs a program, for at most 5 s.
///
/// # Errors
///
/// Fails with [`LegacyError`] when the list of tables cannot be read or the program fails.
pub fn legacy(family: TableFamily) -> Result<Vec<FirewallChain>, LegacyError> {
    // They are listed only once they were used, and only root may look.
    let path = names_file(family);
    let program = match family {
        TableFamily::Ip6 => "ip6tables-legacy-save",
        _ => "iptables-legacy-save",
    };
    let names = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|source| LegacyError::Names { path, source })?,
    };
    if names.trim().is_empty() {
        return Ok(Vec::new());
    }
    let finished = program::run(program, &[], BOUNDS);
    let finished = finished.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => LegacyError::Missing {
            tables: names.split_whitespace().collect::<Vec<_>>().join(", "),
            program,
        },
        _ => LegacyError::Failed {
            program,
            reason: source.to_string(),
        },
    })?;
    if !finished.status.success() {
        return Err(LegacyError::Failed {
            program,
            reason: tcpgw_core::escape::text(String::from_utf8_lossy(&finished.error).trim()),
        });
    }
    Ok(parse(family, &String::from_utf8_lossy(&finished.output)))
}
