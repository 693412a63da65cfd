//! Messages of `nf_tables` about the table of tcpgw: sets, chains, rules, elements, counters.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::OnceLock;

use tcpgw_core::diff::ChangeCounts;
use tcpgw_core::model::FlowMark;
use tcpgw_core::plan::plan;
use tcpgw_core::render;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::room::Room;
use tcpgw_core::ruleset::rows::Rows;
use tcpgw_core::ruleset::skeleton::SkeletonChain;
use tcpgw_core::ruleset::spec::SetSpec;
use tcpgw_core::ruleset::text;
use tcpgw_core::summary::Summary;
use tcpgw_kernel::fake::Fake;
use tcpgw_kernel::linux;
use tcpgw_kernel::netlink::recorded::RecordedAnswers;
use tcpgw_kernel::nftables::survey::{self, Survey};
use tcpgw_kernel::nftables::{chains, elements, table};
use tcpgw_kernel::{Kernel as _, ObservedTable};

use super::messages;
use super::sample::sample;

/// Checks that any answers give a table or an error, and that a table can be compared, shown and replaced.
pub fn check(bytes: &[u8]) {
    let mut recorded = RecordedAnswers::new(bytes);
    let mark = FlowMark::default();
    match messages::kind(bytes) {
        Some(messages::NEW_GENERATION) => told(table::generation(&mut recorded)),
        Some(messages::NEW_TABLE) => match linux::read(&mut recorded, mark) {
            Ok(ObservedTable::Ours { ruleset, .. } | ObservedTable::Other { ruleset, .. }) => check_ruleset(&ruleset),
            other => told(other),
        },
        Some(messages::NEW_SET) => match survey::survey(&mut recorded, Room::default()) {
            Ok(mut found) => told(chains::skeleton_is_ours(&mut recorded, mark, &mut found)),
            error => told(error),
        },
        Some(messages::NEW_OBJECT) => told(survey::timeouts(&mut recorded, &[].into())),
        Some(messages::NEW_CHAIN) => told(chains::chains_match(&mut recorded, expected())),
        Some(messages::NEW_RULE) => told(chains::rules_match(&mut recorded, expected())),
        Some(messages::NEW_ELEMENTS) => check_elements(bytes),
        _ => {}
    }
}

fn told<T>(outcome: Result<T, tcpgw_kernel::netlink::error::NetlinkError>) {
    if let Err(error) = outcome {
        assert!(!error.to_string().is_empty());
    }
}

/// Returns the chains of a table without services.
fn expected() -> &'static BTreeMap<String, SkeletonChain> {
    static CHAINS: OnceLock<BTreeMap<String, SkeletonChain>> = OnceLock::new();
    CHAINS.get_or_init(|| chains::expected_chains(FlowMark::default(), &Survey::default()))
}

fn check_elements(bytes: &[u8]) {
    let Some(name) = messages::payload(bytes).and_then(messages::set_name) else {
        return;
    };
    let mut recorded = RecordedAnswers::new(bytes);
    if name.is_counter() {
        return told(elements::counted(&mut recorded, name));
    }
    let found = Survey {
        sets: [name].into(),
        ..Survey::default()
    };
    match elements::elements(&mut recorded, &found) {
        Ok((ruleset, _)) => check_ruleset(&ruleset),
        error => told(error),
    }
}

/// Checks that any contents of the table are a ruleset, and that a plan leads from it to others, because other programs may write
/// anything to the table.
pub fn check_ruleset(have: &Ruleset) {
    for (name, rows) in have.sets() {
        let packed = Rows::from_packed(&SetSpec::of(*name), rows.packed().to_vec());
        assert_eq!(packed.as_ref(), Some(rows), "{name} has an element twice");
        for row in rows {
            black_box(&(text::key(*name, row), text::network(*name, row)));
        }
    }
    assert!(plan(have, have).is_empty());
    let mut text = String::new();
    render::table(&mut text, have, FlowMark::default()).expect("text can be written");
    let summary = Summary::of_kernel(have, &sample().summary);
    black_box(&ChangeCounts::between(&summary, &sample().summary));
    black_box(&Summary::of_kernel(have, &Summary::default()));
    leads_to(have, &sample().ruleset);
    leads_to(have, &Ruleset::default());
}

/// Checks that a kernel with the ruleset `have` accepts every transaction of the plan to `want`.
fn leads_to(have: &Ruleset, want: &Ruleset) {
    // A ruleset that no kernel accepts cannot be there to begin with.
    let Ok(mut fake) = Fake::holding(have, FlowMark::default()) else {
        return;
    };
    for step in &plan(have, want).steps {
        let commit = tcpgw_kernel::Commit {
            generation: fake.generation(),
            mark: FlowMark::default(),
            build: None,
            step,
            forget: &[],
        };
        fake.commit(&commit)
            .unwrap_or_else(|error| panic!("{error}\n{step:#?}"));
    }
    assert_eq!(&fake.ruleset(), want);
}
