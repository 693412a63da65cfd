//! Keys of elements in nft's syntax.

use std::net::IpAddr;

use ipnet::IpNet;

use super::name::{Family, SetName};
use super::rows::{read_address, read_port};
use super::spec::{Field, SetSpec};

/// Returns a key in nft's syntax; `None` if it is too short for the set.
pub fn key(name: SetName, bytes: &[u8]) -> Option<String> {
    Some(fields(&SetSpec::of(name).key, bytes)?.join(" . "))
}

fn fields(fields: &[Field], mut bytes: &[u8]) -> Option<Vec<String>> {
    let mut texts = Vec::with_capacity(fields.len());
    for field in fields {
        let (part, rest) = bytes.split_at_checked(field.padded())?;
        texts.push(match field {
            Field::L4Proto => {
                if part[0] == 6 {
                    "tcp".into()
                } else {
                    part[0].to_string()
                }
            }
            Field::SourcePort | Field::DestPort | Field::ClientPort | Field::PublicPort | Field::BackendPort => {
                read_port(part).map_or(0, std::num::NonZeroU16::get).to_string()
            }
            Field::SourceAddress(family)
            | Field::DestAddress(family)
            | Field::ClientAddress(family)
            | Field::PublicAddress(family)
            | Field::BackendAddress(family) => read_address(*family, part)?.to_string(),
            Field::SourceNetwork => read_address(Family::V6, part)?.to_string(),
            Field::Slot | Field::FlowId => u32::from_ne_bytes(part.try_into().ok()?).to_string(),
            Field::InInterface | Field::OutInterface => {
                let name: Vec<u8> = part.iter().copied().take_while(|byte| *byte != 0).collect();
                format!("\"{}\"", String::from_utf8_lossy(&name))
            }
        });
        bytes = rest;
    }
    Some(texts)
}

/// Returns the network of an access list's row as a state has it: with its prefix, even for a single address.
pub fn network(name: SetName, row: &[u8]) -> Option<String> {
    let range = range(&SetSpec::of(name), row)?;
    let text = range.rsplit(" . ").next()?;
    Some(
        text.parse::<IpAddr>()
            .map_or_else(|_| text.to_owned(), |address| IpNet::from(address).to_string()),
    )
}

/// Returns a range in nft's syntax: the key's fields, the last of them as the range.
pub(crate) fn range(spec: &SetSpec, row: &[u8]) -> Option<String> {
    let (first, last) = row.get(..spec.identity_len())?.split_at(spec.key_len());
    let (mut texts, ends) = (fields(&spec.key, first)?, fields(&spec.key, last)?);
    let (low, high) = (texts.pop()?, ends.last()?.clone());
    let width = spec.key.last()?.padded();
    let (low_bytes, high_bytes) = (&first[first.len() - width..], &last[last.len() - width..]);
    let same = low_bytes
        .iter()
        .zip(high_bytes)
        .map(|(a, b)| (a ^ b).leading_zeros() as usize);
    let mut prefix = 0;
    for bits in same {
        prefix += bits;
        if bits < 8 {
            break;
        }
    }
    texts.push(match prefix {
        _ if low == high => low,
        prefix if prefix < width * 8 => format!("{low}/{prefix}"),
        _ => format!("{low}-{high}"),
    });
    Some(texts.join(" . "))
}
