//! Screens of several sizes.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};

use super::draw;
use crate::cli::top::list::TopSort;
use crate::cli::top::model::{TopEffect, TopModel};
use crate::cli::top::query::{FlowLine, FlowPage, FlowsTarget, TopAnswer, TopQuery};
use crate::cli::top::sample::TopSample;
use crate::cli::top::sample_tests::{problem, sample, service};

fn model(size: (u16, u16), samples: impl IntoIterator<Item = TopSample>) -> TopModel {
    let mut model = TopModel::new(Duration::from_secs(2), TopSort::Traffic, "", size);
    for (at, sample) in (0..).zip(samples) {
        model.tick(Duration::from_secs(2 * at));
        model.sampled(Ok(sample));
    }
    model
}

fn buffer(model: &TopModel, has_colors: bool) -> Buffer {
    let (width, height) = model.size;
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let drawn = terminal.draw(|frame| {
        let area = frame.area();
        draw(frame.buffer_mut(), area, has_colors, model);
    });
    drawn.unwrap().buffer.clone()
}

fn lines(model: &TopModel) -> Vec<String> {
    let buffer = buffer(model, true);
    let width = usize::from(buffer.area.width);
    let rows = buffer.content.chunks(width);
    let text = |row: &[ratatui::buffer::Cell]| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>();
    rows.map(|row| text(row).trim_end().to_owned()).collect()
}

fn press(model: &mut TopModel, keys: &str) -> Vec<TopEffect> {
    let key = |c| match c {
        '\n' => KeyCode::Enter,
        '\u{1b}' => KeyCode::Esc,
        'v' => KeyCode::Down,
        c => KeyCode::Char(c),
    };
    keys.chars()
        .filter_map(|c| model.key(KeyEvent::new(key(c), KeyModifiers::NONE)))
        .collect()
}

fn two() -> TopSample {
    let mut two = sample([
        service("web", 8000, 500.0),
        service("a-service-with-quite-a-long-name", 25, 1200.0),
    ]);
    two.services[1].state = crate::view::condition::ServiceCondition::Down;
    two.services[1].load.dropped = 70;
    two.services[1].load.drop_rate = Some(35.0);
    two.problems = vec![
        problem("web has trouble"),
        problem("second"),
        problem("third"),
        problem("fourth"),
    ];
    two.problem_count = 4;
    two.ok = false;
    two
}

#[test]
fn the_list_on_80_columns() {
    let text = lines(&model((80, 24), [two(), two()]));
    assert_eq!(
        &text[..7],
        [
            "unhealthy: 2 services, 4 backends, 6 flows                            by traffic",
            "error: web has trouble",
            "error: second",
            "error (and 1 more): third",
            "SERVICE              STATE        UP  FLOWS CONN/S  PKT/S   B/S*  LIMIT HISTORY",
            "a-service-with-… :25 down        2/2      3      0   1200   120k  120 %       ██",
            "web :8000            up          2/2      3      0    500  50.0k   50 %       ▄▄",
        ]
    );
    assert_eq!(
        text[23],
        "?: help  q: quit  Enter: open  s: sort  /: filter  f: flows  p: pause  w: who"
    );
}

#[test]
fn more_room_shows_more_and_less_shows_less() {
    let wide = lines(&model((120, 40), [two()]));
    assert!(
        wide[4].contains("DROP/S") && wide[5].contains("a-service-with-quite-a-long-name"),
        "{wide:#?}"
    );
    let small = lines(&model((40, 10), [two()]));
    assert_eq!(small.len(), 10);
    assert!(
        small[1].starts_with("error (and 3 more): web has trouble"),
        "{small:#?}"
    );
    assert!(small[2].starts_with("SERVICE") && small[3].contains("down") && small[4].contains("web :8000"));
    assert!(small.iter().all(|line| line.chars().count() <= 40));
}

#[test]
fn a_terminal_that_is_too_small_says_so() {
    for size in [(39, 10), (40, 7)] {
        assert_eq!(lines(&model(size, [two()]))[0], "the terminal is too small");
    }
    assert_eq!(lines(&model((5, 2), [two()])), ["the …", "it h…"]);
    let text = lines(&model((39, 10), [two()]));
    assert_eq!(text[1], "it has 39 x 10, needed: 40 x 8");
}

#[test]
fn every_page_and_layer_is_drawn_in_every_size() {
    for width in [1, 20, 39, 40, 41, 60, 80, 120, 250] {
        for height in [1, 5, 8, 10, 14, 24, 60] {
            let mut model = model((width, height), [two(), two()]);
            for keys in [
                "",
                "v",
                "?",
                "xp",
                "nw10.2.0.1:1\n",
                "\u{1b}\n",
                "v",
                "d",
                "nf",
                "/a",
                "\n\u{1b}\u{1b}",
            ] {
                press(&mut model, keys);
                lines(&model);
            }
        }
    }
}

#[test]
fn hostile_names_stay_text() {
    let mut hostile = service("web", 8000, 1.0);
    hostile.name = Some("a\u{1b}[2J\u{202e}b\nerror: x\u{9b}31m".into());
    hostile.title = format!("{} :8000", hostile.name.as_deref().unwrap()).into();
    hostile.backends[0].state = "heal\u{1b}thy".into();
    hostile.backends[0].reason = Some("re\rfused\u{200b}".into());
    let mut sample = sample([hostile, service(&"long".repeat(1000), 1, 0.5)]);
    sample.problems = vec![problem("trouble\u{1b}]0;title\u{7}\nwith lines")];
    sample.problem_count = 1;
    for size in [(80, 24), (120, 40), (40, 10)] {
        let mut model = model(size, [sample.clone()]);
        for keys in ["", "v", "p", "n\n", "v", "d"] {
            press(&mut model, keys);
            for line in lines(&model) {
                let risky = |c: char| c.is_control() || "\u{202e}\u{200b}\u{9b}".contains(c);
                assert!(!line.contains(risky), "{line:?}");
            }
        }
    }
    let text = lines(&model((120, 40), [sample]));
    assert!(
        text[1].starts_with(r"error: trouble\u{1b}]0;title\u{7}\nwith lines"),
        "{text:#?}"
    );
    assert!(text[3].contains(r"a\u{1b}[2J"), "{text:#?}");
}

#[test]
fn ten_thousand_services_scroll() {
    let services = (0..10_000_u16).map(|at| service(&format!("service-{at}"), 1 + at, 10_000.0 - f64::from(at)));
    let mut model = model((80, 24), [sample(services)]);
    let text = lines(&model);
    assert!(text[0].starts_with("ok: 10000 services, 20000 backends"), "{text:#?}");
    assert!(
        text[2].starts_with("service-0 :1 ") && text[22].starts_with("service-20 "),
        "{text:#?}"
    );
    press(&mut model, "G");
    let text = lines(&model);
    assert!(
        text[22].starts_with("service-9999 ") && text[2].starts_with("service-9979 "),
        "{text:#?}"
    );
    press(&mut model, "/ce-77\n");
    let text = lines(&model);
    assert!(text[0].ends_with("111 shown, by traffic"), "{text:#?}");
    assert!(text[23].starts_with("filter: ce-77  ?: help"), "{text:#?}");
}

#[test]
fn colors_are_used_only_if_they_are_wanted() {
    let mut model = model((80, 24), [two(), two()]);
    press(&mut model, "v");
    let fg = |buffer: &Buffer| {
        buffer
            .content
            .iter()
            .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(fg(&buffer(&model, true)));
    let plain = buffer(&model, false);
    assert!(!fg(&plain));
    let selected = plain.cell((0, 5)).unwrap();
    assert!(
        selected.modifier.contains(Modifier::REVERSED),
        "it is seen without colours, too"
    );
}

#[test]
fn the_page_of_a_service() {
    let mut model = model((80, 24), [two(), two(), two()]);
    press(&mut model, "vv\n");
    let text = lines(&model);
    assert_eq!(text[1], "web :8000: up, 2 of 2 backends up");
    assert_eq!(
        text[2],
        "3 flows, 0 connections/s, 500 packets/s, 50.0k bytes/s, 0 dropped"
    );
    assert!(
        text[3].starts_with("used part of the limit of 1000 packets/s"),
        "{text:#?}"
    );
    assert!(
        text[4].trim_start().starts_with("limit │") && text[8].ends_with("███"),
        "{text:#?}"
    );
    assert!(
        text[6].ends_with("▄▄▄") && !text[5].contains('█'),
        "half of the limit: {text:#?}"
    );
    assert!(
        text[9].starts_with("BACKEND") && text[10].starts_with("10.2.0.11:3000"),
        "{text:#?}"
    );
    press(&mut model, "vd");
    let text = lines(&model).join("\n");
    assert!(
        text.contains("Drain 10.2.0.11:3000 of web?") && text.contains("y: yes"),
        "{text}"
    );
    // The service goes away meanwhile.
    press(&mut model, "n");
    model.sampled(Ok(sample([])));
    assert!(lines(&model)[2].starts_with("this service is not there any more"));
}

#[test]
fn flows_with_their_clients() {
    let mut model = model((80, 24), [two()]);
    let asked = press(&mut model, "f");
    let [TopEffect::Query(TopQuery::Flows(target))] = &asked[..] else {
        panic!("{asked:?}");
    };
    assert!(lines(&model)[3].starts_with("the flows are being read"));
    let flow = FlowLine {
        client: "203.0.113.9:40000".parse().unwrap(),
        service: Some("web".into()),
        backend: "10.2.0.11:3000".parse().unwrap(),
        seen_as: "10.2.0.1:50000".parse().unwrap(),
        state: "ESTABLISHED".into(),
        age: Some(75),
        to: Some(1000),
        from: Some(20_000),
    };
    let answer = |target: &FlowsTarget, matching| {
        let flows = vec![flow.clone()];
        TopAnswer::Flows(target.clone(), Ok(FlowPage { matching, flows }))
    };
    model.answered(answer(target, 1));
    let text = lines(&model);
    assert_eq!(text[1], "all services: 1 flow");
    assert!(
        text[3].starts_with("203.0.113.9:40000") && text[3].contains("10.2.0.11:3000"),
        "{text:#?}"
    );
    assert!(text[3].ends_with("1m15s  21.0k"), "{text:#?}");
    model.sampled(Ok(two()));
    model.answered(answer(target, 123_456));
    assert_eq!(
        lines(&model)[1],
        "all services: 123456 flows, the 1000 with the most bytes are shown"
    );
}

#[test]
fn a_daemon_that_is_not_there_or_goes_away() {
    let mut none = model((80, 24), []);
    assert_eq!(lines(&none)[2], "waiting for the daemon");
    none.sampled(Err("no daemon answers on /run/x: gone\u{1b}[2J".into()));
    let text = lines(&none);
    assert!(text[0].starts_with("NO ANSWER: no daemon answers"), "{text:#?}");
    assert!(text[2].ends_with(r"gone\u{1b}[2J"), "{text:#?}");
    let mut away = model((80, 24), [two()]);
    away.sampled(Err("no daemon answers on /run/x".into()));
    away.tick(Duration::from_secs(75));
    let text = lines(&away);
    assert_eq!(text[0], "OLD VALUES, no answer for 1m15s: no daemon answers on /run/x");
    assert!(text[6].starts_with("web :8000"), "the last values stay: {text:#?}");
    away.sampled(Ok(two()));
    assert!(lines(&away)[0].starts_with("unhealthy: 2 services"));
    away.tick(Duration::from_secs(90));
    assert!(lines(&away)[0].starts_with("VALUES 15s OLD, unhealthy: 2 services"));
}
