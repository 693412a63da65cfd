//! The bytes of a ledger, for the next daemon.
//!
//! They hold the totals, and the kernel's numbers at the last sample: what was gained while no daemon ran is not lost,
//! as far as the kernel still knows it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::flow_sums::FlowSums;
use super::known_flows::{KnownFlows, WrittenFlows};
use super::ledger::{Bases, Ledger};
use super::totals::ServiceTotals;
use tcpgw_core::ruleset::name::SetName;

/// First bytes of the file: its format and version.
const MAGIC: &[u8; 8] = b"tcpgw-t1";

/// Values of a set's counters by key, of the type `K`.
type CounterValues<K> = Vec<(K, u64)>;

/// The ledger as it is written. Many services take too long to copy.
#[derive(Serialize)]
struct Written<'l> {
    boot: &'l str,
    table: Option<u64>,
    bases: Vec<(String, CounterValues<&'l [u8]>)>,
    services: BTreeMap<&'l str, &'l ServiceTotals>,
    ended: &'l BTreeMap<Box<str>, BTreeMap<SocketAddr, FlowSums>>,
    known: WrittenFlows,
}

/// The ledger as it is read: the fields of [`Written`].
#[derive(Deserialize)]
struct Kept {
    /// Boot of the machine, without which the kernel's numbers mean nothing.
    boot: String,
    table: Option<u64>,
    bases: Vec<(String, CounterValues<Vec<u8>>)>,
    services: BTreeMap<Box<str>, ServiceTotals>,
    ended: BTreeMap<Box<str>, BTreeMap<SocketAddr, FlowSums>>,
    /// An earlier version has not written it.
    #[serde(default)]
    known: WrittenFlows,
}

impl Ledger {
    /// Returns the bytes of the ledger. `boot` names the machine's present boot.
    ///
    /// # Errors
    /// Never fails: a ledger is text and numbers.
    pub fn encode(&self, boot: &str) -> serde_json::Result<Vec<u8>> {
        let bases = self.bases.iter().map(|(set, bases)| {
            let bases = bases.iter().map(|(key, base)| (&**key, *base));
            (set.to_string(), bases.collect())
        });
        let services = self.services.iter().map(|(name, totals)| (&**name, &**totals));
        let written = Written {
            boot,
            table: self.table,
            bases: bases.collect(),
            services: services.collect(),
            ended: &self.ended,
            known: self.known.written(),
        };
        let mut bytes = MAGIC.to_vec();
        serde_json::to_writer(&mut bytes, &written)?;
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        Ok(bytes)
    }

    /// Reads a ledger; `None` if the bytes are not whole, not as they were written, or of another boot: the machine and
    /// all of its counters have begun anew then.
    pub fn decode(bytes: &[u8], boot: &str) -> Option<Self> {
        let (content, checksum) = bytes.split_last_chunk()?;
        let whole = crc32fast::hash(content) == u32::from_le_bytes(*checksum);
        let text = content.strip_prefix(MAGIC).filter(|_| whole)?;
        let kept: Kept = serde_json::from_slice(text).ok()?;
        if kept.boot != boot {
            return None;
        }
        let mut bases = Bases::new();
        for (set, keys) in kept.bases {
            let keys = keys.into_iter().map(|(key, base)| (key.into(), base));
            bases.insert(SetName::parse(&set)?, keys.collect());
        }
        let mut ledger = Self::new();
        ledger.table = kept.table;
        ledger.bases = bases;
        let services = kept.services.into_iter();
        ledger.services = services.map(|(name, totals)| (name, Arc::new(totals))).collect();
        ledger.ended = kept.ended;
        ledger.known = KnownFlows::read(kept.known);
        Some(ledger)
    }
}
