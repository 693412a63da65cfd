mod answering;
mod draining;
mod moving;
mod pausing;
mod sharing;

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
