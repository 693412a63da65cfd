//! Elements of one set, packed as a sorted table of rows of equal size.
//!
//! A gateway may hold a million elements; a packed row takes a few bytes, rows compare as `memcmp`, and two sets are
//! compared in one pass.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::slice::ChunksExact;

use super::scope::Family;
use super::spec::{LIMITS_LEN, SetSpec};
use crate::model::Endpoint;

/// Rows of one set: key, end of the range for interval sets, data, limits; in the form of the kernel: numbers
/// big-endian, every field padded to four bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    identity_len: usize,
    row_len: usize,
    bytes: Vec<u8>,
}

/// The two limits of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rate in packets per second.
    pub packet_rate: u64,
    /// Burst in packets.
    pub packet_burst: u32,
    /// Rate in bytes per second.
    pub byte_rate: u64,
    /// Burst in bytes, above one second's rate.
    pub byte_burst: u32,
}

impl Limits {
    /// Returns the limits in the form of a row.
    pub fn to_bytes(self) -> [u8; LIMITS_LEN] {
        let mut bytes = [0; LIMITS_LEN];
        bytes[..8].copy_from_slice(&self.packet_rate.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.packet_burst.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.byte_rate.to_be_bytes());
        bytes[20..].copy_from_slice(&self.byte_burst.to_be_bytes());
        bytes
    }

    /// Reads the limits from the end of a row.
    pub fn from_bytes(bytes: [u8; LIMITS_LEN]) -> Self {
        let [
            p0,
            p1,
            p2,
            p3,
            p4,
            p5,
            p6,
            p7,
            q0,
            q1,
            q2,
            q3,
            b0,
            b1,
            b2,
            b3,
            b4,
            b5,
            b6,
            b7,
            c0,
            c1,
            c2,
            c3,
        ] = bytes;
        Self {
            packet_rate: u64::from_be_bytes([p0, p1, p2, p3, p4, p5, p6, p7]),
            packet_burst: u32::from_be_bytes([q0, q1, q2, q3]),
            byte_rate: u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
            byte_burst: u32::from_be_bytes([c0, c1, c2, c3]),
        }
    }
}

/// Difference between two sets in one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference<'a> {
    /// Row that only the first set has.
    Gone(&'a [u8]),
    /// Row that only the second set has.
    New(&'a [u8]),
    /// Row of the first set and row of the second one, which has other data or limits.
    Changed(&'a [u8], &'a [u8]),
}

impl Rows {
    /// Creates an empty list of rows for this kind of set.
    pub fn new(spec: &SetSpec) -> Self {
        Self {
            identity_len: spec.identity_len(),
            row_len: spec.row_len(),
            bytes: Vec::new(),
        }
    }

    /// Creates rows from packed bytes; `None` if the bytes are not whole rows in order with each identity once.
    pub fn from_packed(spec: &SetSpec, bytes: Vec<u8>) -> Option<Self> {
        let rows = Self {
            bytes,
            ..Self::new(spec)
        };
        (rows.bytes.len().is_multiple_of(rows.row_len) && rows.is_sorted()).then_some(rows)
    }

    /// Returns the packed bytes.
    pub fn packed(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds a row that consists of these parts in this order. Call [`Self::sort`] when all rows are added.
    ///
    /// # Panics
    ///
    /// Panics if the parts do not add up to a row. This is a mistake in the program; no input causes it.
    pub fn push(&mut self, parts: &[&[u8]]) {
        let before = self.bytes.len();
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        assert_eq!(self.bytes.len() - before, self.row_len, "a row of another set");
    }

    /// Brings the rows into order.
    pub fn sort(&mut self) {
        if self.is_sorted() {
            return;
        }
        let mut order: Vec<&[u8]> = self.iter().collect();
        order.sort_unstable();
        order.dedup();
        self.bytes = order.concat();
    }

    /// Returns whether the rows are in order, each identity once.
    pub fn is_sorted(&self) -> bool {
        self.iter()
            .zip(self.iter().skip(1))
            .all(|(a, b)| a[..self.identity_len] < b[..self.identity_len])
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.row_len
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns all rows, in order.
    pub fn iter(&self) -> ChunksExact<'_, u8> {
        self.bytes.chunks_exact(self.row_len)
    }

    /// Returns whether a row has this identity.
    pub fn contains(&self, identity: &[u8]) -> bool {
        self.find(identity).is_some()
    }

    /// Returns the row with this identity.
    pub fn find(&self, identity: &[u8]) -> Option<&[u8]> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            let row = &self.bytes[middle * self.row_len..][..self.row_len];
            match row[..self.identity_len].cmp(identity) {
                std::cmp::Ordering::Equal => return Some(row),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// Returns the rows of both sets without equal blocks at the front and at the end: most changes are small.
    fn without_common_ends<'a>(&'a self, other: &'a Self) -> (ChunksExact<'a, u8>, ChunksExact<'a, u8>) {
        let block = self.row_len * 128;
        let (mut ours, mut theirs) = (self.packed(), other.packed());
        while let (Some((a, a_rest)), Some((b, b_rest))) =
            (ours.split_at_checked(block), theirs.split_at_checked(block))
            && a == b
        {
            (ours, theirs) = (a_rest, b_rest);
        }
        let split_last = |rows: &'a [u8]| rows.split_at_checked(rows.len().checked_sub(block)?);
        while let (Some((a_rest, a)), Some((b_rest, b))) = (split_last(ours), split_last(theirs))
            && a == b
        {
            (ours, theirs) = (a_rest, b_rest);
        }
        (ours.chunks_exact(self.row_len), theirs.chunks_exact(self.row_len))
    }

    /// Calls `each` with every difference, in the order of identities.
    pub fn differences<'a>(&'a self, other: &'a Self, mut each: impl FnMut(Difference<'a>)) {
        let (ours, theirs) = self.without_common_ends(other);
        let (mut ours, mut theirs) = (ours.peekable(), theirs.peekable());
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (None, None) => return,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(a), Some(b)) => a[..self.identity_len].cmp(&b[..self.identity_len]),
            };
            let a = if order.is_le() { ours.next() } else { None };
            let b = if order.is_ge() { theirs.next() } else { None };
            match (a, b) {
                (Some(a), None) => each(Difference::Gone(a)),
                (None, Some(b)) => each(Difference::New(b)),
                (Some(a), Some(b)) if a != b => each(Difference::Changed(a, b)),
                _ => {}
            }
        }
    }
}

impl<'a> IntoIterator for &'a Rows {
    type Item = &'a [u8];
    type IntoIter = ChunksExact<'a, u8>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Returns a port as a key field.
pub fn port_bytes(port: NonZeroU16) -> [u8; 4] {
    let [high, low] = port.get().to_be_bytes();
    [high, low, 0, 0]
}

/// Returns address and port as a key or as data: the bytes, and how many of them are used.
pub fn endpoint_bytes(endpoint: Endpoint) -> ([u8; 20], usize) {
    let mut bytes = [0; 20];
    let len = match endpoint.address {
        IpAddr::V4(address) => {
            bytes[..4].copy_from_slice(&address.octets());
            4
        }
        IpAddr::V6(address) => {
            bytes[..16].copy_from_slice(&address.octets());
            16
        }
    };
    bytes[len..len + 4].copy_from_slice(&port_bytes(endpoint.port));
    (bytes, len + 4)
}

/// Reads an address from the front of a key.
pub fn read_address(family: Family, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        Family::V4 => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?))),
        Family::V6 => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(..16)?).ok()?))),
    }
}

/// Reads a port from the front of a key.
pub fn read_port(bytes: &[u8]) -> Option<NonZeroU16> {
    NonZeroU16::new(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?))
}

/// Reads an endpoint from the front of a key or of data.
pub fn read_endpoint(family: Family, bytes: &[u8]) -> Option<Endpoint> {
    let address = read_address(family, bytes)?;
    let port = read_port(bytes.get(family.address_len()..)?)?;
    Some(Endpoint { address, port })
}
