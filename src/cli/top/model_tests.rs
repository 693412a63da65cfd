//! The state of the live view by keys, samples and answers.

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::list::TopSort;
use super::model::{DaemonLink, TopEffect, TopLayer, TopModel};
use super::query::{FlowPage, OrderKind, TopAnswer, TopOrder, TopQuery};
use super::sample_tests::{sample, service};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn model() -> TopModel {
    let mut model = TopModel::new(seconds(2), TopSort::Traffic, "", (80, 24));
    assert_eq!(model.sampled(Ok(services())), None);
    model
}

fn services() -> super::sample::TopSample {
    sample([
        service("web", 8000, 30.0),
        service("mail", 25, 20.0),
        service("api", 8001, 10.0),
    ])
}

fn press(model: &mut TopModel, code: KeyCode) -> Option<TopEffect> {
    model.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn type_in(model: &mut TopModel, text: &str) -> Vec<TopEffect> {
    text.chars().filter_map(|c| press(model, KeyCode::Char(c))).collect()
}

fn shown(model: &TopModel) -> Vec<&str> {
    let services = &model.sample.as_ref().unwrap().services;
    let names = model.list.order.iter().map(|at| services[*at].name.as_deref());
    names.map(Option::unwrap_or_default).collect()
}

#[test]
fn the_filter_is_applied_while_it_is_typed_and_given_up_by_escape() {
    let mut model = model();
    type_in(&mut model, "/A");
    assert_eq!(shown(&model), ["mail", "api"]);
    type_in(&mut model, "p");
    assert_eq!(shown(&model), ["api"]);
    press(&mut model, KeyCode::Backspace);
    press(&mut model, KeyCode::Enter);
    assert_eq!((shown(&model), &model.layer), (vec!["mail", "api"], &None));
    type_in(&mut model, "/zzz");
    assert!(shown(&model).is_empty());
    press(&mut model, KeyCode::Esc);
    assert_eq!(shown(&model), ["mail", "api"]);
    // Without a selection, the next one clears the filter.
    press(&mut model, KeyCode::Esc);
    assert_eq!(shown(&model), ["web", "mail", "api"]);
    // An endless name is not taken.
    type_in(&mut model, "/");
    type_in(&mut model, &"x".repeat(10_000));
    assert!(model.list.filter.len() <= 256);
}

#[test]
fn a_text_that_is_pasted_gives_no_orders() {
    let mut model = model();
    assert_eq!(model.paste("jpyq"), None);
    assert_eq!((&model.layer, model.list.scroll.at), (&None, None));
    type_in(&mut model, "/");
    model.paste("mail\nrest");
    assert_eq!(shown(&model), ["mail"]);
}

#[test]
fn a_change_needs_a_selection_and_a_yes() {
    let mut model = model();
    assert_eq!(type_in(&mut model, "p"), []);
    assert!(model.layer.is_none() && model.notice.as_ref().is_some_and(|notice| notice.is_error));
    press(&mut model, KeyCode::Down);
    type_in(&mut model, "p");
    let pause = |service: &str| TopOrder {
        service: service.into(),
        kind: OrderKind::Pause,
    };
    assert_eq!(model.layer, Some(TopLayer::Confirmation(pause("web"))));
    // Other keys are no answer, and samples do not change the question.
    press(&mut model, KeyCode::Enter);
    type_in(&mut model, "p d");
    model.sampled(Ok(sample([service("mail", 25, 90.0), service("web", 8000, 1.0)])));
    assert_eq!(model.layer, Some(TopLayer::Confirmation(pause("web"))));
    assert_eq!(type_in(&mut model, "n"), []);
    assert!(model.layer.is_none());
    type_in(&mut model, "p");
    assert_eq!(
        type_in(&mut model, "y"),
        [TopEffect::Query(TopQuery::Order(pause("web")))]
    );
    assert!(model.layer.is_none());
    model.answered(TopAnswer::Order(Err("refused".into())));
    assert_eq!(model.notice.as_ref().map(|notice| &*notice.text), Some("refused"));
    model.tick(seconds(60));
    assert_eq!(model.notice, None);
}

#[test]
fn a_backend_is_drained_on_the_page_of_its_service() {
    let mut model = model();
    type_in(&mut model, "d");
    assert!(model.layer.is_none());
    press(&mut model, KeyCode::Enter);
    assert_eq!(model.pages.service.as_ref().unwrap().title.as_ref(), "web :8000");
    type_in(&mut model, "d");
    assert!(model.layer.is_none(), "no backend is selected");
    press(&mut model, KeyCode::Down);
    press(&mut model, KeyCode::Down);
    let backend = "10.2.0.12:3000".parse().unwrap();
    let order = |kind| {
        let service = "web".into();
        TopEffect::Query(TopQuery::Order(TopOrder { service, kind }))
    };
    assert_eq!(type_in(&mut model, "dy"), [order(OrderKind::Drain(backend))]);
    assert_eq!(type_in(&mut model, "uy"), [order(OrderKind::Undrain(backend))]);
    assert_eq!(type_in(&mut model, "ry"), [order(OrderKind::Resume)]);
    // Deselects, then goes back.
    press(&mut model, KeyCode::Esc);
    assert!(model.pages.service.is_some());
    press(&mut model, KeyCode::Esc);
    assert!(model.pages.service.is_none());
}

#[test]
fn flows_are_asked_for_once_at_a_time() {
    let mut model = model();
    press(&mut model, KeyCode::Enter);
    let asked = type_in(&mut model, "f");
    let [TopEffect::Query(TopQuery::Flows(target))] = &asked[..] else {
        panic!("{asked:?}");
    };
    assert_eq!(target.service.as_ref().unwrap().1.as_ref(), "web");
    assert_eq!(model.sampled(Ok(services())), None, "an answer is awaited");
    // The filter has changed before the answer came.
    type_in(&mut model, "/203");
    let again = model.answered(TopAnswer::Flows(target.clone(), Ok(FlowPage::default())));
    let Some(TopEffect::Query(TopQuery::Flows(next))) = again else {
        panic!("{again:?}");
    };
    assert_eq!(next.filter, "203");
    let page = FlowPage {
        matching: 7,
        flows: Vec::new(),
    };
    assert_eq!(model.answered(TopAnswer::Flows(next.clone(), Ok(page.clone()))), None);
    assert_eq!(model.pages.flows.as_ref().unwrap().page, Some(page.clone()));
    assert!(
        model.sampled(Ok(services())).is_some(),
        "they are asked for with each sample"
    );
    model.answered(TopAnswer::Flows(next.clone(), Err("gone".into())));
    let flows = model.pages.flows.as_ref().unwrap();
    assert_eq!((&flows.page, flows.error.as_deref()), (&Some(page), Some("gone")));
    // An answer that comes when the list is closed is dropped.
    press(&mut model, KeyCode::Enter);
    press(&mut model, KeyCode::Esc);
    press(&mut model, KeyCode::Esc);
    assert!(model.pages.flows.is_none());
    assert_eq!(model.answered(TopAnswer::Flows(next, Ok(FlowPage::default()))), None);
}

#[test]
fn the_client_of_a_peer_is_asked_for() {
    let mut model = model();
    type_in(&mut model, "w10.2.0.1");
    assert_eq!(press(&mut model, KeyCode::Enter), None);
    assert!(matches!(&model.layer, Some(TopLayer::WhoInput { error: Some(_), .. })));
    type_in(&mut model, ":40000");
    let asked = press(&mut model, KeyCode::Enter);
    let Some(TopEffect::Query(TopQuery::Who(target))) = asked else {
        panic!("{asked:?}");
    };
    assert_eq!(target.seen_as.to_string(), "10.2.0.1:40000");
    model.answered(TopAnswer::Who(target, Ok(FlowPage::default())));
    assert!(matches!(&model.layer, Some(TopLayer::Who(_, Some(Ok(_))))));
    press(&mut model, KeyCode::Esc);
    assert_eq!(model.layer, None);
}

#[test]
fn a_daemon_that_goes_away_leaves_its_values_and_begins_rates_anew() {
    let mut model = model();
    let with = |connections| {
        let mut web = service("web", 8000, 1.0);
        web.load.connections = connections;
        sample([web])
    };
    model.sampled(Ok(with(100)));
    model.tick(seconds(2));
    model.sampled(Ok(with(120)));
    assert_eq!(model.history.connection_rate("web :8000"), Some(10.0));
    model.tick(seconds(4));
    model.sampled(Err("no daemon answers".into()));
    model.tick(seconds(64));
    model.sampled(Err("no daemon answers".into()));
    let last = Some(seconds(2));
    let why = "no daemon answers".to_owned();
    assert_eq!(model.link, DaemonLink::Lost { last, why });
    assert!(model.is_old() && model.sample.is_some());
    // Its totals went on: the minute without it is no rate.
    model.sampled(Ok(with(5000)));
    assert_eq!(
        (model.history.connection_rate("web :8000"), model.is_old()),
        (None, false)
    );
    model.tick(seconds(66));
    model.sampled(Ok(with(5010)));
    assert_eq!(model.history.connection_rate("web :8000"), Some(5.0));
}

#[test]
fn sorting_is_changed_on_the_list_only() {
    let mut model = model();
    type_in(&mut model, "s");
    assert_eq!(model.list.sort, TopSort::Packets);
    type_in(&mut model, "Si");
    assert_eq!(
        (model.list.sort, shown(&model)),
        (TopSort::Traffic, vec!["api", "mail", "web"])
    );
    press(&mut model, KeyCode::Enter);
    type_in(&mut model, "si");
    assert_eq!((model.list.sort, model.list.is_reversed), (TopSort::Traffic, true));
}

#[test]
fn keys_that_end_or_stop_the_command() {
    let mut model = model();
    let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    type_in(&mut model, "/");
    assert_eq!(type_in(&mut model, "q"), [], "it is typed");
    assert_eq!(model.key(control('c')), Some(TopEffect::Quit));
    assert_eq!(model.key(control('z')), Some(TopEffect::Suspend));
    assert_eq!(model.key(control('l')), Some(TopEffect::Redraw));
    assert_eq!(model.key(control('u')), None);
    assert_eq!(model.list.filter, "");
    press(&mut model, KeyCode::Esc);
    assert_eq!(type_in(&mut model, "?q"), [], "any key closes the help");
    assert_eq!(type_in(&mut model, "q"), [TopEffect::Quit]);
}
