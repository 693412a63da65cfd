//! One transaction as netlink messages: encoded whole, sent in one piece, refusals traced back to what they are about.

use std::collections::BTreeSet;
use std::io::IoSlice;

use crate::netlink::tlv::{Attrs, FAMILY_LEN, Family, HEADER_LEN, Header, Messages, Nack, TooLong, Writer};
use crate::nftables::nat_order::OlderChains;
use crate::nftables::nft::{self, elem, expr, msg, object, rule, set, table};
use crate::nftables::ownership::Ownership;
use crate::nftables::sets;
use crate::nftables::skeleton::{self, TABLE};
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::idle_timeouts;
use tcpgw_core::ruleset::name::{self, ListenScope, RoundRobinChain, SetName, SpreadRule};
use tcpgw_core::ruleset::room::Room;
use tcpgw_core::ruleset::skeleton::{self as rules, Asked, Chain, Hook};
use tcpgw_core::ruleset::spec::SetSpec;
use tcpgw_core::ruleset::step::{Batch, Retimed, Step};
use tcpgw_core::ruleset::stmt::Stmt;
use tcpgw_core::ruleset::timeouts::{KernelTimeouts, Timeouts};

/// Where a new piece of the buffer begins: pieces go out together, and growing one big one would copy it.
const PIECE: usize = 1 << 20;
/// Attributes have 16 bits of length; a list of elements ends before that. The longest element, one with limits, has under
/// 200 bytes.
const ELEMENTS: usize = 60_000;
const INET: Family = Family {
    family: nft::INET,
    version: 0,
    res_id: 0,
};

/// What a message is about, for those who must read that it was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The beginning or the end of the batch.
    Batch,
    /// The table itself.
    Table,
    /// The timeout object.
    Timeouts,
    /// A set.
    Set(SetName),
    /// A chain.
    Chain(String),
    /// A rule of that chain.
    Rule(String),
    /// Elements of that set.
    Elements(SetName),
}

struct Origin {
    seq: u32,
    piece: usize,
    start: usize,
    subject: Subject,
}

/// A transaction in the making.
pub struct Transaction {
    pieces: Vec<Writer>,
    origins: Vec<Origin>,
    seq: u32,
    sets: u32,
}

/// A transaction that is whole and can be sent.
pub struct Sealed {
    pieces: Vec<Vec<u8>>,
    origins: Vec<Origin>,
}

/// A message that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What it was about.
    pub subject: Subject,
    /// The key of the element, if it was one.
    pub element: Option<Box<[u8]>>,
    /// The kind of expression, if it was one.
    pub expression: Option<String>,
    /// The kernel's answer.
    pub nack: Nack,
}

impl Transaction {
    /// Begins one. With a generation, the kernel refuses it (ERESTART) if anyone else has committed since; 0 and `None`
    /// ask for no check. Sequence numbers go on from `seq`.
    pub fn begin(generation: Option<u32>, seq: u32) -> Self {
        let mut this = Self {
            pieces: vec![Writer::new()],
            origins: Vec::new(),
            seq,
            sets: 0,
        };
        let header = Header {
            kind: nft::BATCH_BEGIN,
            flags: nft::F_REQUEST,
            seq: this.next(Subject::Batch),
        };
        this.writer().message(
            header,
            Family {
                family: 0,
                version: 0,
                res_id: nft::SUBSYSTEM,
            },
            |writer| {
                if let Some(generation) = generation {
                    writer.be32(nft::BATCH_GENID, generation);
                }
            },
        );
        this
    }

    /// Removes the table and everything in it.
    pub fn delete_table(&mut self) {
        self.message(msg::DEL_TABLE, 0, Subject::Table, |writer| {
            writer.str(table::NAME, TABLE);
        });
    }

    /// Makes the socket that sends this the owner of the table, which must be an orphan.
    pub fn adopt_table(&mut self) {
        self.message(msg::NEW_TABLE, 0, Subject::Table, |writer| {
            writer.str(table::NAME, TABLE);
            writer.be32(table::FLAGS, Ownership::Owned.flags());
        });
    }

    /// Makes the table, its sets, chains and rules, without elements. `older` are the NAT chains that there are already, if that is
    /// known.
    pub fn new_table(&mut self, mark: FlowMark, room: Room, ownership: Ownership, older: Option<&OlderChains>) {
        self.message(msg::NEW_TABLE, nft::F_CREATE | nft::F_EXCL, Subject::Table, |writer| {
            let comment = rules::comment(mark, room);
            let length = u8::try_from(comment.len() + 1).unwrap_or(0);
            let userdata = [&[table::COMMENT, length], comment.as_bytes(), &[0]].concat();
            writer.str(table::NAME, TABLE);
            writer.attr(table::USERDATA, &userdata);
            if ownership != Ownership::Plain {
                writer.be32(table::FLAGS, ownership.flags());
            }
        });
        for timeouts in Timeouts::FIXED {
            self.new_timeouts(timeouts, &KernelTimeouts::default());
        }
        for name in SetName::fixed() {
            self.new_set(name, room);
        }
        let spreads = ListenScope::ALL.map(|listen_scope| rules::spread(listen_scope, &BTreeSet::new(), mark));
        let chains: Vec<Chain> = spreads.into_iter().chain(rules::fixed(mark, &Asked::new())).collect();
        let translates = |chain: &&Chain| {
            let base = chain.base.as_ref();
            base.is_some_and(|base| base.nat && base.hook == Hook::Prerouting)
        };
        for chain in &chains {
            match older.filter(|_| translates(&chain)) {
                Some(older) => self.raw(Subject::Chain(chain.name.clone()), |seq| {
                    skeleton::new_chain_after(chain, older, seq)
                }),
                None => self.new_chain(chain),
            }
        }
        for chain in &chains {
            self.new_rules(chain);
        }
    }

    /// What a step of a plan says, in its order.
    pub fn step(&mut self, step: &Step<'_>, mark: FlowMark) {
        if let Some(retimed) = &step.retimed {
            self.retime(retimed, mark);
        }
        for (timeouts, kernel) in &step.new_timeouts {
            self.new_timeouts(*timeouts, kernel);
        }
        for (listen_scope, width) in &step.new_widths {
            self.new_set(SetName::Spread(*listen_scope, *width), Room::default());
            if let SpreadRule::Cap(cap) = width {
                self.new_set(SetName::Capped(*listen_scope, *cap), Room::default());
            }
        }
        for turn in &step.new_turns {
            let chain = rules::turn(turn);
            self.new_chain(&chain);
            self.new_rules(&chain);
        }
        for (listen_scope, widths) in &step.spreads {
            self.rewrite(&rules::spread(*listen_scope, widths, mark));
        }
        if let Some((had, wanted)) = &step.asked {
            let before = rules::fixed(mark, had);
            let changed = rules::fixed(mark, wanted).into_iter().zip(before);
            for (chain, _) in changed.filter(|(chain, before)| chain != before) {
                self.rewrite(&chain);
            }
        }
        for (listen_scope, key) in &step.delete_turns {
            self.elements(
                msg::DEL_ELEM,
                SetName::RoundRobin(*listen_scope),
                &mut std::iter::once(key),
                |writer, key| {
                    writer.nest(nft::LIST_ELEM, |writer| {
                        writer.nest(elem::KEY, |writer| writer.attr(elem::VALUE, key));
                    });
                },
            );
        }
        for (name, batch) in &step.delete {
            self.rows(msg::DEL_ELEM, *name, batch);
        }
        for (name, batch) in &step.add {
            self.rows(msg::NEW_ELEM, *name, batch);
        }
        self.add_turns(step);
        for (listen_scope, width) in &step.old_widths {
            self.old_set(SetName::Spread(*listen_scope, *width));
            if let SpreadRule::Cap(cap) = width {
                self.old_set(SetName::Capped(*listen_scope, *cap));
            }
        }
        for turn in &step.old_turns {
            self.old_turn(turn);
        }
        for timeouts in &step.old_timeouts {
            self.old_timeouts(*timeouts);
        }
    }

    fn new_timeouts(&mut self, timeouts: Timeouts, kernel: &KernelTimeouts) {
        let flags = nft::F_CREATE | nft::F_EXCL;
        self.message(msg::NEW_OBJ, flags, Subject::Timeouts, |writer| {
            sets::write_timeouts(writer, timeouts, kernel);
        });
    }

    fn old_timeouts(&mut self, timeouts: Timeouts) {
        self.message(msg::DEL_OBJ, 0, Subject::Timeouts, |writer| {
            writer.str(object::TABLE, TABLE);
            writer.str(object::NAME, &timeouts.to_string());
            writer.be32(object::TYPE, object::CT_TIMEOUT);
        });
    }

    /// An object cannot be changed, nor deleted while rules refer to it.
    fn retime(&mut self, retimed: &Retimed, mark: FlowMark) {
        let spreads = retimed
            .spreads
            .iter()
            .map(|(listen_scope, widths)| rules::spread(*listen_scope, widths, mark));
        let refers = |stmt: &Stmt| matches!(stmt, Stmt::Timeouts(timeouts) if timeouts.follows_sysctls());
        let fixed = rules::fixed(mark, &retimed.asked);
        let fixed = fixed
            .into_iter()
            .filter(|chain| chain.rules.iter().flatten().any(refers));
        let chains: Vec<Chain> = spreads.chain(fixed).collect();
        for chain in &chains {
            self.raw(Subject::Chain(chain.name.clone()), |seq| {
                skeleton::flush_chain(&chain.name, seq)
            });
        }
        let idle = retimed.spreads.iter();
        let idle = idle.flat_map(|(listen_scope, rules)| idle_timeouts(*listen_scope, rules));
        let following: BTreeSet<Timeouts> = name::Family::BOTH
            .map(Timeouts::Flows)
            .into_iter()
            .chain(idle)
            .collect();
        for timeouts in following {
            self.old_timeouts(timeouts);
            self.new_timeouts(timeouts, &retimed.timeouts);
        }
        for chain in &chains {
            self.new_rules(chain);
        }
    }

    /// Deletes elements that packets added.
    pub fn forget(&mut self, name: SetName, keys: &[Box<[u8]>]) {
        self.elements(msg::DEL_ELEM, name, &mut keys.iter(), |writer, key| {
            writer.nest(nft::LIST_ELEM, |writer| {
                writer.nest(elem::KEY, |writer| writer.attr(elem::VALUE, key));
            });
        });
    }

    /// Ends it: its last message asks for the one ACK.
    ///
    /// # Errors
    /// [`TooLong`] if an attribute did not fit.
    pub fn seal(mut self) -> Result<Sealed, TooLong> {
        let last = self.origins.last().map(|origin| (origin.piece, origin.start));
        let header = Header {
            kind: nft::BATCH_END,
            flags: nft::F_REQUEST,
            seq: self.next(Subject::Batch),
        };
        self.writer().message(
            header,
            Family {
                family: 0,
                version: 0,
                res_id: nft::SUBSYSTEM,
            },
            |_| {},
        );
        self.origins.pop();
        let mut pieces = self
            .pieces
            .into_iter()
            .map(Writer::finish)
            .collect::<Result<Vec<_>, _>>()?;
        if let Some((piece, start)) = last
            && let Some([low, high]) = pieces[piece]
                .get_mut(start + 6..start + 8)
                .and_then(|flags| flags.first_chunk_mut())
        {
            [*low, *high] = (u16::from_ne_bytes([*low, *high]) | nft::F_ACK).to_ne_bytes();
        }
        Ok(Sealed {
            pieces,
            origins: self.origins,
        })
    }

    fn writer(&mut self) -> &mut Writer {
        if self.pieces.last().is_none_or(|piece| piece.len() > PIECE) {
            self.pieces.push(Writer::with_capacity(PIECE + (1 << 17)));
        }
        let last = self.pieces.len() - 1;
        &mut self.pieces[last]
    }

    fn next(&mut self, subject: Subject) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        let start = self.writer().len();
        self.origins.push(Origin {
            seq: self.seq,
            piece: self.pieces.len() - 1,
            start,
            subject,
        });
        self.seq
    }

    fn message(&mut self, kind: u16, flags: u16, subject: Subject, fill: impl FnOnce(&mut Writer)) {
        let seq = self.next(subject);
        let header = Header {
            kind: nft::message(kind),
            flags: flags | nft::F_REQUEST,
            seq,
        };
        self.writer().message(header, INET, fill);
    }

    fn raw(&mut self, subject: Subject, build: impl FnOnce(u32) -> Vec<u8>) {
        let seq = self.next(subject);
        let bytes = build(seq);
        self.writer().raw(&bytes);
    }

    fn new_set(&mut self, name: SetName, room: Room) {
        self.sets += 1;
        let id = self.sets;
        self.message(
            msg::NEW_SET,
            nft::F_CREATE | nft::F_EXCL,
            Subject::Set(name),
            |writer| {
                sets::write_set(writer, name, room, id);
            },
        );
    }

    fn old_set(&mut self, name: SetName) {
        self.message(msg::DEL_SET, 0, Subject::Set(name), |writer| {
            writer.str(set::TABLE, TABLE);
            writer.str(set::NAME, &name.to_string());
        });
    }

    fn new_chain(&mut self, chain: &Chain) {
        self.raw(Subject::Chain(chain.name.clone()), |seq| {
            skeleton::new_chain(chain, seq)
        });
    }

    fn new_rules(&mut self, chain: &Chain) {
        for rule in &chain.rules {
            self.raw(Subject::Rule(chain.name.clone()), |seq| {
                skeleton::new_rule(&chain.name, rule, seq)
            });
        }
    }

    fn rewrite(&mut self, chain: &Chain) {
        self.raw(Subject::Chain(chain.name.clone()), |seq| {
            skeleton::flush_chain(&chain.name, seq)
        });
        self.new_rules(chain);
    }

    fn old_turn(&mut self, turn: &RoundRobinChain) {
        let name = turn.to_string();
        self.raw(Subject::Chain(name.clone()), |seq| skeleton::flush_chain(&name, seq));
        self.raw(Subject::Chain(name.clone()), |seq| skeleton::delete_chain(&name, seq));
    }

    fn rows(&mut self, kind: u16, name: SetName, batch: &Batch<'_>) {
        let spec = SetSpec::of(name);
        self.elements(kind, name, &mut batch.rows(), |writer, row| {
            sets::write_element(writer, &spec, row, kind == msg::DEL_ELEM);
        });
    }

    fn add_turns(&mut self, step: &Step<'_>) {
        for listen_scope in ListenScope::ALL {
            let turns = step.add_turns.iter().filter(|((of, _), _)| *of == listen_scope);
            self.elements(
                msg::NEW_ELEM,
                SetName::RoundRobin(listen_scope),
                &mut { turns },
                |writer, ((_, key), chain)| {
                    sets::write_goto(writer, key, &chain.to_string());
                },
            );
        }
    }

    fn elements<T>(
        &mut self,
        kind: u16,
        name: SetName,
        items: &mut dyn Iterator<Item = T>,
        mut write: impl FnMut(&mut Writer, T),
    ) {
        let mut items = items.peekable();
        while items.peek().is_some() {
            let flags = if kind == msg::NEW_ELEM {
                nft::F_CREATE | nft::F_EXCL
            } else {
                0
            };
            self.message(kind, flags, Subject::Elements(name), |writer| {
                writer.str(elem::LIST_TABLE, TABLE);
                writer.str(elem::LIST_SET, &name.to_string());
                writer.nest(elem::LIST_ELEMENTS, |writer| {
                    let start = writer.len();
                    while writer.len() - start < ELEMENTS {
                        let Some(item) = items.next() else { break };
                        write(writer, item);
                    }
                });
            });
        }
    }
}

impl Sealed {
    /// The pieces, which must go out in one `sendmsg`.
    pub fn parts(&self) -> Vec<IoSlice<'_>> {
        self.pieces.iter().map(|piece| IoSlice::new(piece)).collect()
    }

    /// Makes it one for another generation, without encoding it again: a busy neighbour leaves little time.
    pub fn set_generation(&mut self, generation: u32) {
        const VALUE: std::ops::Range<usize> = HEADER_LEN + FAMILY_LEN + 4..HEADER_LEN + FAMILY_LEN + 8;
        if let Some(value) = self.pieces.first_mut().and_then(|piece| piece.get_mut(VALUE)) {
            value.copy_from_slice(&generation.to_be_bytes());
        }
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }

    /// Whether there is nothing between the beginning and the end.
    pub fn is_empty(&self) -> bool {
        self.origins.len() <= 1
    }

    /// The message that asks for the ACK.
    pub fn last_seq(&self) -> u32 {
        self.origins.last().map_or(0, |origin| origin.seq)
    }

    /// The message that opens the batch.
    pub fn first_seq(&self) -> u32 {
        self.origins.first().map_or(0, |origin| origin.seq)
    }

    /// What a refusal is about.
    pub fn trace(&self, nack: Nack) -> Option<Refused> {
        let at = self.origins.binary_search_by_key(&nack.seq, |origin| origin.seq).ok()?;
        let origin = &self.origins[at];
        let message = self.pieces[origin.piece]
            .get(origin.start..)
            .and_then(|bytes| Messages::new(bytes).next());
        let payload = message.and_then(Result::ok).map_or(&[][..], |message| message.payload);
        let body = payload.get(4..).unwrap_or_default();
        let offset = nack
            .offset
            .and_then(|offset| usize::try_from(offset).ok()?.checked_sub(20));
        let (mut element, mut expression) = (None, None);
        match &origin.subject {
            Subject::Elements(_) => element = offset.and_then(|offset| element_key(body, offset)),
            Subject::Rule(_) => expression = offset.and_then(|offset| expression_at(body, offset)),
            _ => {}
        }
        Some(Refused {
            subject: origin.subject.clone(),
            element,
            expression,
            nack,
        })
    }
}

/// The key of the element whose attribute begins there.
fn element_key(body: &[u8], offset: usize) -> Option<Box<[u8]>> {
    let element = Attrs::new(body.get(offset..)?)
        .next()?
        .ok()
        .filter(|attr| attr.kind == nft::LIST_ELEM)?;
    let within = |bytes, kind| Attrs::new(bytes).map_while(Result::ok).find(|attr| attr.kind == kind);
    let key = within(element.payload, elem::KEY)?;
    Some(within(key.payload, elem::VALUE)?.payload.into())
}

/// The kind of the expression that holds the attribute that begins there.
fn expression_at(body: &[u8], offset: usize) -> Option<String> {
    let target = body.as_ptr() as usize + offset;
    let list = Attrs::new(body)
        .map_while(Result::ok)
        .find(|attr| attr.kind == rule::EXPRESSIONS)?;
    let holder = Attrs::new(list.payload).map_while(Result::ok).find(|expression| {
        let start = expression.payload.as_ptr() as usize;
        (start - 4..start + expression.payload.len()).contains(&target)
    })?;
    let name = Attrs::new(holder.payload)
        .map_while(Result::ok)
        .find(|attr| attr.kind == expr::NAME)?;
    name.str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcpgw_core::plan::plan;
    use tcpgw_core::ruleset::Ruleset;
    use tcpgw_core::ruleset::compile::compile;

    fn ruleset(services: u16) -> Ruleset {
        let service = |at: u16| {
            format!(
                r#"{{"name":"s{at}","port":{},"limit":{{"pps":5}},"balance":"round-robin","backends":["10.2.0.1:{}"]}}"#,
                2000 + at,
                1 + at
            )
        };
        let services: Vec<String> = (0..services).map(service).collect();
        let text = format!(r#"{{"version":1,"services":[{}]}}"#, services.join(","));
        compile(
            &tcpgw_core::model::parse(text.as_bytes()).unwrap(),
            &tcpgw_core::ruleset::links::Links::default(),
        )
    }

    fn sealed(ruleset: &Ruleset) -> Sealed {
        let mut transaction = Transaction::begin(Some(7), 100);
        transaction.new_table(FlowMark::default(), Room::default(), Ownership::Owned, None);
        for step in &plan(&Ruleset::default(), ruleset).steps {
            transaction.step(step, FlowMark::default());
        }
        transaction.seal().unwrap()
    }

    fn nack(seq: u32, offset: Option<usize>) -> Nack {
        Nack {
            errno: libc::EEXIST,
            seq,
            message: None,
            offset: offset.map(|offset| u32::try_from(offset).unwrap()),
        }
    }

    /// The messages of a batch that are about such things, with the offset of each attribute of the list of that kind.
    fn messages(sealed: &Sealed, about: fn(&Subject) -> bool, list: u16) -> Vec<(u32, Vec<usize>)> {
        let mut found = Vec::new();
        for message in sealed.pieces.iter().flat_map(|piece| Messages::new(piece)) {
            let message = message.unwrap();
            if !sealed
                .trace(nack(message.seq, None))
                .is_some_and(|refused| about(&refused.subject))
            {
                continue;
            }
            let body = message.payload.get(4..).unwrap_or_default();
            let list = Attrs::new(body).map_while(Result::ok).find(|attr| attr.kind == list);
            let offsets = list
                .iter()
                .flat_map(|list| Attrs::new(list.payload).map(Result::unwrap));
            let offset = |payload: &[u8]| payload.as_ptr() as usize - body.as_ptr() as usize - 4 + 20;
            found.push((message.seq, offsets.map(|attr| offset(attr.payload)).collect()));
        }
        found
    }

    #[test]
    fn a_refusal_is_traced_to_its_element() {
        let ruleset = ruleset(3);
        let sealed = sealed(&ruleset);
        let mut keys: std::collections::BTreeSet<(SetName, Box<[u8]>)> = [].into();
        for (seq, offsets) in messages(
            &sealed,
            |subject| matches!(subject, Subject::Elements(_)),
            elem::LIST_ELEMENTS,
        ) {
            for offset in offsets {
                let refused = sealed.trace(nack(seq, Some(offset))).unwrap();
                if let (Subject::Elements(set), Some(key)) = (refused.subject, refused.element) {
                    keys.insert((set, key));
                }
            }
        }
        let mut expected: std::collections::BTreeSet<(SetName, Box<[u8]>)> = [].into();
        for (set, rows) in ruleset.sets() {
            let key_len = SetSpec::of(*set).key_len();
            expected.extend(rows.iter().map(|row| (*set, row[..key_len].into())));
        }
        let turns = ruleset.turns().keys();
        expected.extend(turns.map(|(listen_scope, key)| (SetName::RoundRobin(*listen_scope), key.clone())));
        assert_eq!(keys, expected);
    }

    #[test]
    fn a_refusal_is_traced_to_its_expression() {
        let sealed = sealed(&Ruleset::default());
        let mut kinds: std::collections::BTreeSet<String> = [].into();
        for (seq, offsets) in messages(
            &sealed,
            |subject| matches!(subject, Subject::Rule(_)),
            rule::EXPRESSIONS,
        ) {
            for offset in offsets {
                let refused = sealed.trace(nack(seq, Some(offset))).unwrap();
                // The name is the first attribute of an expression.
                let named = sealed.trace(nack(seq, Some(offset + 4))).unwrap();
                assert_eq!(named.expression, refused.expression);
                kinds.insert(refused.expression.unwrap());
            }
        }
        for kind in ["meta", "ct", "payload", "fib", "immediate"] {
            assert!(kinds.contains(kind), "{kind} not in {kinds:?}");
        }
    }

    #[test]
    fn any_offset_and_number_give_an_answer() {
        let sealed = sealed(&ruleset(2));
        for seq in sealed.first_seq()..=sealed.last_seq() {
            for offset in 0..200 {
                assert!(sealed.trace(nack(seq, Some(offset))).is_some());
            }
            let refused = sealed.trace(nack(seq, None)).unwrap();
            assert_eq!((refused.element, refused.expression), (None, None));
        }
        assert!(sealed.trace(nack(sealed.last_seq() + 2, None)).is_none());
        assert_eq!(
            sealed.trace(nack(sealed.first_seq(), None)).unwrap().subject,
            Subject::Batch
        );
    }

    #[test]
    fn only_the_last_message_asks_for_an_ack_and_a_long_batch_is_in_pieces() {
        let sealed = sealed(&ruleset(200));
        let mut asking = Vec::new();
        for message in sealed.pieces.iter().flat_map(|piece| Messages::new(piece)) {
            let message = message.unwrap();
            if message.flags & nft::F_ACK != 0 {
                asking.push(message.seq);
            }
        }
        assert_eq!(asking, [sealed.last_seq()]);
        assert_eq!(
            sealed.parts().iter().map(|part| part.len()).sum::<usize>(),
            sealed.len()
        );
        let empty = Transaction::begin(None, 0).seal().unwrap();
        assert!(empty.is_empty() && !sealed.is_empty());
    }
}
