//! Findings about forwarding, bridges and the reverse path.

use super::*;

#[test]
fn forwarding_without_a_default_route_in_the_main_table() {
    type Routing = fn(&mut ClientRoutes, &mut AnswerRoutes);
    let routings: [(&str, Routing); 3] = [
        ("from the public address", |out, answers| {
            out.insert((Family::V4, Some(ip("10.2.0.1"))), None);
            answers.insert((Family::V4, 3), None);
        }),
        ("from the bridge", |out, _| {
            out.insert((Family::V4, Some(ip("10.2.0.1"))), None);
            out.insert((Family::V4, Some(ip("203.0.113.1"))), None);
        }),
        ("none at all: clients are on the link", |out, answers| {
            out.insert((Family::V4, Some(ip("10.2.0.1"))), None);
            out.insert((Family::V4, Some(ip("203.0.113.1"))), None);
            answers.insert((Family::V4, 3), None);
        }),
    ];
    for (what, routing) in routings {
        for (off, is_broken) in [("ext", true), ("port", false)] {
            let found = with(|facts| {
                Arc::make_mut(&mut facts.cheap.services).services.remove(1);
                let out = facts.cheap.client_routes.as_mut().unwrap();
                out.insert((Family::V4, None), None);
                routing(out, facts.cheap.answers.as_mut().unwrap());
                set(&format!("net.ipv4.conf.{off}.forwarding"), "0")(facts);
            });
            let severity = found
                .iter()
                .find(|one| one.id == "ip-forward-off")
                .map(|one| one.severity);
            assert_eq!(severity, is_broken.then_some(FindingSeverity::Broken), "{what}: {off}");
        }
    }
}

#[test]
fn forwarding() {
    let found = only(
        &with(set("net.ipv4.ip_forward", "0")),
        "ip-forward-off",
        FindingSeverity::Broken,
    );
    assert_eq!(line(&found), "sysctl -w net.ipv4.ip_forward=1");
    only(
        &with(set("net.ipv6.conf.all.forwarding", "0")),
        "ipv6-forwarding-off",
        FindingSeverity::Broken,
    );
    // Only the settings of used interfaces count; the switch for all does not for IPv4.
    for (link, severity) in [
        ("ext", FindingSeverity::Broken),
        ("br0", FindingSeverity::Broken),
        ("port", FindingSeverity::Note),
    ] {
        let found = with(set(&format!("net.ipv4.conf.{link}.forwarding"), "0"));
        if severity == FindingSeverity::Broken {
            let found = only(&found, "ip-forward-off", severity);
            assert_eq!(line(&found), format!("sysctl -w net.ipv4.conf.{link}.forwarding=1"));
            assert!(found.seen.contains(link), "{}", found.seen);
        } else {
            assert!(found.is_empty(), "{found:#?}");
        }
    }
    let each = |facts: &mut Facts| {
        set("net.ipv4.ip_forward", "0")(facts);
        set("net.ipv4.conf.ext.forwarding", "1")(facts);
        set("net.ipv4.conf.br0.forwarding", "1")(facts);
    };
    assert!(with(each).is_empty());
    let each_and_no_other = |facts: &mut Facts| {
        each(facts);
        set("net.ipv4.conf.default.forwarding", "0")(facts);
    };
    only(&with(each_and_no_other), "ip-forward-off", FindingSeverity::Note);
    let forced = |ext: &'static str| {
        move |facts: &mut Facts| {
            set("net.ipv6.conf.all.forwarding", "0")(facts);
            set("net.ipv6.conf.br0.force_forwarding", "1")(facts);
            set("net.ipv6.conf.ext.force_forwarding", ext)(facts);
        }
    };
    only(&with(forced("1")), "ipv6-forwarding-off", FindingSeverity::Note);
    let found = only(&with(forced("0")), "ipv6-forwarding-off", FindingSeverity::Broken);
    assert!(
        found.seen.contains("ext (clients)") && !found.seen.contains("br0"),
        "{}",
        found.seen
    );
    // A dot in a name is a slash for sysctl, and a name is quoted if a shell would not take it as one word.
    for (name, quoted) in [
        ("ext.100", "net.ipv4.conf.ext/100.forwarding"),
        ("e$x", "'net.ipv4.conf.e$x.forwarding'"),
    ] {
        let found = with(|facts| {
            facts.cheap.links.as_mut().unwrap()[0].name = name.into();
            set(&format!("net.ipv4.conf.{name}.forwarding"), "0")(facts);
        });
        assert_eq!(
            line(&only(&found, "ip-forward-off", FindingSeverity::Broken)),
            format!("sysctl -w {quoted}=1")
        );
    }
    only(
        &with(set("net.ipv6.conf.ext.accept_ra", "1")),
        "ipv6-router-advertisements",
        FindingSeverity::Note,
    );
    let only4 = |facts: &mut Facts| {
        Arc::make_mut(&mut facts.cheap.services).services.remove(0);
        set("net.ipv6.conf.all.forwarding", "0")(facts);
    };
    assert!(with(only4).is_empty());
}

#[test]
fn reverse_path() {
    assert!(
        with(set("net.ipv4.conf.all.rp_filter", "1")).is_empty(),
        "the backend_routes are the same"
    );
    let elsewhere = |address: &'static str, mode: &'static str| {
        move |facts: &mut Facts| {
            set("net.ipv4.conf.ext.rp_filter", mode)(facts);
            let backend_routes = facts.cheap.client_routes.as_mut().unwrap();
            backend_routes.insert((Family::V4, Some(ip(address))), way(3));
        }
    };
    let found = only(
        &with(elsewhere("203.0.113.1", "1")),
        "reverse-path-filter",
        FindingSeverity::Broken,
    );
    assert_eq!(line(&found), "sysctl -w net.ipv4.conf.ext.rp_filter=2");
    assert!(with(elsewhere("203.0.113.1", "2")).is_empty());
    // The value 2 for all interfaces exceeds 1 for one.
    let loose = |facts: &mut Facts| {
        elsewhere("203.0.113.1", "1")(facts);
        set("net.ipv4.conf.all.rp_filter", "2")(facts);
    };
    assert!(with(loose).is_empty());
    let everywhere = |facts: &mut Facts| {
        elsewhere("203.0.113.1", "1")(facts);
        Arc::make_mut(&mut facts.cheap.services)
            .services
            .retain(|service| service.addresses.is_empty());
    };
    only(&with(everywhere), "reverse-path-filter", FindingSeverity::Warning);
    let backend = |facts: &mut Facts| {
        set("net.ipv4.conf.br0.rp_filter", "1")(facts);
        facts
            .cheap
            .backend_routes
            .as_mut()
            .unwrap()
            .insert(ip("10.2.0.11"), way(2));
    };
    let found = only(&with(backend), "reverse-path-filter", FindingSeverity::Warning);
    assert!(
        found.seen.contains("10.2.0.11") && found.seen.contains("ext"),
        "{}",
        found.seen
    );
}

#[test]
fn bridges() {
    let found = only(
        &with(set("net.bridge.bridge-nf-call-iptables", "1")),
        "bridge-without-hairpin",
        FindingSeverity::Warning,
    );
    assert_eq!(line(&found), "bridge link set dev port hairpin on");
    let hairpin = |facts: &mut Facts| {
        set("net.bridge.bridge-nf-call-iptables", "1")(facts);
        facts.cheap.links.as_mut().unwrap()[2].hairpin = Some(true);
    };
    assert!(with(hairpin).is_empty());
    let own = |facts: &mut Facts| facts.cheap.links.as_mut().unwrap()[1].bridge = Some([false, true]);
    only(&with(own), "bridge-without-hairpin", FindingSeverity::Warning);
}
