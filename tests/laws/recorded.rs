//! The record names the services in the kernel before the kernel has them, wherever a run dies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use tcpgw::reconcile::engine::{ChangeMemo, Engine, Memo, ServicesByName};
use tcpgw::record::{ApplyNote, JournalEntry, RecordFile, RecordHead, ServiceEntry, journal};
use tcpgw_core::model::{FlowMark, State};
use tcpgw_core::owner::{Details, Owner};
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::timeouts::KernelTimeouts;
use tcpgw_core::summary::{ServiceSummary, Summary};
use tcpgw_kernel::fake::{Crash, Fake};

use crate::state;
use crate::states::{links, ruleset, with_source};

const NAMESPACE: u64 = 6;

fn services(state: &State) -> ServicesByName {
    let services = state.services.iter();
    services
        .map(|service| (service.name.clone(), Arc::clone(service)))
        .collect()
}

fn applied() -> ApplyNote {
    ApplyNote {
        at: 1,
        origin: "api".into(),
        known: std::time::Duration::ZERO,
        store: None,
        provider: None,
    }
}

fn memo(state: &State) -> Memo {
    let names = state.services.iter().map(|service| service.name.clone());
    Memo {
        applied: applied(),
        drains: Vec::new(),
        pauses: Vec::new(),
        wanted: services(state),
        owners: names.map(|name| (name, Owner::Api)).collect(),
        suspended: BTreeSet::new(),
    }
}

fn change_memo(have: &State, want: &State) -> ChangeMemo {
    let wanted = services(want);
    let gone = have
        .services
        .iter()
        .filter(|service| !wanted.contains_key(&service.name));
    let gone = gone.map(|service| ServiceEntry::gone(&service.name));
    let put = wanted.values().map(|service| ServiceEntry {
        name: service.name.clone(),
        summary: Some(ServiceSummary::from(&**service)),
        details: Details::new(Owner::Api, service, service),
        deadlines: Vec::new(),
        pause: None,
    });
    ChangeMemo {
        applied: applied(),
        services: gone.chain(put).collect(),
    }
}

fn engine(fake: Fake, directory: &tempfile::TempDir) -> Engine<Fake> {
    let mut engine = Engine::new(
        fake,
        RecordFile::new(directory.path(), NAMESPACE),
        NAMESPACE,
        FlowMark::default(),
    );
    engine.set_links(links());
    engine
}

/// A link that appears while other programs write to their tables is no repair; a change of the table by another program is one.
#[test]
fn what_depends_on_links_is_put_right_and_is_no_drift() {
    let text = r#"{"version":1,"services":[{"name":"a","port":1,"backends":["10.2.0.1:80"],"source":"preserve"}]}"#;
    let state = tcpgw_core::model::parse(text.as_bytes()).unwrap();
    let mut with_another = links();
    with_another.insert("new".into(), with_source(2));
    for is_tampered in [false, true] {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut engine = engine(Fake::default(), &directory);
        engine.apply_all(&services(&state), memo(&state)).unwrap();
        let before = engine.kernel().ruleset();
        engine.kernel().disturb();
        if is_tampered {
            engine.kernel().tamper(Some("tcpgw 1"));
        }
        engine.set_links(with_another.clone());
        let checked = engine.check(&services(&state), memo(&state)).unwrap();
        assert!(checked.report.transactions > 0, "the table follows");
        assert_eq!(checked.drifted, is_tampered);
        assert_ne!(engine.kernel().ruleset(), before);
        assert_eq!(
            engine
                .check(&services(&state), memo(&state))
                .unwrap()
                .report
                .transactions,
            0
        );
        // A later write to the table by another program is found as before.
        engine.kernel().tamper(Some("tcpgw 1"));
        assert!(engine.check(&services(&state), memo(&state)).unwrap().drifted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_service_is_in_the_kernel_that_no_record_explains(
        have in state(), want in state(), quick: bool, call in 0..10_usize, done: bool,
    ) {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut first = engine(Fake::default(), &directory);
        first.apply_all(&services(&have), memo(&have)).unwrap();
        let before = first.kernel().ruleset();
        let mut fake = first.into_kernel();
        if !quick {
            // A process that begins reads the record, one that goes on remembers.
            fake.restart();
        }
        let mut dies = engine(fake, &directory);
        if quick {
            dies.apply_all(&services(&have), memo(&have)).unwrap();
        }
        dies.kernel().crash_at(Crash { call, done });
        let _ = if quick {
            dies.change(&have.services, &want.services, &[], change_memo(&have, &want)).map(|_| ())
        } else {
            dies.apply_all(&services(&want), memo(&want)).map(|_| ())
        };
        let mut fake = dies.into_kernel();
        fake.restart();
        let held = fake.ruleset();
        let found = engine(fake, &directory).read_contents(&Summary::default()).unwrap();
        let recorded = found.recorded.expect("a record");
        let details = recorded.details.expect("details");
        let known: BTreeMap<&str, &ServiceSummary> = recorded
            .summary
            .services
            .iter()
            .filter_map(|service| Some((service.name.as_deref()?, service)))
            .collect();
        for service in &found.summary.services {
            let is_left = recorded.left.services.iter().any(|left| left.listen_key() == service.listen_key());
            match service.name.as_deref() {
                Some(name) if known.contains_key(name) => {
                    prop_assert_eq!(details.get(name).map(|details| details.owner), Some(Owner::Api), "{}", name);
                }
                _ => prop_assert!(is_left, "{:?} is nobody's", service),
            }
        }
        let names = |state: &State| -> Vec<Box<str>> { services(state).into_keys().collect() };
        let found_names: Vec<Box<str>> = {
            let mut names: Vec<Box<str>> = found.summary.services.iter().filter_map(|of| of.name.clone()).collect();
            names.sort_unstable();
            names
        };
        if held == ruleset(&want) && held != before {
            prop_assert_eq!(found_names, names(&want));
        } else if held == before && held != ruleset(&want) {
            prop_assert_eq!(found_names, names(&have));
            let recorded: Vec<Box<str>> = known.keys().map(|name| Box::from(*name)).collect();
            prop_assert_eq!(recorded, names(&have), "what was not made is not recorded");
        }
    }

    /// The complete entries of a torn journal are read, and the journal goes on after them.
    #[test]
    fn a_torn_journal_is_what_is_whole_of_it(states in prop::collection::vec(state(), 1..5), cut in any::<prop::sample::Index>()) {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let store = RecordFile::new(directory.path(), NAMESPACE);
        let head = head();
        store.save(&head, &Ruleset::default()).unwrap();
        let path = directory.path().join(format!("netns-{NAMESPACE}.journal"));
        let entry = |at: usize, state: &State| JournalEntry {
            awaits: Some(u32::try_from(at).unwrap() + 100),
            applied: Some(applied()),
            services: change_memo(&State::default(), state).services,
        };
        let mut ends = vec![0];
        for (at, state) in states.iter().enumerate() {
            store.append(&entry(at, state)).unwrap();
            ends.push(std::fs::metadata(&path).unwrap().len());
        }
        let bytes = std::fs::read(&path).unwrap();
        let cut = cut.index(bytes.len() + 1);
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let whole = ends.iter().skip(1).filter(|end| **end <= cut as u64).count();
        let next = RecordFile::new(directory.path(), NAMESPACE);
        let read = next.load_head().unwrap();
        let expected: Vec<JournalEntry> = states[..whole].iter().enumerate().map(|(at, state)| entry(at, state)).collect();
        prop_assert_eq!(&read.changes, &expected);
        let last = entry(9, &states[0]);
        next.append(&last).unwrap();
        let read = RecordFile::new(directory.path(), NAMESPACE).load_head().unwrap();
        prop_assert_eq!(read.changes, expected.into_iter().chain([last]).collect::<Vec<_>>());
        // Another record knows nothing of it.
        let other = RecordHead { generation: 8, ..head };
        let journal = std::fs::read(&path).unwrap();
        next.save(&other, &Ruleset::default()).unwrap();
        std::fs::write(&path, journal).unwrap();
        prop_assert_eq!(RecordFile::new(directory.path(), NAMESPACE).load_head(), Some(other));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A journal that is cut anywhere gives the state after the changes that are complete before that place.
    #[test]
    fn each_cut_of_a_journal_is_the_state_after_its_whole_entries(states in prop::collection::vec(state(), 1..4)) {
        const RECORD: u32 = 5;
        let mut before = State::default();
        let mut journal = journal::header(RECORD);
        let (mut entries, mut ends, mut wanted) = (Vec::new(), vec![journal.len()], vec![Vec::new()]);
        for (at, state) in states.into_iter().enumerate() {
            let entry = JournalEntry {
                awaits: Some(u32::try_from(at).unwrap() + 100),
                applied: Some(applied()),
                services: change_memo(&before, &state).services,
            };
            journal.extend(journal::frame(&entry).unwrap());
            ends.push(journal.len());
            entries.push(entry);
            wanted.push(Summary::from(&state).services);
            before = state;
        }
        for cut in 0..=journal.len() {
            let read = journal::read(&journal[..cut], RECORD);
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let expected = whole.checked_sub(1).map(|whole| (entries[..whole].to_vec(), ends[whole]));
            prop_assert_eq!(read, expected, "cut at {}", cut);
        }
        for (whole, wanted) in wanted.iter().enumerate() {
            let changes = entries[..whole].to_vec();
            let mut served = RecordHead { changes, ..head() }.at(7).summary.services;
            let mut wanted = wanted.clone();
            served.sort_by(|a, b| a.name.cmp(&b.name));
            wanted.sort_by(|a, b| a.name.cmp(&b.name));
            prop_assert_eq!(served, wanted);
        }
    }
}

fn head() -> RecordHead {
    RecordHead {
        program: "1".into(),
        boot: "2".into(),
        namespace: NAMESPACE,
        generation: 7,
        table: 3,
        room: "0".into(),
        mark: FlowMark::default().to_string(),
        swept: true,
        applied: None,
        deadlines: Vec::new(),
        pauses: Vec::new(),
        details: Some([].into()),
        timeouts: KernelTimeouts::default(),
        summary: Summary::default(),
        is_hint: false,
        changes: Vec::new(),
        left: Summary::default(),
    }
}

/// A record at a generation has the noted changes, except one that awaited that generation and so was not made.
#[test]
fn a_change_counts_once_it_was_made() {
    let parse = |text: &str| tcpgw_core::model::parse_service(text.as_bytes()).unwrap();
    let entry = |awaits, service: &str, owner| {
        let service = parse(service);
        JournalEntry {
            awaits,
            applied: None,
            services: vec![ServiceEntry {
                name: service.name.clone(),
                summary: Some(ServiceSummary::from(&service)),
                details: Details::new(owner, &service, &service),
                deadlines: Vec::new(),
                pause: None,
            }],
        }
    };
    let web = r#"{"name": "web", "port": 2001, "backends": ["10.2.0.11:80"]}"#;
    let moved = r#"{"name": "web", "port": 2002, "backends": ["10.2.0.11:80"]}"#;
    let shop = r#"{"name": "shop", "port": 2003, "backends": []}"#;
    let head = RecordHead {
        changes: vec![
            entry(Some(7), web, Owner::Api),
            entry(None, shop, Owner::Orphan),
            entry(Some(8), moved, Owner::Api),
        ],
        ..head()
    };
    let ports = |head: &RecordHead| -> Vec<u16> { head.summary.services.iter().map(|service| service.port).collect() };
    let at = |generation| head.clone().at(generation);
    assert_eq!((ports(&at(7)), at(7).left.services.len()), (vec![2002, 2003], 0));
    assert_eq!((ports(&at(8)), at(8).left.services.len()), (vec![2001, 2003], 0));
    assert_eq!((ports(&at(9)), at(9).left.services[0].port), (vec![2002, 2003], 2001));
    assert_eq!(at(9).details.unwrap()["shop"].owner, Owner::Orphan);
}
