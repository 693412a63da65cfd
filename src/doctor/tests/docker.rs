//! Findings about what Docker writes, listens on and names.

use super::*;

const PUBLISHES: &str =
    "*nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n";

fn legacy(text: &str) -> impl Fn(&mut Facts) {
    let chains = Arc::new(parse_save(TableFamily::Ip, text));
    move |facts| facts.cheap.legacy = Ok(Arc::clone(&chains))
}

#[test]
fn a_port_that_docker_publishes_names_the_way_to_its_container() {
    let id = "port-translated-elsewhere";
    let to = "-p tcp --dport 20003 -j DNAT --to-destination 172.17.0.2:80\nCOMMIT\n";
    let found = with(legacy(&format!("{PUBLISHES}-A DOCKER ! -i docker0 {to}")));
    let found = only(&found, id, FindingSeverity::Warning);
    assert!(
        found.seen.ends_with("20003; Docker publishes them for containers"),
        "{}",
        found.seen
    );
    let fix = found.fix.unwrap().to_string();
    assert!(
        fix.starts_with("`docker ps --filter publish=20003` names the container: "),
        "{fix}"
    );
    let found = only(
        &with(legacy(&format!("{PUBLISHES}-A PREROUTING {to}"))),
        id,
        FindingSeverity::Warning,
    );
    let fix = found.fix.unwrap().to_string();
    assert!(!found.seen.contains("Docker") && !fix.contains("docker"), "{fix}");
}

#[test]
fn the_proxy_of_a_published_port_is_docker_s() {
    let listener = Listener {
        addr: "0.0.0.0:20003".parse().unwrap(),
        inode: 1,
    };
    let listens = |facts: &mut Facts| facts.listeners = Ok(vec![(listener, Some("docker-proxy (7)".into()))]);
    let found = only(&with(listens), "port-with-listener", FindingSeverity::Note);
    assert!(
        found.cause.ends_with("since Docker publishes the port, too"),
        "{}",
        found.cause
    );
    let fix = found.fix.unwrap().to_string();
    assert!(fix.contains("`docker ps --filter publish=20003`"), "{fix}");
}

/// A rule belongs in `DOCKER-USER` wherever Docker's jump is the first that decides: a line in front of it is gone when Docker
/// makes its jumps anew.
#[test]
fn rules_go_into_the_chain_for_users_if_nothing_drops_before_it() {
    let forward = |first: &str, more: &str| {
        format!(
            "*filter\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n:OTHER - [0:0]\n{first}\n-A FORWARD -j DOCKER-USER\n{more}\nCOMMIT\n"
        )
    };
    for (first, more, chain) in [
        ("", "", "DOCKER-USER"),
        ("-A FORWARD -i wg0 -j ACCEPT", "", "DOCKER-USER"),
        ("-A FORWARD -j OTHER", "-A OTHER -i wg0 -j ACCEPT", "DOCKER-USER"),
        ("-A FORWARD -j OTHER", "-A OTHER -j DROP", "FORWARD"),
        ("-A FORWARD -j DROP", "", "FORWARD"),
    ] {
        let found = only(
            &with(legacy(&forward(first, more))),
            "packets-dropped",
            FindingSeverity::Broken,
        );
        let accepts = format!("iptables-legacy -I {chain} -m connmark --mark 0x00800000/0x00800000 -j ACCEPT");
        assert_eq!(line(&found), accepts, "{first} {more}");
        assert!(
            found.cause.contains("Docker drops all forwarded packets"),
            "{}",
            found.cause
        );
    }
}

#[test]
fn bridges_of_docker_have_hairpin_mode_without_its_proxy() {
    let asks = |name: &str| {
        let name = name.to_owned();
        move |facts: &mut Facts| {
            facts
                .cheap
                .sysctls
                .insert("net.bridge.bridge-nf-call-iptables".into(), "1".into());
            facts.cheap.links.as_mut().unwrap()[1].name = name;
        }
    };
    for (name, is_docker) in [
        ("docker0", true),
        ("br-289ff039bf88", true),
        ("br-lan", false),
        ("br0", false),
    ] {
        let found = only(&with(asks(name)), "bridge-without-hairpin", FindingSeverity::Warning);
        assert_eq!(
            found.cause.contains("\"userland-proxy\": false"),
            is_docker,
            "{name}: {}",
            found.cause
        );
    }
}
