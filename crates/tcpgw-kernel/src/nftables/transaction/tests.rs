use super::*;
use crate::netlink::tlv::{Attrs, Messages, Nack};
use crate::nftables::nft::{elem, rule};
use crate::nftables::ownership::Ownership;
use tcpgw_core::model::FlowMark;
use tcpgw_core::plan::plan;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::compile::compile;
use tcpgw_core::ruleset::name::SetName;
use tcpgw_core::ruleset::room::Room;
use tcpgw_core::ruleset::spec::SetSpec;

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

/// Returns the messages of a batch with such subjects, with the offset of each attribute of the list of that kind.
fn messages(sealed: &Sealed, about: fn(&MessageSubject) -> bool, list: u16) -> Vec<(u32, Vec<usize>)> {
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
        |subject| matches!(subject, MessageSubject::Elements(_)),
        elem::LIST_ELEMENTS,
    ) {
        for offset in offsets {
            let refused = sealed.trace(nack(seq, Some(offset))).unwrap();
            if let (MessageSubject::Elements(set), Some(key)) = (refused.subject, refused.element) {
                keys.insert((set, key));
            }
        }
    }
    let mut expected: std::collections::BTreeSet<(SetName, Box<[u8]>)> = [].into();
    for (set, rows) in ruleset.sets() {
        let key_len = SetSpec::of(*set).key_len();
        expected.extend(rows.iter().map(|row| (*set, row[..key_len].into())));
    }
    let services = ruleset.round_robin_services().keys();
    expected.extend(services.map(|(listen_scope, key)| (SetName::RoundRobin(*listen_scope), key.clone())));
    assert_eq!(keys, expected);
}

#[test]
fn a_refusal_is_traced_to_its_expression() {
    let sealed = sealed(&Ruleset::default());
    let mut kinds: std::collections::BTreeSet<String> = [].into();
    for (seq, offsets) in messages(
        &sealed,
        |subject| matches!(subject, MessageSubject::Rule(_)),
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
        MessageSubject::Batch
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
