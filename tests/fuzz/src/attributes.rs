//! Changes netlink messages as netlink messages: lengths follow what is in them, so that a change gets past the framing.

use std::mem;

/// Changes bytes within a buffer: the length now, and the most there may be.
pub type ChangeBytes = fn(&mut [u8], usize, usize) -> usize;

const NESTED: u16 = 0x8000;
const HEADER: usize = 16;
const ATTR: usize = 4;
/// Depth that is larger than that of any attribute of `nf_tables`.
const DEPTH: usize = 8;

/// Mutates the first `size` bytes of `data` into at most `max_size` bytes, the same ones for the same seed.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32, bytes: ChangeBytes) -> usize {
    let mut random = Random(u64::from(seed) | 1 << 40);
    let Some(mut messages) = read(&data[..size]).filter(|_| !random.one_in(8)) else {
        return bytes(data, size, max_size);
    };
    for _ in 0..=random.below(3) {
        change(&mut messages, &mut random, bytes);
    }
    let mut out = write(&messages);
    if random.one_in(16) && !out.is_empty() {
        let at = random.below(out.len());
        out[at] = random.byte();
    }
    out.truncate(max_size.min(data.len()));
    data[..out.len()].copy_from_slice(&out);
    out.len()
}

/// A message, with its bytes between length and attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    head: Vec<u8>,
    attrs: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    kind: u16,
    body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Body {
    Bytes(Vec<u8>),
    Attrs(Vec<Node>),
}

/// Returns the messages, if the bytes are complete messages and nothing else.
fn read(mut rest: &[u8]) -> Option<Vec<Message>> {
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        let message = rest.get(4..length).filter(|_| length >= HEADER)?;
        let kind = u16::from_ne_bytes([message[0], message[1]]);
        let fixed = (HEADER - 4 + fixed_part(kind)).min(message.len());
        let (head, attrs) = message.split_at(fixed);
        messages.push(match read_attrs(attrs, DEPTH) {
            Some(attrs) => Message {
                head: head.to_vec(),
                attrs,
            },
            None => Message {
                head: message.to_vec(),
                attrs: Vec::new(),
            },
        });
        rest = rest.get(align(length)..).unwrap_or_default();
    }
    Some(messages)
}

/// Returns the number of bytes between the header and the attributes: `nfgenmsg`, or the headers of rtnetlink for links,
/// addresses and routes; or an error code, after which the header of the request stands.
fn fixed_part(kind: u16) -> usize {
    match kind {
        2 => 4 + HEADER,
        16..20 => 16,
        20..24 => 8,
        24..28 => 12,
        _ => 4,
    }
}

fn read_attrs(mut rest: &[u8], depth: usize) -> Option<Vec<Node>> {
    let mut nodes = Vec::new();
    while !rest.is_empty() {
        let &[l0, l1, k0, k1] = rest.first_chunk()?;
        let (length, kind) = (usize::from(u16::from_ne_bytes([l0, l1])), u16::from_ne_bytes([k0, k1]));
        let payload = rest.get(ATTR..length)?;
        let inner = (kind & NESTED != 0 && depth > 0).then(|| read_attrs(payload, depth - 1));
        let body = inner
            .flatten()
            .map_or_else(|| Body::Bytes(payload.to_vec()), Body::Attrs);
        nodes.push(Node { kind, body });
        rest = rest.get(align(length)..).unwrap_or_default();
    }
    Some(nodes)
}

fn write(messages: &[Message]) -> Vec<u8> {
    let mut out = Vec::new();
    for message in messages {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&message.head);
        write_attrs(&mut out, &message.attrs);
        let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
        out[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        out.resize(align(out.len()), 0);
    }
    out
}

fn write_attrs(out: &mut Vec<u8>, nodes: &[Node]) {
    for node in nodes {
        let start = out.len();
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&node.kind.to_ne_bytes());
        match &node.body {
            Body::Bytes(bytes) => out.extend_from_slice(bytes),
            Body::Attrs(nodes) => write_attrs(out, nodes),
        }
        let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
        out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        out.resize(align(out.len()), 0);
    }
}

fn change(messages: &mut Vec<Message>, random: &mut Random, bytes: ChangeBytes) {
    if messages.is_empty() {
        return;
    }
    let at = random.below(messages.len());
    match random.below(12) {
        0 => messages.insert(random.below(messages.len() + 1), messages[at].clone()),
        1 => drop(messages.remove(at)),
        2 => messages.swap(at, 0),
        3 => change_bytes(&mut messages[at].head, random, bytes),
        _ => {
            let donor = messages[random.below(messages.len())].attrs.clone();
            change_attrs(&mut messages[at].attrs, &donor, random, bytes);
        }
    }
}

fn change_attrs(nodes: &mut Vec<Node>, donor: &[Node], random: &mut Random, bytes: ChangeBytes) {
    if nodes.is_empty() {
        if !donor.is_empty() {
            nodes.push(donor[random.below(donor.len())].clone());
        }
        return;
    }
    let at = random.below(nodes.len());
    if !random.one_in(4)
        && let Body::Attrs(inner) = &mut nodes[at].body
    {
        return change_attrs(inner, donor, random, bytes);
    }
    match random.below(8) {
        0 => nodes.insert(random.below(nodes.len() + 1), nodes[at].clone()),
        1 => drop(nodes.remove(at)),
        2 => nodes.swap(at, 0),
        3 if !donor.is_empty() => nodes.insert(at, donor[random.below(donor.len())].clone()),
        4 => nodes[at].kind = nodes[at].kind & NESTED | u16::from(random.byte() % 40),
        5 => nodes[at].kind ^= NESTED,
        _ => match &mut nodes[at].body {
            Body::Bytes(payload) => change_bytes(payload, random, bytes),
            Body::Attrs(inner) => drop(mem::take(inner)),
        },
    }
}

/// Mutates a payload, sometimes to one of the lengths that numbers and addresses have.
fn change_bytes(payload: &mut Vec<u8>, random: &mut Random, bytes: ChangeBytes) {
    const LENGTHS: [usize; 9] = [0, 1, 2, 3, 4, 8, 12, 16, 20];
    if random.one_in(4) {
        payload.resize(LENGTHS[random.below(LENGTHS.len())], 0);
        return;
    }
    let size = payload.len();
    payload.resize(size + 16, 0);
    let size = bytes(payload, size, size + 16);
    payload.truncate(size);
}

const fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// Generator of random numbers by splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number less than `most`, which is not 0.
    fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % most
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[7]
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Vec<u8> {
        let leaf = |kind, bytes: &[u8]| Node {
            kind,
            body: Body::Bytes(bytes.to_vec()),
        };
        let nest = Node {
            kind: 3 | NESTED,
            body: Body::Attrs(vec![leaf(1, b"slots_v4\0"), leaf(2, &[0; 4])]),
        };
        let mut head = vec![0; HEADER - 4 + 4];
        head[1] = 0xa;
        write(&vec![
            Message {
                head,
                attrs: vec![leaf(1, b"tcpgw\0"), nest],
            };
            2
        ])
    }

    #[test]
    fn what_is_read_is_written() {
        let bytes = message();
        assert_eq!(write(&read(&bytes).unwrap()), bytes);
    }

    #[test]
    fn changes_are_messages_mostly_and_the_same_for_a_seed() {
        let bytes = message();
        let flip: ChangeBytes = |data, size, _| {
            data[..size].iter_mut().for_each(|byte| *byte ^= 0x55);
            size
        };
        let changed = |seed| {
            let mut data = bytes.clone();
            data.resize(400, 0);
            let size = mutate(&mut data, bytes.len(), 400, seed, flip);
            data[..size].to_vec()
        };
        let whole = (0..1000).filter(|seed| read(&changed(*seed)).is_some()).count();
        assert!(whole > 700, "{whole}");
        assert!((0..1000).all(|seed| changed(seed) == changed(seed) && changed(seed).len() <= 400));
    }
}
