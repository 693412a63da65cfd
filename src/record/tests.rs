use super::*;
use std::time::Duration;
use tcpgw_core::ruleset::compile::compile;
use tcpgw_core::ruleset::timeouts::KernelTimeouts;
use tcpgw_core::summary::Summary;

fn head() -> RecordHead {
    RecordHead {
        program: "1".into(),
        boot: boot_id(),
        namespace: 7,
        generation: 3,
        table: 9,
        room: "0".into(),
        mark: String::new(),
        timeouts: KernelTimeouts::default(),
        swept: true,
        applied: Some(ApplyNote {
            at: 5,
            origin: "-".into(),
            known: Duration::from_secs(6),
            store: Some(StoreRevision::new(
                Path::new("/s.db"),
                4,
                Some(String::from("00c0ffee00c0ffee").try_into().unwrap()),
                StoreLineage {
                    epoch: Some(StoreEpoch::new(7)),
                    contents: Some(-8),
                },
            )),
            provider: None,
        }),
        deadlines: vec![Deadline {
            service: "a".into(),
            backend: "10.2.0.1:80".parse().unwrap(),
            until: Duration::from_millis(7001),
            time: Duration::from_secs(30),
        }],
        pauses: vec![RecordedPause {
            service: "a".into(),
            since: 6,
            uid: 7,
            browser: None,
            until: Duration::from_secs(8),
            time: Duration::from_secs(9),
        }],
        details: Some([("a".into(), tcpgw_core::owner::Details::default())].into()),
        summary: Summary::default(),
        is_hint: false,
        changes: Vec::new(),
        left: Summary::default(),
    }
}

#[test]
fn a_record_is_read_as_it_was_written() {
    let text = br#"{"version":1,"services":[
        {"name":"a","port":2000,"balance":"round-robin","backends":["10.0.0.1:1","[fd00::1]:1"],"limit":{"pps":5}},
        {"name":"b","port":2001,"backends":["10.0.0.2:1"],"deny":["192.0.2.0/24"]}]}"#;
    let state = tcpgw_core::model::parse(text).unwrap();
    let record = Record {
        head: RecordHead {
            summary: Summary::from(&state),
            ..head()
        },
        ruleset: compile(&state, &["eth0".to_owned()].into()),
    };
    let directory = tempfile::tempdir().unwrap();
    let store = RecordFile::new(directory.path(), 7);
    assert_eq!(store.load(), None);
    store.save(&record.head, &record.ruleset).unwrap();
    assert_eq!(store.load_head().as_ref(), Some(&record.head));
    assert_eq!(store.load(), Some(record));
    store.remove().unwrap();
    assert_eq!(store.load(), None);
}

#[test]
fn no_drain_has_more_than_its_time() {
    let seconds = Duration::from_secs;
    for (until, boot, left) in [
        (100, 90, 10),
        (100, 70, 30),
        (100, 60, 30),
        (100, 100, 0),
        (100, 200, 0),
    ] {
        let deadline = Deadline {
            service: "a".into(),
            backend: "10.2.0.1:80".parse().unwrap(),
            until: seconds(until),
            time: seconds(30),
        };
        assert_eq!(deadline.left(seconds(boot)), seconds(left), "{until} {boot}");
    }
}

#[test]
fn a_torn_record_is_none() {
    let record = Record {
        head: head(),
        ruleset: Ruleset::default(),
    };
    let bytes = record.encode().unwrap();
    assert!(Record::decode(&bytes).is_some());
    for length in 0..bytes.len() {
        assert!(Record::decode(&bytes[..length]).is_none());
    }
    for at in 0..bytes.len() {
        let mut torn = bytes.clone();
        torn[at] ^= 1;
        assert!(Record::decode(&torn).is_none());
    }
}
