//! Findings about other programs' firewalls.

use super::*;

#[test]
fn services_that_can_be_passed_by_are_named() {
    let open = |facts: &mut Facts| (facts.cheap.protect_backends, facts.cheap.configured_to_protect) = (false, false);
    let found = only(&with(open), "backends-exposed", FindingSeverity::Warning);
    assert_eq!(
        found.seen,
        "1 service with `allow`, `deny` or `limit` can be bypassed: web :20003"
    );
    let fix = found.fix.unwrap().to_string();
    assert!(
        fix.contains("`protect_backends = true` at the top of /etc/gateway.toml,"),
        "{fix}"
    );
    let fix = |file: &str, configured| {
        let found = with(|facts| {
            open(facts);
            facts.cheap.configured_to_protect = configured;
            facts.cheap.configuration = file.into();
        });
        only(&found, "backends-exposed", FindingSeverity::Warning)
            .fix
            .unwrap()
            .to_string()
    };
    let command = fix("/etc/gateway.toml", true);
    assert!(
        command.contains("of /etc/gateway.toml is not in effect yet: restart"),
        "{command}"
    );
    let command = fix("/dev/null", false);
    assert!(command.contains("name that with `--config`"), "{command}");
    let one_armed = |facts: &mut Facts| {
        open(facts);
        facts.cheap.client_routes = Ok(ClientRoutes::from([
            ((Family::V4, None), way(3)),
            ((Family::V6, None), way(3)),
        ]));
    };
    assert!(with(one_armed).iter().all(|finding| finding.id != "backends-exposed"));
}

#[test]
fn rules_of_others_are_followed() {
    const ANSWERS: &str = "-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\n";
    for passing in [
        "-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT",
        "-A FORWARD -m connmark --mark 0x00800000/0x00800000 -j ACCEPT",
        "-A FORWARD -i ext -o br+ -p tcp -m multiport --dports 80,2999:3001 -j ACCEPT",
        "-A FORWARD -d 10.2.0.0/24 -j OTHER\n-A OTHER -p udp -j DROP\n-A OTHER -j ACCEPT",
        "-A FORWARD -g OTHER\n-A OTHER ! -d 10.3.0.0/255.255.0.0 -j ACCEPT",
        "-A FORWARD -j OTHER\n-A FORWARD -j ACCEPT\n-A OTHER ! -p udp -j RETURN\n-A OTHER -j DROP",
        "-A FORWARD -m set --match-set bad src -j DROP\n-A FORWARD -j ACCEPT",
        "-A FORWARD -s 192.0.2.0/24 -j REJECT\n-A FORWARD -j ACCEPT",
        "-A FORWARD -m limit --limit 1/sec -j LOG\n-A FORWARD -j ACCEPT",
    ] {
        assert!(
            with(saved("DROP", &format!("{ANSWERS}{passing}"))).is_empty(),
            "{passing}"
        );
    }
    for dropping in [
        "",
        "-A FORWARD -o docker0 -j ACCEPT",
        "-A FORWARD -p tcp --dport 3001 -j ACCEPT",
        "-A FORWARD -d 10.2.0.0/24 -j OTHER\n-A OTHER -j RETURN",
        "-A FORWARD -j OTHER\n-A OTHER -j OTHER\n-A OTHER -j FORWARD\n-A OTHER -j OTHER",
        "-A FORWARD -g OTHER\n-A FORWARD -j ACCEPT",
        "-A FORWARD -m conntrack ! --ctstate ESTABLISHED -j REJECT\n-A FORWARD -j ACCEPT",
    ] {
        let found = with(saved("DROP", &format!("{ANSWERS}{dropping}")));
        let found = only(&found, "packets-dropped", FindingSeverity::Broken);
        assert_eq!(
            line(&found),
            "iptables-legacy -I FORWARD -m connmark --mark 0x00800000/0x00800000 -j ACCEPT"
        );
    }
    for uncertain in [
        "-A FORWARD -s 198.18.0.0/15 -j ACCEPT",
        "-A FORWARD -m socket --transparent -j ACCEPT",
        "-A FORWARD -m socket --transparent -j DROP\n-A FORWARD -j ACCEPT",
        "-A FORWARD -m socket --transparent -j RETURN\n-A FORWARD -j ACCEPT",
        "-A FORWARD -j NFQUEUE --queue-num 1",
    ] {
        let found = with(saved("DROP", &format!("{ANSWERS}{uncertain}")));
        only(&found, "packets-dropped", FindingSeverity::Warning);
    }
    // One of two backends is concerned.
    let found = with(saved("ACCEPT", "-A FORWARD -d 10.2.0.12/32 -j DROP"));
    let found = only(&found, "packets-dropped", FindingSeverity::Broken);
    assert!(
        found
            .seen
            .contains("1 of the 2 backends that were examined (10.2.0.12:3000), of chosen :20004: by its rule 1"),
        "{}",
        found.seen
    );
    // Only answers are dropped.
    let found = with(saved("DROP", "-A FORWARD -m conntrack --ctstate NEW -j ACCEPT"));
    assert!(
        only(&found, "packets-dropped", FindingSeverity::Broken)
            .seen
            .contains("answers from")
    );
}

#[test]
fn fixes_are_lines_for_whoever_made_the_table() {
    let forward = |table| chain(table, FirewallHook::Forward, 0, Vec::new(), true);
    let found = with(nft(forward(table(TableFamily::Ip, "mine", false))));
    let found = only(&found, "packets-dropped", FindingSeverity::Broken);
    assert_eq!(
        line(&found),
        "nft insert rule ip mine c ct mark and 0x00800000 == 0x00800000 accept"
    );
    let found = with(nft(forward(table(TableFamily::Inet, "firewalld", true))));
    assert!(line(&found[0]).contains("StrictForwardPorts=no"), "{found:?}");
    let found = with(nft(forward(table(TableFamily::Inet, "other", true))));
    assert!(matches!(found[0].fix, Some(Fix::Advice(_))), "{found:?}");
    let early = chain(
        table(TableFamily::Ip, "mine", false),
        FirewallHook::Prerouting,
        -300,
        Vec::new(),
        true,
    );
    let found = with(nft(early));
    assert_eq!(
        line(&found[0]),
        "nft insert rule ip mine c tcp dport { 20003-20004 } accept"
    );
    // The effects of frames' rules are unknown.
    let mut facts = well();
    firewall_of(&mut facts)
        .unjudged
        .push(table(TableFamily::Bridge, "b", false));
    assert_eq!(examine(&facts).unchecked.len(), 1);
}

#[test]
fn drops_of_probes_and_their_answers_are_found() {
    let drops = |hook, text: &str| {
        let (input, output) = if hook == "INPUT" {
            ("DROP", "ACCEPT")
        } else {
            ("ACCEPT", "DROP")
        };
        let text = format!("*filter\n:INPUT {input} [0:0]\n:OUTPUT {output} [0:0]\n{text}\nCOMMIT\n");
        move |facts: &mut Facts| facts.cheap.legacy = Ok(Arc::new(parse_save(TableFamily::Ip, &text)))
    };
    let id = "probes-dropped";
    let found = only(&with(drops("OUTPUT", "")), id, FindingSeverity::Warning);
    assert!(
        line(&found).contains("-I OUTPUT -p tcp -d 10.2.0.11 --dport 3000 -j ACCEPT"),
        "{found:?}"
    );
    let found = only(&with(drops("INPUT", "")), id, FindingSeverity::Warning);
    assert!(
        line(&found).contains("-I INPUT -p tcp -s 10.2.0.11 --sport 3000 -j ACCEPT"),
        "{found:?}"
    );
    for (hook, passing) in [
        ("INPUT", "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        ("INPUT", "-A INPUT -i br0 -j ACCEPT"),
        ("OUTPUT", "-A OUTPUT -o br0 -p tcp -j ACCEPT"),
        ("OUTPUT", "-A OUTPUT -d 10.2.0.0/24 -j ACCEPT"),
    ] {
        let found = with(drops(hook, passing));
        assert!(found.is_empty(), "{passing}: {found:#?}");
    }
}

#[test]
fn the_chain_that_was_made_last_gets_the_connections() {
    let dnat = || Rule {
        effects: vec![RuleEffect::Dnat],
        ..Rule::default()
    };
    let other = || {
        let mut chain = chain(
            table(TableFamily::Ip, "nat", false),
            FirewallHook::Prerouting,
            -100,
            vec![dnat()],
            false,
        );
        chain.base = chain.base.map(|base| FirewallBase { nat: true, ..base });
        chain.handle = Some(3);
        chain
    };
    let older = |chain, complete| OlderChains {
        chains: [(TableFamily::Ip, 20, chain)].into(),
        complete,
        ..OlderChains::default()
    };
    let own = |handle, older| Some(OwnTable { handle, older });
    let id = "port-translated-elsewhere";
    for (own, severity, says) in [
        (own(21, Some(older(3, true))), FindingSeverity::Warning, "made before"),
        (own(21, Some(older(3, false))), FindingSeverity::Warning, "made before"),
        // The table is older, but the chain is not.
        (own(21, Some(older(2, true))), FindingSeverity::Broken, "made after"),
        (
            own(21, Some(older(2, false))),
            FindingSeverity::Warning,
            "cannot be seen here",
        ),
        (own(21, None), FindingSeverity::Warning, "cannot be seen here"),
        (own(19, None), FindingSeverity::Broken, "made after"),
        (None, FindingSeverity::Warning, "cannot be seen here"),
    ] {
        let found = with(|facts| {
            firewall_of(facts).own_table = own.clone();
            firewall_of(facts).chains.push(other());
        });
        let found = only(&found, id, severity);
        assert!(found.cause.contains(says), "{own:?}: {}", found.cause);
    }
    // iptables-legacy has one chain, whose table existed before or did not.
    let docker =
        "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp --dport 20003 -j DNAT --to-destination 172.17.0.2:80\n";
    for (legacy4, severity) in [(true, FindingSeverity::Warning), (false, FindingSeverity::Broken)] {
        let found = with(|facts| {
            let older = OlderChains {
                legacy4,
                ..older(1, true)
            };
            firewall_of(facts).own_table = own(21, Some(older));
            facts.cheap.legacy = Ok(Arc::new(parse_save(TableFamily::Ip, docker)));
        });
        only(&found, id, severity);
    }
}

#[test]
fn rules_that_overwrite_the_mark_are_found() {
    const SAVE: &str = "-j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff";
    let id = "flow-mark-overwritten";
    let mangle = |rules: &str| {
        let text =
            format!("*mangle\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:M - [0:0]\n{rules}\nCOMMIT\n");
        move |facts: &mut Facts| facts.cheap.legacy = Ok(Arc::new(parse_save(TableFamily::Ip, &text)))
    };
    for spares in [
        "-A POSTROUTING -j CONNMARK --set-xmark 0x1/0xff",
        "-A POSTROUTING -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff",
        "-A POSTROUTING -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff",
        "-A POSTROUTING -p udp -j CONNMARK --set-xmark 0x1/0xffffffff",
        // The mark of tcpgw is already set, so this rule does not match.
        "-A POSTROUTING -m connmark --mark 0x0 -j CONNMARK --set-xmark 0x1/0xffffffff",
        // This rule runs before those of tcpgw write the mark.
        "-A PREROUTING -m conntrack --ctstate NEW -j CONNMARK --set-xmark 0x1/0xffffffff",
    ] {
        let found = with(mangle(spares));
        assert!(found.is_empty(), "{spares}: {found:#?}");
    }
    for (rules, line_to_type) in [
        (
            format!("-A POSTROUTING {SAVE}"),
            "POSTROUTING -m connmark --mark 0x00800000/0x00800000 -j ACCEPT",
        ),
        (
            "-A POSTROUTING -j M\n-A M -j CONNMARK --set-xmark 0x1/0xffffffff".into(),
            "M -m connmark --mark 0x00800000/0x00800000 -j RETURN",
        ),
        (
            format!("-A PREROUTING {SAVE}"),
            "PREROUTING -m connmark --mark 0x00800000/0x00800000 -j ACCEPT",
        ),
    ] {
        let found = with(mangle(&rules));
        let found = only(&found, id, FindingSeverity::Broken);
        assert_eq!(line(&found), format!("iptables-legacy -t mangle -I {line_to_type}"));
    }
    // The packet's mark may have the bits of tcpgw from the ct mark, or only some clients are concerned.
    for uncertain in [
        format!(
            "-A PREROUTING -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff\n-A POSTROUTING {SAVE}"
        ),
        "-A POSTROUTING -d 192.0.2.0/24 -j CONNMARK --set-xmark 0x1/0xffffffff".into(),
    ] {
        only(&with(mangle(&uncertain)), id, FindingSeverity::Warning);
    }
    let written = Rule {
        effects: vec![RuleEffect::CtMark(MarkWrite::constant(1))],
        ..Rule::default()
    };
    let early = chain(
        table(TableFamily::Inet, "mine", false),
        FirewallHook::Postrouting,
        -151,
        vec![written],
        false,
    );
    let found = only(&with(nft(early)), id, FindingSeverity::Broken);
    assert_eq!(
        line(&found),
        "nft insert rule inet mine c ct mark and 0x00800000 == 0x00800000 accept"
    );
    let lost = |facts: &mut Facts| {
        let example = Some(("203.0.113.1:20003".parse().unwrap(), "10.2.0.11:3000".parse().unwrap()));
        facts.cheap.unmarked = Ok(crate::view::UnmarkedFlows { count: 1, example });
    };
    let found = only(&with(lost), "flows-unmarked", FindingSeverity::Broken);
    assert!(found.seen.starts_with("1 flow from services"), "{}", found.seen);
}

#[test]
fn ports_that_another_table_translates() {
    let nat = |rules: &str| {
        let text = format!("*nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n{rules}\nCOMMIT\n");
        move |facts: &mut Facts| facts.cheap.legacy = Ok(Arc::new(parse_save(TableFamily::Ip, &text)))
    };
    let id = "port-translated-elsewhere";
    let docker = "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n-A DOCKER ! -i docker0 -p tcp -m tcp --dport";
    let to = "-j DNAT --to-destination 172.17.0.2:80";
    only(
        &with(nat(&format!("{docker} 20003 {to}"))),
        id,
        FindingSeverity::Warning,
    );
    only(
        &with(nat(&format!("{docker} 20000:20010 {to}"))),
        id,
        FindingSeverity::Warning,
    );
    assert!(with(nat(&format!("{docker} 8080 {to}"))).is_empty());
    assert!(
        with(nat(&format!(
            "-A PREROUTING -d 198.51.100.9/32 -p tcp --dport 20004 {to}"
        )))
        .is_empty()
    );
    let early = |facts: &mut Facts| {
        nat(&format!("-A PREROUTING -p tcp --dport 20003 {to}"))(facts);
        for chain in Arc::make_mut(facts.cheap.legacy.as_mut().unwrap()) {
            chain.base = chain.base.map(|base| FirewallBase { priority: -200, ..base });
        }
    };
    only(&with(early), id, FindingSeverity::Broken);
}

#[test]
fn many_services_and_rules_end_soon() {
    use std::fmt::Write;

    let mut services = String::new();
    for number in 0..5000 {
        let comma = if number > 0 { "," } else { "" };
        let (port, a, b) = (10_000 + number, number / 250, number % 250 + 1);
        let _ = write!(
            services,
            r#"{comma}{{"name":"s{number}","port":{port},"backends":["10.9.{a}.{b}:80"]}}"#
        );
    }
    let state = format!(r#"{{"version":1,"services":[{services}]}}"#);
    let mut rules = String::new();
    for number in 0..5000 {
        let _ = writeln!(
            rules,
            "-A FORWARD -d 10.8.{}.{}/32 -p tcp --dport 80 -j DROP",
            number / 250,
            number % 250
        );
    }
    let found = with(|facts| {
        facts.cheap.services = Arc::new(Summary::from(&tcpgw_core::model::parse(state.as_bytes()).unwrap()));
        saved("DROP", &rules)(facts);
    });
    let found = only(&found, "packets-dropped", FindingSeverity::Broken);
    assert!(
        found.seen.contains("of the 200 backends that were examined"),
        "{}",
        found.seen
    );
}
