//! Requests of the conntrack module to a real table, each test in a network namespace of its own. Needs root.

mod injector;

use std::{collections::BTreeSet, net::SocketAddr, ops::ControlFlow};

use injector::{Injected, in_namespace, inject};
use tcpgw_core::model::mark::FlowMark;
use tcpgw_kernel::conntrack::{Conntrack, Deletion, Flow, Pair, PairFilter, Selection};

const OURS: u32 = 0x80_0000;
const FOREIGN: u32 = 0x40_0000;
const PORT: u16 = 20003;
const PUBLIC: &str = "192.0.2.1";
const OLD: &str = "10.2.0.11:3000";
const LIVE: &str = "10.2.0.12:3000";

#[test]
fn only_our_translated_flows_are_seen() {
    in_namespace(|| {
        inject([
            flow(1, OLD),
            Injected {
                mark: OURS | 1,
                ..flow(2, OLD)
            },
            Injected {
                mark: FOREIGN,
                ..flow(3, OLD)
            },
            Injected {
                mark: 0,
                ..flow(4, OLD)
            },
            Injected {
                translated: false,
                backend: at(PUBLIC, PORT),
                ..flow(5, OLD)
            },
            six(6),
        ]);
        assert_eq!(
            clients(),
            ["198.51.100.1:1", "198.51.100.1:2", "[2001:db8:1::1]:6"]
                .map(address)
                .into()
        );

        let mut seen = Vec::new();
        Conntrack::open()
            .unwrap()
            .for_each(ours(), |flow| seen.push(flow.clone()))
            .unwrap();
        let six = seen.iter().find(|flow| flow.client.is_ipv6()).unwrap();
        assert_eq!(six.public, address("[2001:db8::1]:20003"));
        assert_eq!(six.backend, address("[fd00::11]:3000"));
        assert_eq!(six.seen_as, address("[fd00::1]:6"));
        assert!(six.status.dnat() && six.status.assured() && six.timeout.is_some());
        assert_eq!(six.tcp_state.unwrap().to_string(), "ESTABLISHED");
    });
}

#[test]
fn a_sweep_deletes_what_is_judged_stale_and_nothing_else() {
    in_namespace(|| {
        inject((1..=6000).map(|port| flow(port, if port % 2 == 0 { OLD } else { LIVE })));
        inject([
            Injected {
                mark: FOREIGN,
                ..flow(7001, OLD)
            },
            Injected {
                mark: 0,
                ..flow(7002, OLD)
            },
        ]);
        let mut conntrack = Conntrack::open().unwrap();
        let stale = |flow: &Flow| flow.backend == address(OLD);
        assert_eq!(conntrack.sweep(ours(), stale).unwrap(), deleted(3000));
        assert_eq!(conntrack.sweep(ours(), stale).unwrap(), deleted(0));
        assert_eq!(clients().len(), 3000);
        assert_eq!(count_all(), 3002);
        assert_eq!(conntrack.sweep(ours(), |_| true).unwrap(), deleted(3000));
        assert_eq!(count_all(), 2);
    });
}

#[test]
fn pairs_are_flushed_alike_with_and_without_the_kernels_filter() {
    for filter in [PairFilter::Kernel, PairFilter::UserSpace] {
        in_namespace(move || {
            let elsewhere = at("192.0.2.2", PORT);
            inject((1..=2500).map(|port| flow(port, OLD)));
            inject((3001..=3010).map(|port| flow(port, LIVE)));
            inject([
                Injected {
                    mark: FOREIGN,
                    ..flow(4001, OLD)
                },
                Injected {
                    public: elsewhere,
                    ..flow(4002, OLD)
                },
                Injected {
                    public: at(PUBLIC, PORT + 1),
                    ..flow(4003, OLD)
                },
                six(4004),
            ]);
            let mut conntrack = Conntrack::with(filter).unwrap();
            let here = Pair {
                public: Some(PUBLIC.parse().unwrap()),
                public_port: PORT,
                backend: address(OLD),
            };
            assert_eq!(conntrack.flush_pairs(ours(), &[here, here]).unwrap(), deleted(2500));
            assert_eq!(
                count_all(),
                14,
                "the other backend, the foreign one, the other address, the other port, IPv6"
            );

            let anywhere = Pair { public: None, ..here };
            assert_eq!(conntrack.flush_pairs(ours(), &[anywhere]).unwrap(), deleted(1));
            assert!(!clients().contains(&address("198.51.100.1:4002")));

            let of_six = Pair {
                public: None,
                public_port: PORT,
                backend: address("[fd00::11]:3000"),
            };
            let nonsense = Pair {
                public: Some(PUBLIC.parse().unwrap()),
                ..of_six
            };
            assert_eq!(conntrack.flush_pairs(ours(), &[nonsense]).unwrap(), deleted(0));
            assert_eq!(conntrack.flush_pairs(ours(), &[of_six]).unwrap(), deleted(1));
            assert_eq!(conntrack.flush_pairs(ours(), &[]).unwrap(), deleted(0));
            assert_eq!(count_all(), 12);
            assert_eq!(conntrack.filter(), filter, "this kernel can filter");
        });
    }
}

#[test]
fn many_pairs_are_flushed_in_one_pass() {
    in_namespace(|| {
        inject((1..=20).map(|n| flow(n, &format!("10.2.0.{n}:3000"))));
        let pair = |n| Pair {
            public: None,
            public_port: PORT,
            backend: at(&format!("10.2.0.{n}"), 3000),
        };
        let pairs: Vec<_> = (1..=15).map(pair).collect();
        assert_eq!(
            Conntrack::open().unwrap().flush_pairs(ours(), &pairs).unwrap(),
            deleted(15)
        );
        assert_eq!(count_all(), 5);
    });
}

#[test]
fn a_flow_with_another_id_or_zone_is_not_deleted() {
    in_namespace(|| {
        inject([
            flow(1, OLD),
            Injected {
                zone: 7,
                ..flow(1, OLD)
            },
        ]);
        let mut conntrack = Conntrack::open().unwrap();
        let mut seen = Vec::new();
        conntrack.for_each(ours(), |flow| seen.push(flow.clone())).unwrap();
        seen.sort_by_key(|flow| flow.zone);
        assert_eq!(seen.iter().map(|flow| flow.zone).collect::<Vec<_>>(), [0, 7]);

        let other_id = Flow {
            id: seen[0].id ^ 1,
            ..seen[0].clone()
        }
        .key();
        let other_zone = Flow {
            zone: 9,
            ..seen[0].clone()
        }
        .key();
        let swapped = Flow {
            zone: 7,
            ..seen[0].clone()
        }
        .key();
        let gone = Deletion {
            gone: 3,
            ..Deletion::default()
        };
        assert_eq!(conntrack.delete(&[other_id, other_zone, swapped]).unwrap(), gone);
        assert_eq!(count_all(), 2);

        assert_eq!(conntrack.delete(&[seen[1].key()]).unwrap(), deleted(1));
        let mut left = Vec::new();
        conntrack.for_each(ours(), |flow| left.push(flow.zone)).unwrap();
        assert_eq!(left, [0]);
        assert_eq!(
            conntrack.delete(&[seen[1].key(), seen[0].key()]).unwrap(),
            Deletion { gone: 1, ..deleted(1) }
        );
        assert_eq!(conntrack.delete(&[]).unwrap(), deleted(0));
    });
}

#[test]
fn refusals_of_whole_chunks_are_all_counted() {
    in_namespace(|| {
        inject([flow(1, OLD)]);
        let mut conntrack = Conntrack::open().unwrap();
        let mut key = None;
        conntrack.for_each(ours(), |flow| key = Some(flow.key())).unwrap();
        let outcome = conntrack.delete(&vec![key.unwrap(); 5000]).unwrap();
        assert_eq!(
            outcome,
            Deletion {
                gone: 4999,
                ..deleted(1)
            }
        );
    });
}

#[test]
fn the_client_behind_a_backends_connection_is_found() {
    in_namespace(|| {
        inject([
            flow(1, OLD),
            flow(2, LIVE),
            Injected {
                mark: FOREIGN,
                ..flow(3, OLD)
            },
            six(4),
        ]);
        let mut conntrack = Conntrack::open().unwrap();
        let mut who = |backend, seen_as| {
            let flow = conntrack.who(ours(), address(backend), address(seen_as)).unwrap();
            flow.map(|flow| flow.client.to_string())
        };
        assert_eq!(who(OLD, "10.2.0.1:1").as_deref(), Some("198.51.100.1:1"));
        assert_eq!(who(LIVE, "10.2.0.1:2").as_deref(), Some("198.51.100.1:2"));
        assert_eq!(who(LIVE, "10.2.0.1:1"), None);
        assert_eq!(who(OLD, "10.2.0.1:3"), None, "not ours");
        assert_eq!(who("198.51.100.1:1", "192.0.2.1:20003"), None, "the original direction");
        assert_eq!(
            who("[fd00::11]:3000", "[fd00::1]:4").as_deref(),
            Some("[2001:db8:1::1]:4")
        );
        assert_eq!(who("[fd00::11]:3000", "10.2.0.1:1"), None);
    });
}

#[test]
fn a_selection_is_the_same_with_and_without_the_kernels_filter() {
    // Few entries are all asked for in one walk, where both families would take two.
    for (filter, others) in [
        (PairFilter::Kernel, 0),
        (PairFilter::Kernel, 2_500),
        (PairFilter::UserSpace, 0),
    ] {
        in_namespace(move || {
            inject((1..=others).map(|port| Injected {
                client: at("198.51.100.9", port),
                seen_as: at("10.2.0.9", port),
                mark: FOREIGN,
                ..flow(port, OLD)
            }));
            inject((1..=100).map(|port| flow(port, if port % 2 == 0 { OLD } else { LIVE })));
            inject([
                six(1001),
                Injected {
                    public: at(PUBLIC, PORT + 1),
                    ..flow(1002, OLD)
                },
                Injected {
                    client: at("198.51.100.2", 1003),
                    ..flow(1003, OLD)
                },
                Injected {
                    mark: FOREIGN,
                    ..flow(1004, OLD)
                },
            ]);
            let mut conntrack = Conntrack::with(filter).unwrap();
            let mut count = |selection: Selection| {
                let mut found = 0;
                let each = |flow: &Flow| {
                    assert!(selection.matches(flow));
                    found += 1;
                    ControlFlow::Continue(())
                };
                conntrack.select(ours(), &selection, each).unwrap();
                found
            };
            let all = Selection::default();
            let port = Selection {
                public_port: Some(PORT),
                ..all
            };
            let backend = |text| Selection {
                backend: Some(address(text)),
                ..all
            };
            let client = |text: &str| Selection {
                client: Some(text.parse().unwrap()),
                ..all
            };
            let seen_as = |text| Selection {
                seen_as: Some(address(text)),
                ..all
            };
            let public = Selection {
                public: Some(PUBLIC.parse().unwrap()),
                ..port
            };
            let cases = [
                (all, 103),
                (port, 102),
                (public, 101),
                (backend(OLD), 52),
                (backend("[fd00::11]:3000"), 1),
                (backend("[fd00::12]:3000"), 0),
                (client("198.51.100.2/32"), 1),
                (client("198.51.100.0/24"), 102),
                (client("2001:db8:1::1/128"), 1),
                (client("2001:db8:1::2/128"), 0),
                (seen_as("10.2.0.1:7"), 1),
                (seen_as("[fd00::1]:1001"), 1),
                (seen_as("[fd00::2]:1001"), 0),
            ];
            for (selection, expected) in cases {
                assert_eq!(count(selection), expected, "{filter:?} {others} {selection:?}");
            }
            let two_families = Selection {
                client: Some("2001:db8::/32".parse().unwrap()),
                ..backend(OLD)
            };
            assert_eq!(count(two_families), 0);
            assert_eq!(conntrack.filter(), filter, "this kernel can filter");

            for selection in [all, port] {
                let mut found = 0;
                let until = |_: &Flow| {
                    found += 1;
                    if found == 3 {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                };
                conntrack.select(ours(), &selection, until).unwrap();
                assert_eq!(found, 3, "it ends where it is told to");
            }
        });
    }
}

#[test]
fn handshakes_that_are_not_complete_are_told_from_all_others() {
    in_namespace(|| {
        inject((1..=3000).map(|port| flow(port, OLD)));
        let of_state = |port, state| Injected {
            state,
            ..flow(port, OLD)
        };
        inject([
            of_state(4001, 1),
            of_state(4002, 2),
            Injected { state: 1, ..six(4003) },
            Injected {
                mark: FOREIGN,
                ..of_state(4004, 1)
            },
        ]);
        let mut conntrack = Conntrack::open().unwrap();
        let mut begun = BTreeSet::new();
        let mut note = |flow: &Flow| {
            begun.insert((flow.client.port(), flow.tcp_state.unwrap().to_string()));
            ControlFlow::Continue(())
        };
        conntrack.handshakes(ours(), &mut note).unwrap();
        let expected = [(4001, "SYN_SENT"), (4002, "SYN_RECV"), (4003, "SYN_SENT")];
        assert_eq!(begun, expected.map(|(port, state)| (port, state.to_owned())).into());
        let mut completed = 0;
        let count = |_: &Flow| {
            completed += 1;
            ControlFlow::Continue(())
        };
        conntrack.completed(ours(), count).unwrap();
        assert_eq!(completed, 3000);
        let mut seen = 0;
        let first = |_: &Flow| {
            seen += 1;
            ControlFlow::Break(())
        };
        conntrack.completed(ours(), first).unwrap();
        assert_eq!(seen, 1, "whoever breaks off is shown no more");
    });
}

/// Flows without the mark are told from all others. The kernel filters by the mark, so that a walk through a table of such flows
/// is short; `TCPGW_FLOWS` is their number.
#[test]
fn flows_without_our_mark_are_told_from_all_others() {
    in_namespace(|| {
        let many = std::env::var("TCPGW_FLOWS").map_or(5_000, |text| text.parse().expect("a number"));
        inject((0..many).map(|number: u32| {
            let port = 1024 + u16::try_from(number % 50_000).expect("a port");
            let client = at(&format!("198.51.{}.1", 101 + number / 50_000), port);
            let seen_as = at(&format!("10.2.1.{}", 1 + number / 50_000), port);
            Injected {
                client,
                seen_as,
                ..flow(port, OLD)
            }
        }));
        let lost = |port, backend| Injected {
            mark: 1,
            ..flow(port, backend)
        };
        inject([lost(1, OLD), lost(2, "10.9.9.9:80"), Injected { mark: 0, ..six(3) }]);
        // A flow without translation belongs to no service.
        inject([Injected {
            translated: false,
            backend: at(PUBLIC, PORT),
            ..lost(4, OLD)
        }]);
        let mut conntrack = Conntrack::open().unwrap();
        let mut seen = BTreeSet::new();
        let begun = std::time::Instant::now();
        conntrack
            .unmarked(ours(), |flow| {
                seen.insert(flow.client);
            })
            .unwrap();
        println!("{many} flows: {:?}", begun.elapsed());
        let expected = [at("198.51.100.1", 1), at("198.51.100.1", 2), at("2001:db8:1::1", 3)];
        assert_eq!(seen, expected.into());
    });
}

fn flow(port: u16, backend: &str) -> Injected {
    Injected {
        client: at("198.51.100.1", port),
        public: at(PUBLIC, PORT),
        backend: address(backend),
        seen_as: at("10.2.0.1", port),
        mark: OURS,
        zone: 0,
        translated: true,
        state: 3,
    }
}

fn six(port: u16) -> Injected {
    Injected {
        client: at("2001:db8:1::1", port),
        public: at("2001:db8::1", PORT),
        backend: at("fd00::11", 3000),
        seen_as: at("fd00::1", port),
        ..flow(port, OLD)
    }
}

fn deleted(count: u64) -> Deletion {
    Deletion {
        deleted: count,
        ..Deletion::default()
    }
}

fn clients() -> BTreeSet<SocketAddr> {
    let mut found = BTreeSet::new();
    Conntrack::open()
        .unwrap()
        .for_each(ours(), |flow| assert!(found.insert(flow.client)))
        .unwrap();
    found
}

fn count_all() -> u32 {
    let count = std::fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack").unwrap();
    let entries = count
        .lines()
        .nth(1)
        .and_then(|line| line.split_ascii_whitespace().next())
        .unwrap();
    u32::from_str_radix(entries, 16).unwrap()
}

fn ours() -> FlowMark {
    FlowMark::new(OURS, OURS).unwrap()
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
