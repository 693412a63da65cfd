//! A state file: all the way to the transaction, and back from it.

use std::collections::BTreeMap;
use std::hint::black_box;

use tcpgw_core::diff::{ChangeCounts, Changes};
use tcpgw_core::model::{self, FlowMark, InputProblems, State};
use tcpgw_core::plan::plan;
use tcpgw_core::render;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::compile::compile;
use tcpgw_core::ruleset::name::SetName;
use tcpgw_core::ruleset::step::PlanStep;
use tcpgw_core::summary::Summary;
use tcpgw_kernel::fake::Fake;
use tcpgw_kernel::netlink::recorded::RecordedAnswers;
use tcpgw_kernel::netlink::tlv::{Messages, Nack, Writer};
use tcpgw_kernel::nftables::elements;
use tcpgw_kernel::nftables::survey::Survey;
use tcpgw_kernel::nftables::transaction::{Sealed, Transaction};
use tcpgw_kernel::{Kernel, ObservedTable};

use super::messages;
use super::sample::{links, sample};

/// Checks that any text is a state or has problems, and that a state can be carried out and read back from its transaction.
pub fn check(bytes: &[u8]) {
    let state = match model::parse(bytes) {
        Ok(state) => state,
        Err(problems) => return check_problems(&problems),
    };
    check_rewritten(bytes, &state);
    let want = compile(&state, &links());
    check_ruleset(&state, &want);
    check_plans(&want);
    check_summary(&Summary::from(&state), &want);
    check_text(&want);
    check_transaction(&want);
}

fn check_problems(problems: &InputProblems) {
    assert!(!problems.is_empty());
    let text = problems.to_string();
    assert!(text.lines().count() <= model::MAX_PROBLEMS + 1);
    let dangerous = |char: char| char.is_control() && char != '\n';
    assert!(
        !text.contains(dangerous),
        "what is wrong is told with control characters: {text:?}"
    );
}

/// Checks that the same document in other words is the same state.
fn check_rewritten(bytes: &[u8], state: &State) {
    let document: serde_json::Value = serde_json::from_slice(bytes).expect("a state is JSON");
    let rewritten = serde_json::to_vec_pretty(&document).expect("JSON can be written");
    assert_eq!(model::parse(&rewritten).as_ref(), Ok(state));
    let mut services = state.services.clone();
    services.reverse();
    assert_eq!(State::new(services).as_ref(), Ok(state));
    for warning in model::warnings(state) {
        black_box(&warning.to_string());
    }
}

fn check_ruleset(state: &State, want: &Ruleset) {
    let mut unsorted = state.clone();
    unsorted.services.reverse();
    assert_eq!(&compile(&unsorted, &links()), want);
    let mut fake = Fake::holding(want, FlowMark::default()).expect("a kernel can hold what a state becomes");
    let ObservedTable::Ours { ruleset, .. } = fake.observe(FlowMark::default()).expect("it answers").table else {
        panic!("it is not there");
    };
    assert_eq!(&ruleset, want);
}

fn check_plans(want: &Ruleset) {
    assert!(plan(want, want).is_empty());
    let nothing = Ruleset::default();
    assert_eq!(plan(&nothing, want).elements(), want.len());
    for (have, want) in [(want, &sample().ruleset), (&sample().ruleset, want), (want, &nothing)] {
        let plan = plan(have, want);
        assert!(plan.steps.len() <= 3 && plan.is_empty() == (have == want));
    }
}

fn check_summary(summary: &Summary, want: &Ruleset) {
    assert_eq!(&Summary::of_kernel(want, summary), summary);
    black_box(&Summary::of_kernel(want, &sample().summary));
    let json = serde_json::to_vec(summary).expect("a summary can be written");
    assert_eq!(&serde_json::from_slice::<Summary>(&json).expect("and read"), summary);
    assert!(Changes::between(summary, summary, &BTreeMap::new()).is_empty());
    let changes = Changes::between(&sample().summary, summary, &BTreeMap::new());
    for change in &changes.services {
        black_box(&tcpgw::view::changes::line(change));
    }
    let (services, _) = ChangeCounts::between(&Summary::default(), summary);
    assert_eq!(services.added, summary.services.len());
}

fn check_text(want: &Ruleset) {
    let mut text = String::new();
    render::table(&mut text, want, FlowMark::default()).expect("text can be written");
    assert_eq!(text.matches('{').count(), text.matches('}').count());
}

/// Checks that elements have the same form in requests and in answers: an encoded transaction is read back as the ruleset.
fn check_transaction(want: &Ruleset) {
    let nothing = Ruleset::default();
    let plan = plan(&nothing, want);
    let empty = PlanStep::default();
    let mut transaction = Transaction::begin(Some(7), 40);
    transaction.step(plan.steps.first().unwrap_or(&empty), FlowMark::default());
    let sealed = transaction.seal().expect("everything fits");
    let mut sets: BTreeMap<SetName, Writer> = BTreeMap::new();
    for (seq, (kind, payload)) in (41..).zip(messages(&sealed, &mut 40)) {
        if sealed.trace(refusal(seq)).is_none() {
            assert_eq!(kind, messages::BATCH_END);
        }
        if [messages::NEW_SET, messages::NEW_ELEMENTS].contains(&kind) {
            let name = messages::set_name(&payload).expect("a set of ours");
            if name.is_counter() {
                // Packets fill it, and it is not read back.
                continue;
            }
            let answers = sets.entry(name).or_default();
            if kind == messages::NEW_ELEMENTS {
                messages::write(answers, kind, &payload);
            }
        }
    }
    let found = Survey {
        round_robin_chains: want.round_robin_chains().into_iter().cloned().collect(),
        sets: sets.keys().copied().collect(),
        optional_sets: want.optional_sets(),
        ..Survey::default()
    };
    let mut answers = Vec::new();
    for mut writer in sets.into_values() {
        messages::write_end(&mut writer);
        answers.extend(writer.finish().expect("it was written before"));
    }
    let mut recorded = RecordedAnswers::new(&answers);
    let (read, all_ours) = elements::elements(&mut recorded, &found).expect("elements can be read");
    assert!(all_ours && recorded.rest().is_empty());
    assert_eq!(&read, want);
}

/// Returns the kinds and payloads of the messages, in the order of their numbers, which are consecutive.
fn messages(sealed: &Sealed, last: &mut u32) -> Vec<(u16, Vec<u8>)> {
    let mut read = Vec::new();
    for part in sealed.parts() {
        for message in Messages::new(&part) {
            let message = message.expect("whole messages are sent");
            assert_eq!(message.seq, *last + 1);
            *last = message.seq;
            let (_, attrs) = message.family().expect("they are netfilter's");
            assert!(attrs.into_iter().all(|attr| attr.is_ok()));
            read.push((message.kind, message.payload.to_vec()));
        }
    }
    read
}

fn refusal(seq: u32) -> Nack {
    Nack {
        errno: 17,
        seq,
        message: None,
        offset: Some(60),
    }
}
