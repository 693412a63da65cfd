//! Endpoints that several services have.

use super::*;

#[test]
fn what_others_claim_is_refused() {
    let mut play = Play::serving(&[1, 2]);
    play.want("db", Some(service("db", 9000, &["\"10.2.0.9:80\""])));
    let clash = |put: &[Arc<Service>], gone: &[&str]| {
        let edits = Edits {
            put: put.to_vec(),
            gone: gone.iter().map(|name| Name::from(*name)).collect(),
        };
        play.membership.clashes(&edits).to_string()
    };
    let limited = |service: &Service| {
        let limit = service_with("limited", 1, &["\"10.2.0.1:80\""], r#","limit":{"pps":5}"#).limit;
        Arc::new(Service {
            limit,
            ..service.clone()
        })
    };
    let other = service("other", 8000, &["\"10.2.0.2:80\"", "\"10.2.0.3:80\""]);
    assert_eq!(
        clash(&[Arc::clone(&other)], &[]),
        "service \"other\", port: 8000 is already taken by service \"web\""
    );
    assert_eq!(clash(&[other], &["web"]), "");
    let shared = service("db", 9000, &["\"10.2.0.9:80\"", "\"10.2.0.1:80\""]);
    assert_eq!(clash(&[Arc::clone(&shared)], &[]), "");
    let differs = clash(&[limited(&shared)], &[]);
    let expected = "service \"db\", backends: 10.2.0.1:80 is also a backend of service \"web\", with another limit: ";
    assert!(differs.starts_with(expected), "{differs}");
    assert_eq!(clash(&[limited(&shared), web(&[2])], &[]), "");
    assert_eq!(clash(&[limited(&shared), limited(&web(&[1, 2]))], &[]), "");
}

/// Returns "web" on port 8000 with 10.2.0.1 and 10.2.0.2, and "alt" on port 8080 with these, too.
fn sharing() -> Play {
    let mut play = Play::serving(&[1, 2]);
    play.want("alt", Some(alt(&[1, 2])));
    play.now += Duration::from_secs(1);
    play.judge(1, true);
    play.judge(2, true);
    assert_eq!((play.seen("web"), play.seen("alt")), ("1 2".into(), "1 2".into()));
    play.take_probes();
    play.notes.clear();
    play
}

fn alt(backends: &[u8]) -> Arc<Service> {
    let texts: Vec<String> = backends.iter().map(|last| format!("\"10.2.0.{last}:80\"")).collect();
    service("alt", 8080, &texts.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn one_that_comes_to_a_second_service_answers_there_first() {
    let mut play = Play::serving(&[1, 2]);
    play.judge(1, true);
    play.wait(Duration::from_secs(1));
    play.want("alt", Some(alt(&[1])));
    assert!(matches!(play.probes[&endpoint(1)], Probing::Again(_)));
    play.settle();
    assert_eq!((play.seen("web"), play.seen("alt")), ("1 2".into(), String::new()));
    play.judge(1, true);
    assert_eq!((play.seen("web"), play.seen("alt")), ("1 2".into(), "1".into()));
}

#[test]
fn a_drain_in_one_service_is_none_in_the_other() {
    let mut play = sharing();
    play.want("web", Some(web(&[2])));
    let change = play.settle();
    assert_eq!((play.seen("web"), play.seen("alt")), ("1- 2".into(), "1 2".into()));
    assert!(play.membership.is_balanced(endpoint(1)));
    let pair = |port| Pair {
        public: None,
        public_port: port,
        backend: endpoint(1).into(),
    };
    assert_eq!(change.unbalanced, [pair(8000)].into());
    assert!(!play.membership.is_balanced_there(&pair(8000)) && play.membership.is_balanced_there(&pair(8080)));
    assert_eq!(
        play.membership.draining_pairs(),
        [(pair(8000), Name::from("web"))].into()
    );
    let beside: Vec<&str> = change.beside.iter().map(|service| &*service.name).collect();
    assert_eq!(beside, ["alt"], "the endpoint's elements stay for it");
    play.wait(TIME);
    assert_eq!((play.seen("web"), play.seen("alt")), ("2".into(), "1 2".into()));
    assert!(
        play.notes
            .iter()
            .any(|note| matches!(note, Note::Retired(service, ..) if **service == *"web"))
    );
    assert!(
        play.take_probes()
            .values()
            .all(|probing| matches!(probing, Probing::With(_)))
    );
    play.want("alt", Some(alt(&[2])));
    play.settle();
    assert_eq!((play.seen("web"), play.seen("alt")), ("2".into(), "1- 2".into()));
    play.wait(TIME);
    assert_eq!((play.seen("web"), play.seen("alt")), ("2".into(), "2".into()));
    let probes = play.take_probes();
    assert_eq!(probes[&endpoint(1)], Probing::Stop);
}

#[test]
fn one_that_drains_in_both_has_a_time_in_each() {
    let mut play = sharing();
    play.want("web", Some(web(&[2])));
    play.settle();
    play.wait(TIME / 2);
    play.want("alt", Some(alt(&[2])));
    play.settle();
    assert_eq!((play.seen("web"), play.seen("alt")), ("1- 2".into(), "1- 2".into()));
    play.counted(1, 0);
    assert_eq!((play.seen("web"), play.seen("alt")), ("2".into(), "1- 2".into()));
    play.wait(TIME / 2);
    assert_eq!((play.seen("web"), play.seen("alt")), ("2".into(), "1- 2".into()));
    play.wait(TIME / 2);
    assert_eq!(play.seen("alt"), "2");
    assert!(play.membership.draining_backends().is_empty());
}

#[test]
fn one_that_fails_leaves_both_and_a_moved_one_leaves_neither_behind() {
    let mut play = sharing();
    play.judge(1, false);
    assert_eq!((play.seen("web"), play.seen("alt")), ("1- 2".into(), "1- 2".into()));
    play.judge(1, true);
    play.edit(&Edits {
        put: vec![web(&[2]), alt(&[2]), service("shop", 9000, &["\"10.2.0.1:80\""])],
        gone: Vec::new(),
    });
    assert!(matches!(play.probes[&endpoint(1)], Probing::Anew(_)));
    play.settle();
    assert_eq!(
        (play.seen("web"), play.seen("alt"), play.seen("shop")),
        ("2".into(), "2".into(), String::new())
    );
    assert!(play.membership.draining_backends().is_empty());
}

/// An endpoint that stays in one of its services is still the same container.
#[test]
fn one_that_changes_one_of_two_services_drains_there() {
    let mut play = sharing();
    play.wait(Duration::from_secs(1));
    play.edit(&Edits {
        put: vec![web(&[2]), service("shop", 9000, &["\"10.2.0.1:80\""])],
        gone: Vec::new(),
    });
    play.settle();
    assert_eq!(
        (play.seen("web"), play.seen("alt"), play.seen("shop")),
        ("1- 2".into(), "1 2".into(), String::new())
    );
    play.wait(Duration::from_secs(1));
    play.judge(1, true);
    assert_eq!(play.seen("shop"), "1");
}

#[test]
fn shared_ones_are_adopted_with_a_time_in_each_service() {
    let mut play = Play::new();
    let mut old = Service::clone(&web(&[1, 2]));
    old.backends[0].state = BackendState::Draining;
    let time = TimeLeft {
        left: Duration::from_secs(5),
        whole: TIME,
    };
    let left = [((endpoint(1), "web".into()), time)].into();
    play.good = [1, 2].into();
    play.membership
        .adopt(vec![old, Service::clone(&alt(&[1, 2]))], &left, play.now);
    play.edit(&Edits {
        put: vec![web(&[2]), alt(&[1, 2])],
        gone: Vec::new(),
    });
    play.settle();
    assert_eq!((play.seen("web"), play.seen("alt")), ("1- 2".into(), "1 2".into()));
    assert!(is_probed(&play.take_probes(), 1));
    play.wait(Duration::from_secs(5));
    assert_eq!((play.seen("web"), play.seen("alt")), ("2".into(), "1 2".into()));
}

/// Returns edits that add these services with the same 8 endpoints.
fn all_sharing(services: std::ops::Range<u16>, pps: u32) -> Edits {
    let backends: Vec<String> = (1..=8).map(|last| format!("\"10.2.0.{last}:80\"")).collect();
    let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
    let limit = format!(r#","limit":{{"pps":{pps}}}"#);
    let put = services.map(|at| service_with(&format!("s{at:04}"), 8000 + at, &backends, &limit));
    Edits {
        put: put.collect(),
        gone: Vec::new(),
    }
}

/// Returns the number of visits for adding a number of services, changing all of them, and removing them, while the
/// result of each endpoint's probes changes.
fn visits_of(services: u16) -> usize {
    let mut play = Play::new();
    play.good = (1..=8).collect();
    let half = all_sharing(0..services / 2, 7);
    play.edit(&half);
    play.settle();
    services::visits::take();
    let rest = all_sharing(services / 2..services, 7);
    assert!(play.membership.clashes(&rest).is_empty());
    let others = all_sharing(services / 2..services, 8);
    assert!(!play.membership.clashes(&others).is_empty());
    play.edit(&rest);
    play.settle();
    for last in 1..=8 {
        play.judge(last, true);
    }
    assert_eq!(play.membership.serving().len(), usize::from(services));
    let all = all_sharing(0..services, 9);
    assert!(play.membership.clashes(&all).is_empty());
    play.edit(&all);
    play.settle();
    let gone = Edits {
        put: Vec::new(),
        gone: play.membership.wanted().keys().cloned().collect(),
    };
    play.edit(&gone);
    play.settle();
    play.edit(&all_sharing(services..services * 2, 7));
    play.settle();
    services::visits::take()
}

#[test]
fn work_grows_with_the_services_that_share_an_endpoint_and_not_with_their_square() {
    let (few, many) = (visits_of(40), visits_of(160));
    assert!(few > 0 && many < 6 * few, "{few}, then {many}");
}

#[test]
fn backends_that_another_service_has_or_has_just_had_are_known() {
    let mut play = sharing();
    play.want("alt", Some(alt(&[2])));
    play.settle();
    let shared = |play: &Play, name: &str| -> Vec<String> {
        let shared = play.membership.shared_backends(name);
        shared.iter().map(ToString::to_string).collect()
    };
    let both = ["10.2.0.1:80", "10.2.0.2:80"];
    assert_eq!(play.seen("alt"), "1- 2", "10.2.0.1 drains there");
    assert_eq!(shared(&play, "web"), both);
    assert_eq!(shared(&play, "alt"), &both[1..]);
    assert!(shared(&play, "other").is_empty());
    play.wait(TIME * 2);
    assert_eq!(shared(&play, "web"), &both[1..]);
}
