//! Random states one after the other, with trouble in between, on the real kernel: what it holds after each is what the
//! state becomes, and the kernel in memory, which the laws are proven on, has gone the same way.
//!
//! `TCPGW_SEQUENCES` (or `TCPGW_SOAK`) says how many, `TCPGW_SEED` which.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use tcpgw::reconcile::{Desired, ReconcileOptions, ReconcileReport, Reconciler};
use tcpgw::record::RecordFile;
use tcpgw_core::model::FlowMark;
use tcpgw_core::plan::plan;
use tcpgw_core::render;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::name::SetName;
use tcpgw_core::ruleset::rows::Rows;
use tcpgw_core::ruleset::spec::SetSpec;
use tcpgw_core::ruleset::step::{PlanStep, RowBatch};
use tcpgw_core::ruleset::text;
use tcpgw_kernel::fake::Fake;
use tcpgw_kernel::linux::Linux;
use tcpgw_kernel::netlink::socket::Netlink;
use tcpgw_kernel::netlink::tlv::{Attr, Attrs, Malformed, Message};
use tcpgw_kernel::{Commit, Counted, Kernel, KernelError, ObservedTable};

use crate::faults::{number, rounds};
use crate::harness::Net;
use crate::states::{desired, parse, ruleset, text};

const SEQUENCES: usize = 12;
const SEED: u64 = 1;
const NAMESPACE: u64 = 7;
/// `NFNLGRP_NFTABLES`
const NOTIFICATIONS: i32 = 7;
/// `NFT_MSG_NEWSETELEM` and `NFT_MSG_DELSETELEM` of `nf_tables`' subsystem.
const ELEMENTS: [u16; 2] = [0xa0c, 0xa0e];
/// Values that the counters of elements are set to, so that elements which were made anew can be recognised.
const COUNTED: (u64, u64) = (5, 500);

#[test]
fn the_kernel_goes_where_the_states_lead() {
    let (cases, seed) = (
        rounds("TCPGW_SEQUENCES", SEQUENCES),
        number("TCPGW_SEED").map_or(SEED, |seed| seed as u64),
    );
    eprintln!("TCPGW_SEED={seed} TCPGW_SEQUENCES={cases}");
    let config = Config {
        cases: u32::try_from(cases).expect("a sane number of sequences"),
        failure_persistence: None,
        max_shrink_iters: 400,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed.to_le_bytes().repeat(4));
    let net = Net::new();
    let outcome = net.within("gateway", || {
        TestRunner::new_with_rng(config, rng).run(&sequence(), |sequence| Both::new(&net).follow(&sequence))
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, sequence)) => panic!("TCPGW_SEED={seed}: {why}\n{sequence:?}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

/// Texts of states, each with the trouble before it is applied.
#[derive(Clone)]
struct Sequence(Vec<(Trouble, String)>);

/// Interference by other programs, or by a run that was killed.
#[derive(Debug, Clone)]
enum Trouble {
    None,
    /// The record is lost.
    Forgotten,
    /// A commit to another table.
    Elsewhere,
    /// An element of a set is deleted.
    Deleted(Index, Index),
    /// A set is emptied.
    Flushed(Index),
    /// An element that another state would have is added.
    Added(String, Index, Index),
    /// A run to another state died after so many transactions.
    Died(String, usize),
    /// A rule is added.
    Rule,
    /// The table is deleted.
    Removed,
}

fn sequence() -> impl Strategy<Value = Sequence> {
    let any = any::<Index>;
    let trouble = prop_oneof![
        6 => Just(Trouble::None),
        1 => Just(Trouble::Forgotten),
        1 => Just(Trouble::Elsewhere),
        2 => (any(), any()).prop_map(|(set, row)| Trouble::Deleted(set, row)),
        1 => any().prop_map(Trouble::Flushed),
        2 => (text(), any(), any()).prop_map(|(text, set, row)| Trouble::Added(text, set, row)),
        2 => (text(), 1..3_usize).prop_map(|(text, steps)| Trouble::Died(text, steps)),
        1 => Just(Trouble::Rule),
        1 => Just(Trouble::Removed),
    ];
    prop::collection::vec((trouble, text()), 2..6).prop_map(Sequence)
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (trouble, text) in &self.0 {
            writeln!(f, "{trouble:?}\n    {text}")?;
        }
        Ok(())
    }
}

/// The real kernel and the one in memory, each with its record.
struct Both<'a> {
    net: &'a Net,
    fake: Fake,
    stores: [RecordFile; 2],
    _directories: [tempfile::TempDir; 2],
}

impl<'a> Both<'a> {
    /// Removes the table in this thread's namespace, and makes an empty one in memory.
    fn new(net: &'a Net) -> Self {
        linux().remove().expect("the table can be removed");
        let directories = [(); 2].map(|()| tempfile::tempdir().expect("failed to make a directory"));
        let store = |at: usize| RecordFile::new(Path::new(directories[at].path()), NAMESPACE);
        Self {
            net,
            fake: Fake::default(),
            stores: [store(0), store(1)],
            _directories: directories,
        }
    }

    fn follow(mut self, sequence: &Sequence) -> Result<(), TestCaseError> {
        for (at, (trouble, text)) in sequence.0.iter().enumerate() {
            let want = desired(&parse(text));
            self.meet(trouble)?;
            self.apply(&want)?;
            if at == 0 {
                self.count(&want.ruleset);
            }
            self.compare_counters()?;
        }
        self.ask_nft(sequence)
    }

    /// Applies, and looks at what the kernel was told.
    fn apply(&mut self, want: &Desired) -> Result<(), TestCaseError> {
        let have = seen(&mut linux())?;
        let mut heard = Netlink::netfilter().expect("a socket");
        heard.join(NOTIFICATIONS).expect("notifications");
        let report = self.run(want)?;
        let has = seen(&mut linux())?;
        prop_assert!(
            has.as_ref() == Some(&want.ruleset),
            "the kernel differs: {}",
            differences(has.as_ref(), want)
        );
        prop_assert!(self.fake.ruleset() == want.ruleset, "the kernel in memory differs");
        if let Some(have) = have.filter(|_| report.rebuilt.is_none()) {
            for (set, key) in touched(&mut heard) {
                let stays = row(&have, set, &key).is_some_and(|row_was| row(&want.ruleset, set, &key) == Some(row_was));
                prop_assert!(!stays, "an element of {set} was touched: {:?}", text::key(set, &key));
            }
        }
        let before = linux().identity();
        let again = self.run(want)?;
        prop_assert_eq!(
            (again.transactions, again.elements),
            (0, 0),
            "a second run sends something"
        );
        prop_assert_eq!(told(&linux().identity()), told(&before));
        Ok(())
    }

    /// Runs in the real kernel and in the one in memory, and checks that both give the same result.
    fn run(&mut self, want: &Desired) -> Result<ReconcileReport, TestCaseError> {
        let [real, fake] = &self.stores;
        let real = run(&mut linux(), real, want)?;
        let fake = run(&mut self.fake, fake, want)?;
        prop_assert_eq!(
            &real,
            &fake,
            "the real kernel and the one in memory were told something else"
        );
        Ok(real)
    }

    fn meet(&mut self, trouble: &Trouble) -> Result<(), TestCaseError> {
        let Some(have) = seen(&mut linux())? else {
            return Ok(());
        };
        match trouble {
            Trouble::None => {}
            Trouble::Forgotten => {
                for store in &self.stores {
                    store.remove().expect("a record can be removed");
                }
            }
            Trouble::Elsewhere => {
                self.net
                    .nft("gateway", "add table ip elsewhere; delete table ip elsewhere");
                self.fake.disturb();
            }
            Trouble::Deleted(set, row) => {
                let Some((name, rows)) = pick(&have, *set) else {
                    return Ok(());
                };
                let row = rows.iter().nth(row.index(rows.len())).expect("it has as many").to_vec();
                self.commit(&deletion(name, vec![Cow::Owned(row)]))?;
            }
            Trouble::Flushed(set) => {
                let Some((name, rows)) = pick(&have, *set) else {
                    return Ok(());
                };
                self.commit(&deletion(name, rows.iter().map(Cow::Borrowed).collect()))?;
            }
            Trouble::Added(text, set, row) => {
                let other = ruleset(&parse(text));
                let Some((name, rows)) = pick(&other, *set) else {
                    return Ok(());
                };
                let row = rows.iter().nth(row.index(rows.len())).expect("it has as many");
                let key = &row[..SetSpec::of(name).identity_len()];
                let there =
                    matches!(name, SetName::Spread(..)) || have.rows(name).is_some_and(|rows| rows.contains(key));
                // Networks that overlap with others are refused.
                if !there && !SetSpec::of(name).interval {
                    let add = [(name, RowBatch::Some(vec![Cow::Borrowed(row)]))].into();
                    self.commit(&PlanStep {
                        add,
                        ..PlanStep::default()
                    })?;
                }
            }
            Trouble::Died(text, steps) => {
                let other = ruleset(&parse(text));
                for step in plan(&have, &other).steps.iter().take(*steps) {
                    self.commit(step)?;
                }
            }
            Trouble::Rule => {
                let comment = linux().comment().expect("an answer");
                self.net.nft("gateway", "add rule inet tcpgw balance counter");
                self.fake.tamper(comment.as_deref());
            }
            Trouble::Removed => {
                prop_assert_eq!(told(&linux().remove()), told(&self.fake.remove()));
            }
        }
        Ok(())
    }

    /// Commits a step to both kernels, as another program would.
    fn commit(&mut self, step: &PlanStep<'_>) -> Result<(), TestCaseError> {
        let mut linux = linux();
        let generation = linux.identity().expect("an answer").generation;
        let (real, memory) = (
            Commit {
                generation,
                mark: FlowMark::default(),
                build: None,
                step,
                forget: &[],
            },
            self.fake.generation(),
        );
        let fake = Commit {
            generation: memory,
            ..real
        };
        let outcomes = (linux.commit(&real), self.fake.commit(&fake));
        prop_assert!(outcomes.0.is_ok() && outcomes.1.is_ok(), "{outcomes:?}");
        Ok(())
    }

    /// Sets the counters of every element, as if packets had been counted.
    fn count(&mut self, has: &Ruleset) {
        let mut script = String::new();
        for set in counters() {
            for key in set
                .owners()
                .into_iter()
                .filter_map(|owner| has.rows(owner))
                .flat_map(Rows::iter)
            {
                let (packets, bytes) = COUNTED;
                let name = text::key(set, key).expect("it is a key");
                let _ = writeln!(
                    script,
                    "add element inet tcpgw {set} {{ {name} counter packets {packets} bytes {bytes} }}"
                );
                self.fake.count(set, key);
            }
        }
        self.net.nft("gateway", &script);
    }

    /// Counters live as long as what they count.
    fn compare_counters(&mut self) -> Result<(), TestCaseError> {
        let mut linux = linux();
        for set in counters() {
            let keys = |counted: &[Counted]| counted.iter().map(|of| of.key.clone()).collect::<BTreeSet<_>>();
            let real = linux.counted(set).expect("an answer");
            let fake = self.fake.counted(set).expect("an answer");
            prop_assert_eq!(keys(&real), keys(&fake), "counters of {}", set);
            let kept = real.iter().all(|of| (of.packets, of.bytes) == COUNTED);
            prop_assert!(kept, "counters of {set} were reset: {real:?}");
        }
        Ok(())
    }

    /// Checks that nft can list the table, and that it would load the rendered text.
    fn ask_nft(&self, sequence: &Sequence) -> Result<(), TestCaseError> {
        let listed = self.net.run("gateway", &["nft", "list", "table", "inet", "tcpgw"]);
        prop_assert_eq!(listed.status, 0, "{}", listed);
        let Some((_, last)) = sequence.0.last() else {
            return Ok(());
        };
        let mut text = String::new();
        render::table(&mut text, &ruleset(&parse(last)), FlowMark::default()).expect("text can be written");
        let checked = self.net.run_with("peer", &["nft", "-c", "-f", "-"], &text);
        prop_assert_eq!(checked.status, 0, "{}", checked);
        Ok(())
    }
}

fn linux() -> Linux {
    Linux::open().expect("a netlink socket")
}

fn run<K: Kernel>(kernel: &mut K, store: &RecordFile, want: &Desired) -> Result<ReconcileReport, TestCaseError> {
    let fail = |error: &dyn fmt::Display| TestCaseError::fail(error.to_string());
    let mut reconciler = Reconciler::new(kernel, store, NAMESPACE, FlowMark::default());
    let known = reconciler.read_contents(&want.summary).map_err(|error| fail(&error))?;
    let report = reconciler.apply(known, want, &ReconcileOptions::default());
    Ok(ReconcileReport {
        committing: Duration::ZERO,
        flushing: Duration::ZERO,
        ..report.map_err(|error| fail(&error))?
    })
}

/// Returns the contents of the sets, or `None` without a table.
fn seen(linux: &mut Linux) -> Result<Option<Ruleset>, TestCaseError> {
    let observed = linux.observe(FlowMark::default());
    match observed.map_err(|error| TestCaseError::fail(error.to_string()))?.table {
        ObservedTable::Absent => Ok(None),
        ObservedTable::Ours { ruleset, .. } | ObservedTable::Other { ruleset, .. } => Ok(Some(ruleset)),
    }
}

fn told<T: fmt::Debug>(outcome: &Result<T, KernelError>) -> String {
    format!("{outcome:?}")
}

/// Returns the differences from the wanted ruleset, by set and key.
fn differences(has: Option<&Ruleset>, want: &Desired) -> String {
    let Some(has) = has else {
        return "there is no table".to_owned();
    };
    let mut text = String::new();
    for step in &plan(has, &want.ruleset).steps {
        for (what, batches) in [("delete", &step.delete), ("add", &step.add)] {
            for (set, batch) in batches {
                let keys: Vec<_> = batch.rows().filter_map(|row| text::key(*set, row)).collect();
                let _ = writeln!(text, "{what} in {set}: {}", keys.join(", "));
            }
        }
        let _ = writeln!(
            text,
            "round robin: {:?} {:?}",
            step.delete_round_robin_services, step.add_round_robin_services
        );
        let _ = writeln!(text, "widths: {:?} {:?}", step.new_widths, step.old_widths);
    }
    text
}

fn deletion(set: SetName, rows: Vec<Cow<'_, [u8]>>) -> PlanStep<'_> {
    PlanStep {
        delete: [(set, RowBatch::Some(rows))].into(),
        ..PlanStep::default()
    }
}

fn pick(ruleset: &Ruleset, set: Index) -> Option<(SetName, &Rows)> {
    let sets = ruleset.sets();
    let at = (!sets.is_empty()).then(|| set.index(sets.len()))?;
    sets.iter().nth(at).map(|(name, rows)| (*name, rows))
}

/// Returns the sets of counters whose keys belong to services or backends.
fn counters() -> impl Iterator<Item = SetName> {
    let counts = |set: &SetName| set.is_counter() && !set.owners().is_empty();
    SetName::fixed().into_iter().filter(counts)
}

/// Returns the element of that key, with any data.
fn row(ruleset: &Ruleset, set: SetName, key: &[u8]) -> Option<Vec<u8>> {
    if let SetName::RoundRobin(reach) = set {
        return ruleset
            .round_robin_services()
            .get(&(reach, key.into()))
            .map(|chain| chain.to_string().into_bytes());
    }
    ruleset
        .rows(set)?
        .iter()
        .find(|row| row.starts_with(key))
        .map(<[u8]>::to_vec)
}

/// Returns the elements of the table that transactions have added or deleted, without counters.
fn touched(heard: &mut Netlink) -> Vec<(SetName, Vec<u8>)> {
    let mut touched = Vec::new();
    while let Some(messages) = heard.try_recv().expect("notifications") {
        for message in messages {
            let message = message.expect("a whole message");
            touched.extend(elements(&message).expect("a well-formed one"));
        }
    }
    touched
}

fn elements(message: &Message<'_>) -> Result<Vec<(SetName, Vec<u8>)>, Malformed> {
    const TABLE: u16 = 1;
    const SET: u16 = 2;
    const LIST: u16 = 3;
    const KEY: u16 = 1;
    const KEY_END: u16 = 10;
    const VALUE: u16 = 1;
    let (_, attrs) = message.family()?;
    let text = |kind| attrs.clone().first(kind)?.map(|attr| attr.str()).transpose();
    if !ELEMENTS.contains(&message.kind) || text(TABLE)? != Some("tcpgw") {
        return Ok(Vec::new());
    }
    let set = text(SET)?.and_then(SetName::parse).filter(|set| !set.is_counter());
    let mut keys = Vec::new();
    for element in attrs.first(LIST)?.map_or(Attrs::new(&[]), |list| list.nested()) {
        let element = element?;
        let value = |kind| -> Result<Option<Attr<'_>>, Malformed> {
            let key = element.nested().first(kind)?;
            Ok(key.map(|key| key.nested().first(VALUE)).transpose()?.flatten())
        };
        let ends = [value(KEY)?, value(KEY_END)?];
        let key: Vec<u8> = ends.iter().flatten().flat_map(|value| value.payload).copied().collect();
        keys.extend(set.map(|set| (set, key)));
    }
    Ok(keys)
}
