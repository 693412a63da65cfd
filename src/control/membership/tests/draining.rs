//! Backends that leave a service: they serve until they are replaced, drain, and are probed until they have left.

use super::*;

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
