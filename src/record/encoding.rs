//! The bytes of a record.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::record::head::RecordHead;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::name::{ListenScope, RoundRobinChain, SetName};
use tcpgw_core::ruleset::rows::Rows;
use tcpgw_core::ruleset::spec::SetSpec;

const MAGIC: &[u8; 8] = b"tcpgw-r1";

/// Record of what was put into the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// All but the elements.
    pub head: RecordHead,
    /// Elements of the sets.
    pub ruleset: Ruleset,
}

impl Record {
    /// Returns the bytes of the record.
    ///
    /// # Errors
    ///
    /// Never fails: a head is text and numbers.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        Ok(encode(Vec::new(), &self.head, &self.ruleset)?.0)
    }

    /// Reads a record; `None` if it is not whole, or not as it was written.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = checked(bytes)?;
        let head: RecordHead = serde_json::from_slice(take(&mut rest)?).ok()?;
        let mut sets = BTreeMap::new();
        loop {
            let name = take(&mut rest)?;
            if name.is_empty() {
                break;
            }
            let name = SetName::parse(std::str::from_utf8(name).ok()?)?;
            sets.insert(name, Rows::from_packed(&SetSpec::of(name), take(&mut rest)?.to_vec())?);
        }
        let mut round_robin_services = BTreeMap::new();
        loop {
            let listen_scope = take(&mut rest)?;
            if listen_scope.is_empty() {
                break;
            }
            let listen_scope = ListenScope::ALL
                .into_iter()
                .find(|known| known.to_string().as_bytes() == listen_scope)?;
            let key = take(&mut rest)?.into();
            round_robin_services.insert(
                (listen_scope, key),
                RoundRobinChain::parse(std::str::from_utf8(take(&mut rest)?).ok()?)?,
            );
        }
        rest.is_empty().then(|| Self {
            ruleset: Ruleset::new(sets, round_robin_services).with_timeouts(head.timeouts),
            head,
        })
    }
}

/// A writer that ends with the checksum of all that was written.
struct ChecksumWriter<W: Write> {
    file: W,
    checksum: crc32fast::Hasher,
}

impl<W: Write> Write for ChecksumWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.checksum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl<W: Write> ChecksumWriter<W> {
    fn finish(self) -> io::Result<(W, u32)> {
        let Self { mut file, checksum } = self;
        let checksum = checksum.finalize();
        file.write_all(&checksum.to_le_bytes())?;
        file.flush()?;
        Ok((file, checksum))
    }
}

pub(super) fn encode<W: Write>(file: W, head: &RecordHead, ruleset: &Ruleset) -> io::Result<(W, u32)> {
    let mut checked = ChecksumWriter {
        file,
        checksum: crc32fast::Hasher::new(),
    };
    encode_content(&mut checked, head, ruleset)?;
    checked.finish()
}

fn encode_content(out: &mut impl Write, head: &RecordHead, ruleset: &Ruleset) -> io::Result<()> {
    out.write_all(MAGIC)?;
    put(out, &serde_json::to_vec(head).map_err(io::Error::other)?)?;
    for (name, rows) in ruleset.sets() {
        put(out, name.to_string().as_bytes())?;
        put(out, rows.packed())?;
    }
    put(out, b"")?;
    for ((listen_scope, key), chain) in ruleset.round_robin_services() {
        put(out, listen_scope.to_string().as_bytes())?;
        put(out, key)?;
        put(out, chain.to_string().as_bytes())?;
    }
    put(out, b"")
}

fn put(out: &mut impl Write, part: &[u8]) -> io::Result<()> {
    out.write_all(&(part.len() as u64).to_le_bytes())?;
    out.write_all(part)
}

/// Returns the bytes after the magic, if the checksum is right. A process that may write here may write to the kernel,
/// too.
pub(super) fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (content, checksum) = bytes.split_last_chunk()?;
    let whole = crc32fast::hash(content) == u32::from_le_bytes(*checksum);
    content.strip_prefix(MAGIC).filter(|_| whole)
}

pub(super) fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (part, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(part)
}
