//! Reads the elements of the table's sets, and what packets have counted in them.

use std::collections::BTreeMap;

use nix::errno::Errno;

use crate::Counted;
use crate::netlink::error::NetlinkError;
use crate::netlink::exchange::NetlinkExchange;
use crate::netlink::tlv::{Attrs, Malformed};
use crate::nftables::compare::alien;
use crate::nftables::message::{body, request};
use crate::nftables::nft::{self, elem, expr, msg};
use crate::nftables::skeleton::TABLE;
use crate::nftables::survey::Survey;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::name::{RoundRobinChain, SetName};
use tcpgw_core::ruleset::rows::{Limits, Rows};
use tcpgw_core::ruleset::spec::{Payload, SetSpec};

/// Reads the elements of all sets in `found` that are not counters, and tells whether all of them have the shape that this program
/// gives them.
///
/// # Errors
/// Fails when the kernel refuses a request or its answer cannot be read: see [`NetlinkExchange::dump`]. Fails with
/// [`NetlinkError::Interrupted`] when a dump lists a key with two values.
pub fn elements(socket: &mut impl NetlinkExchange, found: &Survey) -> Result<(Ruleset, bool), NetlinkError> {
    let mut sets = BTreeMap::new();
    let mut round_robin_services = BTreeMap::new();
    let mut all_ours = true;
    for name in found.sets.iter().copied().filter(|name| !name.is_counter()) {
        let spec = SetSpec::of(name);
        if let SetName::RoundRobin(listen_scope) = name {
            dump_elements(socket, name, |element| {
                let key = element.key.filter(|key| key.len() == spec.key_len());
                if let (Some(key), Some(chain)) = (key, element.chain.and_then(RoundRobinChain::parse)) {
                    round_robin_services.insert((listen_scope, key.into()), chain);
                } else {
                    all_ours = alien("element of set", Some(&name.to_string()));
                }
            })?;
            continue;
        }
        let mut rows = Rows::new(&spec);
        dump_elements(socket, name, |element| {
            if !element.push_to(&mut rows, &spec) {
                all_ours = alien("element of set", Some(&name.to_string()));
            }
        })?;
        rows.sort();
        if !rows.is_sorted() {
            // At one moment it can only list the same element again, as it does while it enlarges a set.
            return Err(NetlinkError::Interrupted);
        }
        sets.insert(name, rows);
    }
    let ruleset = Ruleset::new(sets, round_robin_services)
        .among(&found.widths(), &found.round_robin_chains, &found.optional_sets)
        .with_timeouts(found.timeouts);
    Ok((ruleset, all_ours))
}

/// Reads what packets have counted in a set, by key.
///
/// # Errors
/// Fails when the kernel refuses the request or its answer cannot be read: see [`NetlinkExchange::dump`].
pub fn counted(socket: &mut impl NetlinkExchange, name: SetName) -> Result<Vec<Counted>, NetlinkError> {
    let mut counted = Vec::new();
    dump_elements(socket, name, |element| {
        if let Some(key) = element.key {
            let (packets, bytes) = element.counter.unwrap_or_default();
            counted.push(Counted {
                key: key.into(),
                packets,
                bytes,
            });
        }
    })?;
    Ok(counted)
}

/// Returns the packets and bytes that are counted under one key, with one look-up, however large the set is. `None`: nothing is
/// counted, or there is no such set.
///
/// # Errors
/// Fails when the kernel refuses the request or its answer cannot be read: see
/// [`NetlinkExchange::request`].
pub fn counter(
    socket: &mut impl NetlinkExchange,
    name: SetName,
    key: &[u8],
) -> Result<Option<(u64, u64)>, NetlinkError> {
    let mut counter = None;
    let answer = socket.request(
        "look up an element of a set",
        |writer, seq| {
            request(writer, msg::GET_ELEM, nft::F_ACK, seq, |writer| {
                writer.str(elem::LIST_TABLE, TABLE);
                writer.str(elem::LIST_SET, &name.to_string());
                writer.nest(elem::LIST_ELEMENTS, |writer| {
                    writer.nest(nft::LIST_ELEM, |writer| {
                        writer.nest(elem::KEY, |writer| writer.attr(elem::VALUE, key));
                    });
                });
            });
        },
        |message| {
            let Some(list) = Attrs::new(body(message)).first(elem::LIST_ELEMENTS)? else {
                return Ok(());
            };
            for attr in Attrs::new(list.payload) {
                let element = DecodedElement::read(attr?.payload)?;
                if element.key == Some(key) {
                    counter = element.counter;
                }
            }
            Ok(())
        },
    );
    match answer {
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
        answer => answer.map(|()| counter),
    }
}

fn dump_elements(
    socket: &mut impl NetlinkExchange,
    name: SetName,
    mut each: impl FnMut(&DecodedElement<'_>),
) -> Result<(), NetlinkError> {
    socket.dump(
        "list the elements of a set",
        |writer, seq| {
            request(writer, msg::GET_ELEM, nft::F_DUMP, seq, |writer| {
                writer.str(elem::LIST_TABLE, TABLE);
                writer.str(elem::LIST_SET, &name.to_string());
            });
        },
        |message| {
            let Some(list) = Attrs::new(body(message)).first(elem::LIST_ELEMENTS)? else {
                return Ok(());
            };
            for attr in Attrs::new(list.payload) {
                each(&DecodedElement::read(attr?.payload)?);
            }
            Ok(())
        },
    )
}

#[derive(Default)]
struct DecodedElement<'a> {
    key: Option<&'a [u8]>,
    end: Option<&'a [u8]>,
    data: Option<&'a [u8]>,
    chain: Option<&'a str>,
    limits: Option<Limits>,
    counter: Option<(u64, u64)>,
}

impl<'a> DecodedElement<'a> {
    fn read(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut element = Self::default();
        for attr in Attrs::new(payload) {
            let attr = attr?;
            let value = |kind| Attrs::new(attr.payload).first(kind);
            match attr.kind {
                elem::KEY => element.key = value(elem::VALUE)?.map(|value| value.payload),
                elem::KEY_END => element.end = value(elem::VALUE)?.map(|value| value.payload),
                elem::DATA => {
                    element.data = value(elem::VALUE)?.map(|value| value.payload);
                    element.chain = value(elem::VERDICT)?
                        .map(|verdict| read_goto(verdict.payload))
                        .transpose()?
                        .flatten();
                }
                elem::EXPR => element.counter = read_counter(attr.payload)?,
                elem::EXPRESSIONS => element.limits = read_limits(attr.payload)?,
                _ => {}
            }
        }
        Ok(element)
    }

    /// Appends the element to the rows, and returns whether it has their form. Limits of another form are read as
    /// zeros: such a row differs from the desired one, and so is replaced.
    fn push_to(&self, rows: &mut Rows, spec: &SetSpec) -> bool {
        let key = self.key.filter(|key| key.len() == spec.key_len());
        let end = if spec.interval {
            self.end.or(self.key)
        } else {
            Some(&[][..])
        };
        let data = if spec.data_len() > 0 { self.data } else { Some(&[][..]) };
        let limits = self
            .limits
            .unwrap_or(Limits {
                packet_rate: 0,
                packet_burst: 0,
                byte_rate: 0,
                byte_burst: 0,
            })
            .to_bytes();
        let limits = if spec.payload == Payload::Limits {
            &limits[..]
        } else {
            &[]
        };
        let (Some(key), Some(end), Some(data)) = (key, end, data) else {
            return false;
        };
        let fits = key.len() + end.len() == spec.identity_len() && data.len() == spec.data_len();
        if fits {
            rows.push(&[key, end, data, limits]);
        }
        fits
    }
}

/// Returns the chain that a verdict goes to; `None` for a verdict that is no goto.
fn read_goto(verdict: &[u8]) -> Result<Option<&str>, Malformed> {
    match Attrs::new(verdict).first(elem::VERDICT_CODE)? {
        Some(code) if code.be32()? == elem::GOTO => Attrs::new(verdict)
            .first(elem::VERDICT_CHAIN)?
            .map(|chain| chain.str())
            .transpose(),
        _ => Ok(None),
    }
}

fn read_counter(payload: &[u8]) -> Result<Option<(u64, u64)>, Malformed> {
    let Some(data) = Attrs::new(payload).first(expr::DATA)? else {
        return Ok(None);
    };
    let number = |kind| Attrs::new(data.payload).first(kind)?.map_or(Ok(0), |attr| attr.be64());
    Ok(Some((number(expr::COUNTER_PACKETS)?, number(expr::COUNTER_BYTES)?)))
}

fn read_limits(payload: &[u8]) -> Result<Option<Limits>, Malformed> {
    let (mut packets, mut bytes) = (None, None);
    for expression in Attrs::new(payload) {
        let Some(data) = Attrs::new(expression?.payload).first(expr::DATA)? else {
            continue;
        };
        let value = |kind| Attrs::new(data.payload).first(kind);
        let rate = value(expr::LIMIT_RATE)?.map_or(Ok(0), |attr| attr.be64())?;
        let burst = value(expr::LIMIT_BURST)?.map_or(Ok(0), |attr| attr.be32())?;
        match value(expr::LIMIT_TYPE)?.map_or(Ok(0), |attr| attr.be32())? {
            expr::LIMIT_PACKETS => packets = Some((rate, burst)),
            _ => bytes = Some((rate, burst)),
        }
    }
    Ok(packets
        .zip(bytes)
        .map(|((packet_rate, packet_burst), (byte_rate, byte_burst))| Limits {
            packet_rate,
            packet_burst,
            byte_rate,
            byte_burst,
        }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::recorded::RecordedAnswers;
    use crate::netlink::tlv::written;
    use crate::netlink::tlv::{Header, Writer};
    use crate::nftables::sets;
    use tcpgw_core::ruleset::name::{Family as Ip, ListenScope};

    #[test]
    fn elements_of_another_shape_are_not_ours() {
        let element = |key: &[u8], data: Option<&[u8]>| {
            written(|writer| {
                writer.nest(elem::KEY, |writer| writer.attr(elem::VALUE, key));
                if let Some(data) = data {
                    writer.nest(elem::DATA, |writer| writer.attr(elem::VALUE, data));
                }
            })
        };
        let spec = SetSpec::of(SetName::Slots(ListenScope::Any(Ip::V4)));
        for (key, data, fits) in [
            (8, Some(8), true),
            (8, Some(4), false),
            (8, None, false),
            (4, Some(8), false),
            (0, Some(8), false),
        ] {
            let payload = element(&vec![1; key], data.map(|len| vec![2; len]).as_deref());
            let mut rows = Rows::new(&spec);
            assert_eq!(DecodedElement::read(&payload).unwrap().push_to(&mut rows, &spec), fits);
            assert_eq!(rows.len(), usize::from(fits));
        }
        let mut rows = Rows::new(&spec);
        assert!(!DecodedElement::read(&[]).unwrap().push_to(&mut rows, &spec));
    }

    #[test]
    fn an_element_may_be_listed_twice_but_not_with_two_values() {
        let name = SetName::Slots(ListenScope::Any(Ip::V4));
        let found = Survey {
            sets: [name].into(),
            ..Survey::default()
        };
        let read = |values: &[u8]| {
            let mut writer = Writer::new();
            request(&mut writer, msg::NEW_ELEM, 0, 1, |writer| {
                writer.nest(elem::LIST_ELEMENTS, |writer| {
                    for value in values {
                        sets::write_element(writer, &SetSpec::of(name), &[&[1; 8][..], &[*value; 8]].concat(), false);
                    }
                });
            });
            let end = writer.begin_plain(Header {
                kind: 3,
                flags: 0,
                seq: 1,
            });
            writer.raw(&[0; 4]);
            writer.end(end);
            let answers = writer.finish().unwrap();
            elements(&mut RecordedAnswers::new(&answers), &found).map(|(ruleset, _)| ruleset.len())
        };
        assert_eq!(read(&[2, 2]).unwrap(), 1);
        assert!(matches!(read(&[2, 3]), Err(NetlinkError::Interrupted)));
    }

    #[test]
    fn only_a_goto_leads_to_a_chain() {
        let verdict = |code: u32| {
            written(|writer| {
                writer.be32(elem::VERDICT_CODE, code);
                writer.str(elem::VERDICT_CHAIN, "turn_v4_3_a");
            })
        };
        assert_eq!(read_goto(&verdict(elem::GOTO)).unwrap(), Some("turn_v4_3_a"));
        assert_eq!(read_goto(&verdict(elem::GOTO + 1)).unwrap(), None);
        assert_eq!(read_goto(&[]).unwrap(), None);
    }
}
