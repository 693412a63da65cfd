//! Writes the table, and the steps of a plan, into a transaction.

use std::collections::BTreeSet;

use crate::netlink::tlv::Writer;
use crate::nftables::nat_order::OlderChains;
use crate::nftables::nft::{self, elem, msg, object, set, table};
use crate::nftables::ownership::Ownership;
use crate::nftables::sets;
use crate::nftables::skeleton::{self, TABLE};
use crate::nftables::transaction::Transaction;
use crate::nftables::transaction::sealed::MessageSubject;
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::idle_timeouts;
use tcpgw_core::ruleset::name::{self, ListenScope, RoundRobinChain, SetName, SpreadRule};
use tcpgw_core::ruleset::room::Room;
use tcpgw_core::ruleset::skeleton::{self as rules, Hook, OptionalSets, SkeletonChain};
use tcpgw_core::ruleset::spec::SetSpec;
use tcpgw_core::ruleset::step::{PlanStep, Retimed, RowBatch};
use tcpgw_core::ruleset::stmt::Stmt;
use tcpgw_core::ruleset::timeouts::{KernelTimeouts, Timeouts};

impl Transaction {
    /// Removes the table and everything in it.
    pub fn delete_table(&mut self) {
        self.message(msg::DEL_TABLE, 0, MessageSubject::Table, |writer| {
            writer.str(table::NAME, TABLE);
        });
    }

    /// Makes the socket that sends the transaction the owner of the table, which must have none.
    pub fn adopt_table(&mut self) {
        self.message(msg::NEW_TABLE, 0, MessageSubject::Table, |writer| {
            writer.str(table::NAME, TABLE);
            writer.be32(table::FLAGS, Ownership::Owned.flags());
        });
    }

    /// Creates the table, its sets, chains and rules, without elements. `older` are the NAT chains that exist before
    /// it; `None` if they are not known.
    pub fn new_table(&mut self, mark: FlowMark, room: Room, ownership: Ownership, older: Option<&OlderChains>) {
        self.message(
            msg::NEW_TABLE,
            nft::F_CREATE | nft::F_EXCL,
            MessageSubject::Table,
            |writer| {
                let comment = rules::comment(mark, room);
                let length = u8::try_from(comment.len() + 1).unwrap_or(0);
                let userdata = [&[table::COMMENT, length], comment.as_bytes(), &[0]].concat();
                writer.str(table::NAME, TABLE);
                writer.attr(table::USERDATA, &userdata);
                if ownership != Ownership::Plain {
                    writer.be32(table::FLAGS, ownership.flags());
                }
            },
        );
        for timeouts in Timeouts::FIXED {
            self.new_timeouts(timeouts, &KernelTimeouts::default());
        }
        for name in SetName::fixed() {
            self.new_set(name, room);
        }
        let spreads = ListenScope::ALL.map(|listen_scope| rules::spread(listen_scope, &BTreeSet::new(), mark));
        let chains: Vec<SkeletonChain> = spreads
            .into_iter()
            .chain(rules::fixed(mark, &OptionalSets::new()))
            .collect();
        let translates = |chain: &&SkeletonChain| {
            let base = chain.base.as_ref();
            base.is_some_and(|base| base.nat && base.hook == Hook::Prerouting)
        };
        for chain in &chains {
            match older.filter(|_| translates(&chain)) {
                Some(older) => self.raw(MessageSubject::Chain(chain.name.clone()), |seq| {
                    skeleton::new_chain_after(chain, older, seq)
                }),
                None => self.new_chain(chain),
            }
        }
        for chain in &chains {
            self.new_rules(chain);
        }
    }

    /// Writes a step of a plan, in the order in which the kernel takes it.
    pub fn step(&mut self, step: &PlanStep<'_>, mark: FlowMark) {
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
        for chain in &step.new_round_robin_chains {
            let chain = rules::round_robin_chain(chain);
            self.new_chain(&chain);
            self.new_rules(&chain);
        }
        for (listen_scope, widths) in &step.spreads {
            self.rewrite(&rules::spread(*listen_scope, widths, mark));
        }
        if let Some((had, wanted)) = &step.optional_sets {
            let before = rules::fixed(mark, had);
            let changed = rules::fixed(mark, wanted).into_iter().zip(before);
            for (chain, _) in changed.filter(|(chain, before)| chain != before) {
                self.rewrite(&chain);
            }
        }
        for (listen_scope, key) in &step.delete_round_robin_services {
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
        self.add_round_robin_services(step);
        for (listen_scope, width) in &step.old_widths {
            self.old_set(SetName::Spread(*listen_scope, *width));
            if let SpreadRule::Cap(cap) = width {
                self.old_set(SetName::Capped(*listen_scope, *cap));
            }
        }
        for chain in &step.old_round_robin_chains {
            self.old_chain(chain);
        }
        for timeouts in &step.old_timeouts {
            self.old_timeouts(*timeouts);
        }
    }

    fn new_timeouts(&mut self, timeouts: Timeouts, kernel: &KernelTimeouts) {
        let flags = nft::F_CREATE | nft::F_EXCL;
        self.message(msg::NEW_OBJ, flags, MessageSubject::Timeouts, |writer| {
            sets::write_timeouts(writer, timeouts, kernel);
        });
    }

    fn old_timeouts(&mut self, timeouts: Timeouts) {
        self.message(msg::DEL_OBJ, 0, MessageSubject::Timeouts, |writer| {
            writer.str(object::TABLE, TABLE);
            writer.str(object::NAME, &timeouts.to_string());
            writer.be32(object::TYPE, object::CT_TIMEOUT);
        });
    }

    /// Replaces the timeout objects, and the rules that refer to them: an object cannot be changed, nor deleted while rules refer
    /// to it.
    fn retime(&mut self, retimed: &Retimed, mark: FlowMark) {
        let spreads = retimed
            .spreads
            .iter()
            .map(|(listen_scope, widths)| rules::spread(*listen_scope, widths, mark));
        let refers = |stmt: &Stmt| matches!(stmt, Stmt::Timeouts(timeouts) if timeouts.follows_sysctls());
        let fixed = rules::fixed(mark, &retimed.optional_sets);
        let fixed = fixed
            .into_iter()
            .filter(|chain| chain.rules.iter().flatten().any(refers));
        let chains: Vec<SkeletonChain> = spreads.chain(fixed).collect();
        for chain in &chains {
            self.raw(MessageSubject::Chain(chain.name.clone()), |seq| {
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

    fn new_set(&mut self, name: SetName, room: Room) {
        self.sets += 1;
        let id = self.sets;
        self.message(
            msg::NEW_SET,
            nft::F_CREATE | nft::F_EXCL,
            MessageSubject::Set(name),
            |writer| {
                sets::write_set(writer, name, room, id);
            },
        );
    }

    fn old_set(&mut self, name: SetName) {
        self.message(msg::DEL_SET, 0, MessageSubject::Set(name), |writer| {
            writer.str(set::TABLE, TABLE);
            writer.str(set::NAME, &name.to_string());
        });
    }

    fn new_chain(&mut self, chain: &SkeletonChain) {
        self.raw(MessageSubject::Chain(chain.name.clone()), |seq| {
            skeleton::new_chain(chain, seq)
        });
    }

    fn new_rules(&mut self, chain: &SkeletonChain) {
        for rule in &chain.rules {
            self.raw(MessageSubject::Rule(chain.name.clone()), |seq| {
                skeleton::new_rule(&chain.name, rule, seq)
            });
        }
    }

    fn rewrite(&mut self, chain: &SkeletonChain) {
        self.raw(MessageSubject::Chain(chain.name.clone()), |seq| {
            skeleton::flush_chain(&chain.name, seq)
        });
        self.new_rules(chain);
    }

    fn old_chain(&mut self, chain: &RoundRobinChain) {
        let name = chain.to_string();
        self.raw(MessageSubject::Chain(name.clone()), |seq| {
            skeleton::flush_chain(&name, seq)
        });
        self.raw(MessageSubject::Chain(name.clone()), |seq| {
            skeleton::delete_chain(&name, seq)
        });
    }

    fn rows(&mut self, kind: u16, name: SetName, batch: &RowBatch<'_>) {
        let spec = SetSpec::of(name);
        self.elements(kind, name, &mut batch.rows(), |writer, row| {
            sets::write_element(writer, &spec, row, kind == msg::DEL_ELEM);
        });
    }

    fn add_round_robin_services(&mut self, step: &PlanStep<'_>) {
        for listen_scope in ListenScope::ALL {
            let services = step
                .add_round_robin_services
                .iter()
                .filter(|((of, _), _)| *of == listen_scope);
            self.elements(
                msg::NEW_ELEM,
                SetName::RoundRobin(listen_scope),
                &mut { services },
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
            self.message(kind, flags, MessageSubject::Elements(name), |writer| {
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

/// Largest number of bytes in one list of elements: attributes have 16 bits of length, and the longest element, one
/// with limits, has under 200 bytes.
const ELEMENTS: usize = 60_000;
