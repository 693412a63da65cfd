//! Pages of made-up gateways.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::metrics::{BackendValues, KernelRead, KernelSample, NodeValues, Reading, ServiceSample, TotalsSample};
use crate::traffic::{BackendTotals, ServiceTotals, Totals};
use crate::view::condition::ServiceCondition;
use crate::view::status::LimitView;
use crate::view::tally::FlowCounts;
use tcpgw_core::problem::{Problem, ProblemKind, Severity};

pub(super) const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'&\u{1b}[2J\u{202e}";

fn service(number: u16, condition: ServiceCondition) -> ServiceSample {
    let backend = |last: u8, state| BackendValues {
        backend: ([10, 1, u8::try_from(number % 250).unwrap(), last], 3000).into(),
        state,
        flows: 1,
    };
    ServiceSample {
        name: format!("service-{number:05}").into(),
        port: 2000 + number,
        addresses: Vec::new(),
        provider: "api".into(),
        plan: if number == 7 { "large".into() } else { "".into() },
        limit: number.is_multiple_of(2).then_some(LimitView {
            packets_per_second: 1000,
            bytes_per_second: 1_500_000,
            burst: 1000,
            shared: false,
        }),
        condition,
        unanswered: 0,
        flows: FlowCounts {
            handshake: 1,
            established: number.into(),
            closing: 0,
        },
        backends: vec![backend(1, "healthy"), backend(2, "unhealthy")],
    }
}

fn totals(services: &[ServiceSample], at: Instant, factor: u64) -> Arc<Totals> {
    let of = |service: &ServiceSample| {
        let backend = BackendTotals {
            connections: u64::from(service.port) * factor,
            ..BackendTotals::default()
        };
        ServiceTotals {
            drops: [0, factor, 0, 0, 0, 0],
            backends: service.backends.iter().map(|of| (of.backend, backend)).collect(),
            others: BackendTotals::default(),
        }
    };
    Arc::new(Totals {
        services: services
            .iter()
            .map(|service| (service.name.clone(), Arc::new(of(service))))
            .collect(),
        counts_flows: true,
        lost_reports: 0,
        at: Some(at),
    })
}

fn reading(services: Vec<ServiceSample>) -> Reading {
    let begin = Instant::now();
    let before = TotalsSample::new(totals(&services, begin, 1), true);
    let now = TotalsSample::new(totals(&services, begin + Duration::from_secs(2), 3), true);
    Reading {
        version: "1.2.3",
        in_sync: true,
        node: NodeValues {
            pid: 4711,
            started: 1_700_000_000,
            ..NodeValues::default()
        },
        kernel: Some(KernelSample {
            read: KernelRead {
                ended: Instant::now(),
                at: Duration::from_millis(1_700_000_001_500),
                conntrack: Some((65_536, 262_144)),
            },
            age: None,
            source_ports_used: 0.25,
        }),
        totals: Some(now.after(Some(&before))),
        backends: services.iter().map(|service| service.backends.len()).sum(),
        services,
        ..Reading::default()
    }
}

pub(super) fn small() -> Reading {
    let states = ServiceCondition::ALL.into_iter();
    reading(
        (1..)
            .zip(states)
            .map(|(number, state)| service(number, state))
            .collect(),
    )
}

fn table(reading: &Reading, query: &str) -> String {
    let query = ServicesQuery::parse(query).unwrap();
    let query = &query;
    ServicesPage { reading, query }.page().unwrap().document().into_string()
}

/// Returns the names of services in the order of the table.
fn names(page: &str) -> Vec<&str> {
    let rows = page.split("<th scope=\"row\"").skip(1);
    rows.map(|row| {
        let (_, rest) = row.split_once("\">").unwrap();
        let rest = rest.split_once("\">").map_or(rest, |(_, rest)| rest);
        rest.split('<').next().unwrap()
    })
    .collect()
}

/// Panics unless a page has no text as markup, one heading of the first level, a heading of each table, and no script or style in it.
#[track_caller]
pub(super) fn is_clean(page: &str) {
    for bad in [
        "<img",
        "onerror=\"",
        "<script>",
        "style=",
        "\u{1b}",
        "\u{202e}",
        "javascript:",
        "http:",
        "https:",
    ] {
        assert!(!page.contains(bad), "{bad}: {page}");
    }
    assert_eq!(page.matches("<h1>").count(), 1, "{page}");
    assert_eq!(
        page.matches("<table").count(),
        page.matches("<caption").count(),
        "{page}"
    );
    assert_eq!(
        page.matches("<th ").count() + page.matches("<th>").count(),
        page.matches("<th scope=\"").count() + page.matches("<th class=\"n\" scope=\"").count(),
        "{page}"
    );
    let mut ids: Vec<&str> = page
        .split(" id=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "an id is there twice: {page}");
}

#[test]
fn the_table_shows_each_service_with_its_values() {
    let reading = small();
    let page = table(&reading, "sort=name");
    is_clean(&page);
    assert_eq!(names(&page).len(), 10);
    let row = page.split("<tr>").find(|row| row.contains("service-00002")).unwrap();
    for expected in [
        "href=\"/services/service-00002\"",
        "class=\"state empty\"",
        ">2002<",
        ">1 of 2<",
        // Two backends with 2,002 connections each per two seconds, twice.
        ">4,004/s<",
        ">12,012<",
        ">1/s<",
        ">0 B/s<",
        "class=\"meter below\"",
        ">api<",
    ] {
        assert!(row.contains(expected), "{expected}: {row}");
    }
    let other = page.split("<tr>").find(|row| row.contains("service-00007")).unwrap();
    assert!(other.contains("api, plan large") && other.contains(">none<"), "{other}");
    assert!(page.contains("Rates are taken over 2.0 s."), "{page}");
}

#[test]
fn the_table_is_sorted_filtered_and_paged() {
    let reading = small();
    let of = |query: &str| {
        let page = table(&reading, query);
        names(&page).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(of("")[0], "service-00001", "the worst first");
    assert_eq!(of("order=desc")[0], "service-00010");
    assert_eq!(of("sort=pace")[0], "service-00010");
    assert_eq!(of("sort=flows&order=asc")[0], "service-00001");
    assert_eq!(of("sort=port&order=desc")[0], "service-00010");
    assert_eq!(of("state=suspended"), ["service-00007"]);
    assert_eq!(of("q=LARGE"), ["service-00007"]);
    assert_eq!(of("q=:2003"), ["service-00003"]);
    assert_eq!(of("q=10.1.4."), ["service-00004"]);
    assert_eq!(of("q=nothing"), Vec::<String>::new());
    for (column, word, _) in ServiceColumn::ALL {
        let page = table(&reading, &format!("sort={word}&order=asc"));
        assert_eq!(page.matches("aria-sort=\"ascending\"").count(), 1, "{column:?}");
    }
    let many = self::reading((0..130).map(|number| service(number, ServiceCondition::Up)).collect());
    let page = table(&many, "sort=name&page=3");
    assert_eq!(names(&page).len(), 30);
    assert!(
        page.contains("130 services, 101 to 130") && page.contains("Page 3 of 3"),
        "{page}"
    );
    assert!(page.contains("href=\"/services?sort=name&amp;page=2\""), "{page}");
    let query = ServicesQuery::parse("page=4").unwrap();
    let beyond = ServicesPage {
        reading: &many,
        query: &query,
    }
    .page()
    .unwrap_err();
    assert_eq!(beyond.to_string(), "there is no page 4: with this filter there are 3");
}

#[test]
fn what_is_not_known_is_no_zero() {
    let mut reading = small();
    reading.kernel = None;
    reading.totals = None;
    let page = table(&reading, "");
    assert!(
        page.contains("The kernel could not be read") && page.contains("Totals could not be read"),
        "{page}"
    );
    let row = page.split("<tr>").find(|row| row.contains("service-00002")).unwrap();
    assert_eq!(row.matches(">–<").count(), 6, "{row}");
    assert!(row.contains("1,000 packets/s"), "{row}");
    let first = Reading {
        totals: Some(TotalsSample::new(totals(&reading.services, Instant::now(), 1), false)),
        ..reading
    };
    let page = table(&first, "sort=to");
    assert!(
        page.contains("data-measuring") && page.contains("need a second reading") && page.contains("count_traffic"),
        "{page}"
    );
    let empty = table(&Reading::default(), "");
    assert!(empty.contains("There are no services yet."), "{empty}");
}

#[test]
fn the_overview_tells_what_is_wrong_first() {
    let mut reading = small();
    let problem = |severity: Severity, text: &str| {
        Problem::new(ProblemKind::NoHealthyBackend, text)
            .of_service("service-00001", 2001)
            .with_severity(severity)
    };
    reading.listed_problems = vec![problem(Severity::Error, HOSTILE), problem(Severity::Warning, "second")];
    reading.problems = BTreeMap::from([
        ((Severity::Error, ProblemKind::NoHealthyBackend), 1),
        ((Severity::Warning, ProblemKind::NoHealthyBackend), 1),
    ]);
    let overview = |reading: &Reading| {
        let host = HOSTILE;
        let now = 1_700_007_800;
        Overview { reading, host, now }.page().document().into_string()
    };
    let page = overview(&reading);
    is_clean(&page);
    for expected in [
        "1 error, 1 warning.",
        "class=\"state up\">in sync<",
        "&lt;img src=x onerror=alert(1)&gt;",
        "href=\"/services/service-00001\"",
        "href=\"/services?state=down\"",
        "10 services",
        "20 backends",
        "65,536",
        ">25 %<",
        "2 h 10 min",
        ">55<",
    ] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    assert!(page.find("id=\"problems\"") < page.find("id=\"now\""));
    reading.in_sync = false;
    reading.node.torn_down = true;
    reading.node.store = Some(HOSTILE.into());
    reading.kernel = None;
    reading.totals = None;
    let page = overview(&reading);
    is_clean(&page);
    assert!(
        page.contains("torn down") && page.contains("The kernel could not be read:"),
        "{page}"
    );
    is_clean(&overview(&Reading::default()));
}

#[test]
fn a_limit_that_drops_is_among_the_problems_as_in_the_status() {
    let mut reading = small();
    let [limited, free] = ["service-00002", "service-00003"];
    let sample = |at: Instant, drops: u64| {
        let mut totals = Totals::clone(&totals(&reading.services, at, 1));
        for name in [limited, free] {
            let service = Arc::make_mut(totals.services.get_mut(name).unwrap());
            service.backends.first_entry().unwrap().get_mut().drops = [drops, 0, 0, 0, 0, 0];
        }
        TotalsSample::new(Arc::new(totals), true)
    };
    let begin = Instant::now();
    let (before, now) = (sample(begin, 7), sample(begin + Duration::from_secs(2), 10));
    reading.totals = Some(now.after(Some(&before)));
    let overview = |reading: &Reading| {
        let host = "gateway";
        let now = 1_700_007_800;
        Overview { reading, host, now }.page().document().into_string()
    };
    let reading = reading.with_limits_reached();
    let page = overview(&reading);
    let message = ":2002: 1.5 packets/s to 10.1.2.1:3000 are over the limit and dropped";
    assert!(
        page.contains("0 errors, 1 warning.") && page.contains(message),
        "{page}"
    );
    assert_eq!(
        page.matches("over_limit").count(),
        1,
        "a service without a limit: {page}"
    );
    let counts = BTreeMap::from([((Severity::Warning, ProblemKind::OverLimit), 1)]);
    assert_eq!(reading.problems, counts);
    assert!(!overview(&small().with_limits_reached()).contains("over_limit"));
}

#[test]
fn a_name_is_left_out_of_a_problem_only_as_a_whole_word() {
    for (name, message, rest) in [
        (
            "s",
            "service \"s\" :20011 is held back",
            "service &quot;s&quot; :20011 is held back",
        ),
        (
            "service",
            "service \"service\" :20012 is held back",
            "service &quot;service&quot; :20012 is held back",
        ),
        (
            "service",
            "service :20012 has no active backend",
            ":20012 has no active backend",
        ),
        (
            "web",
            "web 192.0.2.1:20013,[2001:db8::1]:20013: 3 SYNs/s",
            "192.0.2.1:20013,[2001:db8::1]:20013: 3 SYNs/s",
        ),
        ("web", "web :20013: 3 SYNs/s", ":20013: 3 SYNs/s"),
        ("web", "web-2 :20013 gets no answer", "web-2 :20013 gets no answer"),
        ("clients", "clients get no answer", "clients get no answer"),
    ] {
        let of = Problem::new(ProblemKind::HeldBack, message).of_service(name, 20011);
        let shown = overview::problem(&of).into_string();
        let expected = format!("href=\"/services/{name}\">{name}</a> {rest} <span");
        assert!(shown.contains(&expected), "{expected}: {shown}");
    }
}

#[test]
fn text_of_others_stays_text_in_the_table() {
    let mut reading = small();
    reading.services[0].name = HOSTILE.into();
    reading.services[0].plan = HOSTILE.into();
    let page = table(&reading, "q=%3Cimg+src");
    assert!(
        page.contains("&lt;img src=x") && page.contains("value=\"&lt;img src\""),
        "{page}"
    );
    let page = table(&reading, "q=%22%3E%3Cscript%3E");
    assert!(!page.contains("<script>"), "{page}");
}

#[test]
fn a_page_of_ten_thousand_services_is_as_long_as_one_of_a_hundred() {
    let many = |number: u16| {
        reading(
            (0..number)
                .map(|number| service(number, ServiceCondition::Up))
                .collect(),
        )
    };
    let (few, many) = (many(100), many(10_000));
    let length = |reading: &Reading, query: &str| table(reading, query).len();
    for query in ["", "sort=pace", "sort=limit", "sort=name&order=desc", "q=10.1.7"] {
        let begun = Instant::now();
        let bytes = length(&many, query);
        println!("{query:?}: {bytes} bytes in {:?}", begun.elapsed());
        assert!(bytes < 64 << 10, "{query}: {bytes}");
    }
    let (few, many) = (length(&few, "sort=name"), length(&many, "sort=name"));
    assert!(many < few + few / 10, "{few}, {many}");
}

const DASHBOARD_PAGE: &str = include_str!("../../docs/operating/dashboard.md");

#[test]
fn the_manual_lists_columns_and_states() {
    let row = |name: &str| {
        let start = format!("| `{name}` | ");
        DASHBOARD_PAGE
            .lines()
            .find_map(|line| line.strip_prefix(&*start))
            .unwrap_or_else(|| panic!("no {name}"))
    };
    for (_, word, _) in ServiceColumn::ALL {
        assert!(row("sort").contains(&format!("`{word}`")), "{word}");
    }
    for state in ServiceCondition::ALL {
        assert!(row("state").contains(&format!("`{}`", state.word())), "{state:?}");
        assert_eq!(row(state.word()), format!("{} |", state.meaning()));
    }
}
