use super::*;
use tcpgw_core::drain::DrainEnd;
use tcpgw_core::health::longest_fall;
use tcpgw_core::model::PacketRefusal;

const TIME: Duration = Duration::from_secs(30);

fn service(name: &str, port: u16, backends: &[&str]) -> Arc<Service> {
    service_with(name, port, backends, "")
}

fn service_with(name: &str, port: u16, backends: &[&str], rest: &str) -> Arc<Service> {
    let text = format!(
        r#"{{"version":1,"services":[{{"name":"{name}","port":{port},"backends":[{}]{rest}}}]}}"#,
        backends.join(",")
    );
    let mut state = tcpgw_core::model::parse(text.as_bytes()).unwrap();
    state.services.remove(0)
}

fn endpoint(last: u8) -> Endpoint {
    format!("10.2.0.{last}:80")
        .parse::<std::net::SocketAddr>()
        .unwrap()
        .try_into()
        .unwrap()
}

/// Returns service "web" with backends in 10.2.0.0/24 by their last number.
fn web(backends: &[u8]) -> Arc<Service> {
    let texts: Vec<String> = backends.iter().map(|last| format!("\"10.2.0.{last}:80\"")).collect();
    service("web", 8000, &texts.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A membership, with the numbers of healthy and of dead backends.
struct Play {
    membership: Membership,
    good: BTreeSet<u8>,
    dead: BTreeSet<u8>,
    now: Instant,
    notes: Vec<Note>,
    probes: BTreeMap<Endpoint, Probing>,
    failed: BTreeMap<u8, Instant>,
    answered: BTreeMap<u8, Instant>,
}

fn last(endpoint: Endpoint) -> u8 {
    endpoint.to_string()[7..].trim_end_matches(":80").parse().unwrap()
}

impl Play {
    fn new() -> Self {
        Self {
            membership: Membership::new(AllFailed::Keep),
            good: BTreeSet::new(),
            dead: BTreeSet::new(),
            now: Instant::now(),
            notes: Vec::new(),
            probes: BTreeMap::new(),
            failed: BTreeMap::new(),
            answered: BTreeMap::new(),
        }
    }

    fn serving(backends: &[u8]) -> Self {
        let mut play = Self::new();
        play.good = backends.iter().copied().collect();
        play.want("web", Some(web(backends)));
        play.settle();
        play
    }

    fn want(&mut self, name: &str, service: Option<Arc<Service>>) {
        let gone = if service.is_none() {
            vec![name.into()]
        } else {
            Vec::new()
        };
        self.edit(&Edits {
            put: service.into_iter().collect(),
            gone,
        });
    }

    fn edit(&mut self, edits: &Edits) {
        self.membership.edit(edits, self.now);
        for (endpoint, probing) in self.membership.take_probes() {
            if matches!(probing, Probing::Anew(_)) {
                self.good.remove(&last(endpoint));
                self.failed.remove(&last(endpoint));
            }
            self.probes.insert(endpoint, probing);
        }
    }

    fn take_probes(&mut self) -> BTreeMap<Endpoint, Probing> {
        self.probes.extend(self.membership.take_probes());
        std::mem::take(&mut self.probes)
    }

    fn judge(&mut self, last: u8, good: bool) {
        if good {
            self.good.insert(last);
            self.answered.insert(last, self.now);
        } else if self.good.remove(&last) {
            self.failed.insert(last, self.now);
        }
        self.membership.judged(endpoint(last));
        self.settle();
    }

    fn settle(&mut self) -> MembershipChange {
        let (good, dead, failed, answered) = (&self.good, &self.dead, &self.failed, &self.answered);
        let verdict = |at: Endpoint| BackendVerdict {
            good: good.contains(&last(at)),
            dead: dead.contains(&last(at)),
            open: false,
            failed: failed.get(&last(at)).copied(),
            answered: answered.get(&last(at)).copied(),
        };
        self.membership.tick(self.now);
        let change = self.membership.settle(&verdict, self.now);
        self.notes.extend(change.notes.clone());
        assert!(!self.membership.is_dirty());
        change
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.settle();
    }

    fn counted(&mut self, last: u8, flows: u64) {
        let notes = self
            .membership
            .counted(&[(("web".into(), endpoint(last)), flows)].into(), self.now);
        self.notes.extend(notes);
        self.settle();
    }

    /// Returns the backends of a service in the kernel, such as `1 2-`: 1 is active and 2 drains; `-` alone: there is
    /// no such service.
    fn seen(&self, name: &str) -> String {
        let Some(service) = self.membership.serving().get(name) else {
            return "-".into();
        };
        let backends = service.backends.iter().map(|backend| {
            let last = backend.endpoint.to_string()[7..].trim_end_matches(":80").to_owned();
            match backend.state {
                BackendState::Active => last,
                BackendState::Draining => last + "-",
            }
        });
        backends.collect::<Vec<_>>().join(" ")
    }
}

fn is_probed(probes: &BTreeMap<Endpoint, Probing>, last: u8) -> bool {
    matches!(probes[&endpoint(last)], Probing::With(_))
}

#[test]
fn a_new_backend_waits_for_its_first_handshake() {
    let mut play = Play::new();
    play.want("web", Some(web(&[1, 2])));
    play.settle();
    assert_eq!(play.seen("web"), "");
    play.judge(2, true);
    assert_eq!(play.seen("web"), "2");
    play.judge(1, true);
    assert_eq!(play.seen("web"), "1 2");
}

#[test]
fn old_backends_serve_until_a_new_one_answers() {
    let mut play = Play::serving(&[1, 2]);
    play.want("web", Some(web(&[3, 4])));
    play.settle();
    assert_eq!(play.seen("web"), "1 2");
    assert_eq!(play.membership.draining_backends().len(), 2);
    play.judge(4, true);
    assert_eq!(play.seen("web"), "1- 2- 4");
    play.counted(1, 0);
    assert_eq!(play.seen("web"), "2- 4");
    play.counted(2, 5);
    play.wait(Duration::from_millis(29_999));
    assert_eq!(play.seen("web"), "2- 4");
    play.wait(Duration::from_millis(1));
    assert_eq!(play.seen("web"), "4");
    let retired = |last, over, flows| Note::Retired("web".into(), endpoint(last), over, flows);
    assert!(play.notes.contains(&retired(1, DrainEnd::Ended, None)));
    assert!(play.notes.contains(&retired(2, DrainEnd::Deadline, Some(5))));
    assert!(play.membership.draining_backends().is_empty());
}

#[test]
fn new_ones_that_fail_again_call_the_old_ones_back() {
    let mut play = Play::serving(&[1]);
    play.want("web", Some(web(&[2])));
    play.judge(2, true);
    assert_eq!(play.seen("web"), "1- 2");
    play.judge(2, false);
    assert_eq!(play.seen("web"), "1- 2", "the last good one is the new one");
    assert!(play.notes.contains(&Note::NoneGood("web".into(), 1)));
}

#[test]
fn all_that_failed_together_stay() {
    let mut play = Play::serving(&[1, 2, 3, 4]);
    let window = longest_fall(&web(&[1]).health);
    play.judge(4, false);
    play.wait(window);
    play.wait(Duration::from_millis(1));
    play.judge(1, false);
    play.wait(window / 2);
    play.judge(2, false);
    assert_eq!(play.seen("web"), "1- 2- 3 4-");
    play.wait(window / 2);
    play.judge(3, false);
    assert_eq!(play.seen("web"), "1 2 3 4-", "4 failed long before");
    assert!(play.notes.contains(&Note::NoneGood("web".into(), 3)));
    play.wait(window * 10);
    assert_eq!(play.seen("web"), "1 2 3 4-", "time changes nothing");
    play.want("web", Some(web(&[1, 2, 3, 4, 5])));
    play.settle();
    assert_eq!(
        play.seen("web"),
        "1 2 3 4-",
        "who never answered is nobody's last choice"
    );
    play.judge(4, true);
    assert_eq!(play.seen("web"), "1- 2- 3- 4");
    play.judge(4, false);
    assert_eq!(play.seen("web"), "1- 2- 3- 4", "it answered later than the others");
}

#[test]
fn who_fails_leaves_and_comes_back() {
    let mut play = Play::serving(&[1, 2]);
    play.judge(1, false);
    assert_eq!(play.seen("web"), "1- 2");
    play.wait(TIME);
    play.judge(2, false);
    assert_eq!(play.seen("web"), "1- 2", "the last good one stays");
    play.judge(1, true);
    assert_eq!(play.seen("web"), "1 2-");
    play.wait(TIME * 10);
    assert_eq!(play.seen("web"), "1 2-", "who is wanted has no deadline");
    play.judge(2, true);
    assert_eq!(play.seen("web"), "1 2");
}

#[test]
fn nobody_stays_where_that_is_wanted() {
    let mut play = Play::serving(&[1, 2]);
    play.membership.set_all_failed(AllFailed::Empty);
    play.judge(1, false);
    play.judge(2, false);
    assert_eq!(play.seen("web"), "1- 2-");
    play.membership.set_all_failed(AllFailed::Keep);
    play.judge(2, true);
    assert_eq!(play.seen("web"), "1- 2");
}

#[test]
fn who_leaves_and_is_dead_goes_at_once() {
    let mut play = Play::serving(&[1, 2, 3]);
    play.good.remove(&1);
    play.dead.insert(1);
    play.want("web", Some(web(&[2])));
    play.settle();
    assert_eq!(play.seen("web"), "2 3-");
    play.dead.insert(3);
    play.membership.judged(endpoint(3));
    play.settle();
    assert_eq!(play.seen("web"), "2");
    assert!(
        play.notes
            .contains(&Note::Retired("web".into(), endpoint(3), DrainEnd::Dead, None))
    );
}

#[test]
fn a_service_that_goes_drains() {
    let mut play = Play::serving(&[1, 2]);
    play.want("web", None);
    play.settle();
    assert_eq!(play.seen("web"), "1- 2-");
    play.counted(1, 0);
    assert_eq!(play.seen("web"), "2-");
    play.wait(TIME);
    assert_eq!(play.seen("web"), "-");
    let gone = play.take_probes();
    assert_eq!(gone.get(&endpoint(1)), Some(&Probing::Stop));
    assert_eq!(gone.get(&endpoint(2)), Some(&Probing::Stop));
}

#[test]
fn a_service_that_comes_back_takes_its_backends_back() {
    let mut play = Play::serving(&[1, 2]);
    play.want("web", None);
    play.settle();
    play.want("web", Some(web(&[1, 3])));
    play.settle();
    assert_eq!(play.seen("web"), "1 2-");
    assert!(play.notes.contains(&Note::Back("web".into(), endpoint(1))));
}

#[test]
fn another_service_on_the_same_port_inherits_what_drains() {
    let mut play = Play::serving(&[1, 2]);
    play.want("web", None);
    play.want(
        "shop",
        Some(service("shop", 8000, &["\"10.2.0.2:80\"", "\"10.2.0.3:80\""])),
    );
    play.settle();
    assert_eq!((play.seen("web"), play.seen("shop")), ("-".into(), "1- 2".into()));
    let draining = Note::Draining("web".into(), endpoint(1), TIME);
    assert!(play.notes.contains(&draining), "{:?}", play.notes);
    play.wait(TIME);
    assert_eq!(play.seen("shop"), "2");
    let retired = Note::Retired("web".into(), endpoint(1), DrainEnd::Deadline, None);
    assert!(play.notes.contains(&retired), "{:?}", play.notes);
}

#[test]
fn a_service_that_drains_is_inherited_later_too() {
    let mut play = Play::serving(&[1]);
    play.want("web", None);
    play.settle();
    assert_eq!(play.seen("web"), "1-");
    play.good.insert(3);
    play.want("shop", Some(service("shop", 8000, &["\"10.2.0.3:80\""])));
    play.settle();
    assert_eq!((play.seen("web"), play.seen("shop")), ("-".into(), "1- 3".into()));
    // Another service takes over, twice.
    for name in ["market", "fair"] {
        play.want("shop", None);
        play.want("market", None);
        play.want(name, Some(service(name, 8000, &["\"10.2.0.3:80\""])));
        play.settle();
        assert_eq!(play.seen(name), "1- 3");
    }
    play.wait(TIME);
    assert_eq!(play.seen("fair"), "3");
    let services = play.notes.iter().filter_map(|note| match note {
        Note::Draining(service, ..) | Note::Retired(service, ..) => Some(&**service),
        _ => None,
    });
    assert_eq!(services.collect::<Vec<_>>(), ["web", "web"]);
}

#[test]
fn an_endpoint_that_moves_leaves_nothing_behind() {
    let mut play = Play::serving(&[1, 2]);
    play.want("web", Some(web(&[2])));
    play.want("shop", Some(service("shop", 9000, &["\"10.2.0.1:80\""])));
    play.settle();
    assert_eq!((play.seen("web"), play.seen("shop")), ("2".into(), String::new()));
    assert!(play.membership.draining_backends().is_empty());
    assert!(!play.membership.is_balanced(endpoint(1)), "it has to answer first");
    play.judge(1, true);
    assert_eq!((play.seen("web"), play.seen("shop")), ("2".into(), "1".into()));
}

/// Returns "web" and "shop" on ports 8000 and 9000, with one backend each.
fn each(web_has: u8, shop_has: u8) -> Vec<Arc<Service>> {
    let shop = service("shop", 9000, &[&format!("\"10.2.0.{shop_has}:80\"")]);
    vec![web(&[web_has]), shop]
}

fn serving_each(web_has: u8, shop_has: u8) -> Play {
    let mut play = Play::new();
    play.good = [web_has, shop_has].into();
    play.edit(&Edits {
        put: each(web_has, shop_has),
        gone: Vec::new(),
    });
    play.settle();
    play
}

/// A container that may be another one gets connections while there is no other backend.
#[test]
fn services_that_swap_backends_serve_on_until_the_new_ones_have_answered() {
    let mut play = serving_each(1, 2);
    let put = each(2, 1);
    play.edit(&Edits { put, gone: Vec::new() });
    play.settle();
    assert_eq!((play.seen("web"), play.seen("shop")), ("1".into(), "2".into()));
    play.wait(TIME * 10);
    assert_eq!((play.seen("web"), play.seen("shop")), ("1".into(), "2".into()));
    play.judge(2, true);
    assert_eq!(
        (play.seen("web"), play.seen("shop")),
        ("2".into(), "2".into()),
        "without a drain"
    );
    play.judge(1, true);
    assert_eq!((play.seen("web"), play.seen("shop")), ("2".into(), "1".into()));
    assert!(play.membership.draining_backends().is_empty() && play.membership.moved.is_empty());
}

#[test]
fn who_moves_is_not_missed_before_its_successor_answers() {
    for answers in [true, false] {
        let mut play = serving_each(1, 2);
        let put = each(3, 1);
        play.edit(&Edits { put, gone: Vec::new() });
        play.settle();
        play.judge(1, true);
        assert_eq!(
            (play.seen("web"), play.seen("shop")),
            ("1".into(), "1 2-".into()),
            "in both"
        );
        if answers {
            play.judge(3, true);
            assert_eq!((play.seen("web"), play.seen("shop")), ("3".into(), "1 2-".into()));
            assert!(play.membership.moved.is_empty());
            continue;
        }
        play.dead.insert(3);
        play.judge(3, false);
        play.wait(TIME);
        assert_eq!((play.seen("web"), play.seen("shop")), ("1".into(), "1".into()));
        // The backend comes back before it was removed.
        let put = each(1, 2);
        play.edit(&Edits { put, gone: Vec::new() });
        play.settle();
        assert!(play.seen("web") == "1" && play.membership.moved.iter().all(|(_, name)| &**name == "shop"));
    }
}

/// The service may also get another name on the same port.
#[test]
fn who_moves_away_from_a_service_that_is_renamed_serves_on_there() {
    let mut play = serving_each(1, 2);
    play.edit(&Edits {
        put: vec![
            service("www", 8000, &["\"10.2.0.3:80\""]),
            service("shop", 9000, &["\"10.2.0.1:80\"", "\"10.2.0.2:80\""]),
        ],
        gone: vec!["web".into()],
    });
    play.settle();
    assert_eq!(
        (play.seen("web"), play.seen("www"), play.seen("shop")),
        ("-".into(), "1".into(), "2".into())
    );
    play.judge(3, true);
    assert_eq!(
        (play.seen("web"), play.seen("www"), play.seen("shop")),
        ("-".into(), "3".into(), "2".into())
    );
    assert!(play.membership.draining_backends().is_empty() && play.membership.moved.is_empty());
}

/// Tests the state of 10.2.0.1:80, which was in "web" on port 8000, after one change of the services.
#[test]
fn who_comes_to_another_service_has_to_answer_first() {
    let at = ["\"10.2.0.1:80\""];
    for (what, gone, put, is_new) in [
        (
            "another service",
            &[][..],
            vec![web(&[2]), service("shop", 9000, &at)],
            true,
        ),
        (
            "another service instead",
            &["web"],
            vec![service("shop", 9000, &at)],
            true,
        ),
        ("another name", &["web"], vec![service("shop", 8000, &at)], false),
        ("another port", &[], vec![service("web", 9000, &at)], false),
        (
            "names exchanged",
            &["other"],
            vec![service("web", 9001, &[]), service("shop", 8000, &at)],
            false,
        ),
        ("the same", &[], vec![web(&[1])], false),
        (
            "another port under another name",
            &["web"],
            vec![service("shop", 9000, &at)],
            true,
        ),
    ] {
        let mut play = Play::serving(&[1, 2]);
        play.want("other", Some(service("other", 9001, &[])));
        play.settle();
        play.take_probes();
        play.edit(&Edits {
            gone: gone.iter().map(|name| Name::from(*name)).collect(),
            put,
        });
        assert_eq!(
            matches!(play.probes.get(&endpoint(1)), Some(Probing::Anew(_))),
            is_new,
            "{what}"
        );
        play.settle();
        let served = ["web", "shop"]
            .iter()
            .any(|name| play.seen(name).split(' ').any(|at| at == "1"));
        assert_eq!(served, !is_new, "{what}");
    }
}

#[test]
fn who_drains_moves_to_another_service() {
    let mut play = Play::serving(&[1, 2]);
    play.want("web", Some(web(&[2])));
    play.settle();
    assert_eq!(play.seen("web"), "1- 2");
    play.want("shop", Some(service("shop", 9000, &["\"10.2.0.1:80\""])));
    play.settle();
    assert_eq!((play.seen("web"), play.seen("shop")), ("2".into(), String::new()));
    play.judge(1, true);
    assert_eq!((play.seen("web"), play.seen("shop")), ("2".into(), "1".into()));
}

#[test]
fn draining_by_wish_has_a_deadline_and_stays_drained() {
    let mut play = Play::serving(&[1, 2]);
    let draining = r#"{"address":"10.2.0.1","port":80,"state":"draining"}"#;
    let wish = |limit: &str| {
        let text = format!(
            r#"{{"version":1,"services":[{{"name":"web","port":8000{limit},"backends":[{draining},"10.2.0.2:80"]}}]}}"#
        );
        tcpgw_core::model::parse(text.as_bytes()).unwrap().services.remove(0)
    };
    play.want("web", Some(wish("")));
    play.settle();
    assert_eq!(play.seen("web"), "1- 2");
    play.wait(TIME);
    assert_eq!(play.seen("web"), "2");
    play.want("web", Some(wish(r#","limit":{"pps":5}"#)));
    play.settle();
    assert_eq!(play.seen("web"), "2", "it is not drained anew");
    play.want("web", Some(web(&[1, 2])));
    play.settle();
    assert_eq!(play.seen("web"), "1 2");
}

#[test]
fn what_was_there_at_the_start_goes_on() {
    let mut play = Play::new();
    let mut old = Service::clone(&web(&[1, 2, 3]));
    old.backends[2].state = BackendState::Draining;
    let time = TimeLeft {
        left: Duration::from_secs(5),
        whole: TIME,
    };
    let left = [((endpoint(3), "web".into()), time)].into();
    play.membership.adopt(vec![old], &left, play.now);
    play.want("web", Some(web(&[1, 4])));
    play.good.insert(1);
    let probes = play.take_probes();
    assert!(is_probed(&probes, 1) && is_probed(&probes, 4));
    play.settle();
    let probes = play.take_probes();
    assert!(is_probed(&probes, 2) && is_probed(&probes, 3));
    assert_eq!(play.seen("web"), "1 2- 3-");
    play.wait(Duration::from_secs(5));
    assert_eq!(play.seen("web"), "1 2-");
}

#[test]
fn families_are_kept_apart() {
    let mut play = Play::serving(&[1]);
    play.want(
        "web",
        Some(service("web", 8000, &["\"10.2.0.1:80\"", "\"[fd00::1]:80\""])),
    );
    let verdict = |at: Endpoint| BackendVerdict {
        good: at.address.is_ipv4(),
        dead: false,
        open: false,
        failed: None,
        answered: None,
    };
    let change = play.membership.settle(&verdict, play.now);
    assert!(change.notes.contains(&Note::NoneGood("web".into(), 0)));
    assert_eq!(play.membership.serving()["web"].backends.len(), 1);
}

#[test]
fn who_leaves_is_probed_until_it_has_left() {
    let mut play = Play::serving(&[1, 2]);
    play.take_probes();
    play.want("web", Some(web(&[2])));
    let probes = play.take_probes();
    assert!(
        !probes.contains_key(&endpoint(1)),
        "nobody knows yet whether it leaves or is gone"
    );
    play.settle();
    assert_eq!(play.seen("web"), "1- 2");
    assert!(is_probed(&play.take_probes(), 1));
    play.wait(TIME);
    assert_eq!(play.seen("web"), "2");
    assert_eq!(play.take_probes()[&endpoint(1)], Probing::Stop);
}

fn pause(until: Instant) -> Pause {
    Pause {
        until,
        time: Duration::from_secs(60),
        since: 0,
        uid: 0,
    }
}

#[test]
fn a_paused_service_gets_nothing_and_comes_back_as_it_was() {
    let mut play = Play::serving(&[1, 2]);
    let until = play.now + Duration::from_secs(5);
    assert!(play.membership.pause("web", Some(pause(until))));
    play.settle();
    assert_eq!(play.seen("web"), "1- 2-");
    assert_eq!(play.membership.serving()["web"].on_empty, PacketRefusal::Drop);
    assert!(play.membership.draining_backends().is_empty());
    play.judge(1, false);
    play.judge(2, false);
    play.settle();
    assert_eq!(play.seen("web"), "1- 2-");
    assert!(
        play.membership
            .pause("web", Some(pause(until + Duration::from_secs(5))))
    );
    assert!(!play.membership.is_dirty());
    assert_eq!(play.membership.next_deadline(), Some(until + Duration::from_secs(5)));
    assert!(play.membership.tick(until).is_empty());
    assert_eq!(play.membership.tick(until + Duration::from_secs(5)), ["web".into()]);
    play.settle();
    assert_eq!(play.seen("web"), "1 2", "both failed in one wave, as without a pause");
    assert_eq!(play.membership.serving()["web"].on_empty, PacketRefusal::Reset);
}

#[test]
fn a_replacement_during_a_pause_takes_over_after_it() {
    let mut play = Play::serving(&[1]);
    play.membership
        .pause("web", Some(pause(play.now + Duration::from_secs(60))));
    play.want("web", Some(web(&[2])));
    play.settle();
    assert_eq!(play.seen("web"), "1-");
    play.judge(2, true);
    play.settle();
    assert_eq!(play.seen("web"), "1- 2-");
    assert!(play.membership.is_balanced(endpoint(2)) && !play.membership.is_balanced(endpoint(1)));
    assert!(play.membership.pause("web", None));
    play.settle();
    assert_eq!(play.seen("web"), "1- 2");
}

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

#[test]
fn an_order_for_this_change_only() {
    let mut play = Play::serving(&[1, 2, 3]);
    play.membership.drain_within("web", Duration::from_secs(1));
    play.want("web", Some(web(&[2, 3])));
    play.settle();
    play.want("web", Some(web(&[3])));
    play.settle();
    play.wait(Duration::from_secs(1));
    assert_eq!(play.seen("web"), "2- 3");
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
