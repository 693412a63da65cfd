//! Behaviour of a run with slow operations, lost answers and interruptions, and removal of what it made.

use super::*;
use crate::addon::check::checks::checks;

fn told(status: u16, body: Value) -> ProviderAnswer {
    ProviderAnswer {
        status,
        media: Some("application/json".into()),
        identity: None,
        retry_after: None,
        content: AnswerBody::Json(body),
        took: Duration::from_millis(5),
    }
}

/// A broker that does everything later: it answers 202, and then that it is done after so many questions.
pub(super) struct Later {
    provider: Provider,
    questions: u32,
    left: u32,
    end: &'static str,
}

impl Later {
    pub(super) fn new(questions: u32, end: &'static str) -> Self {
        let provider = Provider::new(Dialect::Osb);
        Self {
            provider,
            questions,
            left: 0,
            end,
        }
    }

    pub(super) fn answer(&mut self, request: &CheckRequest, identity: &str) -> ProviderAnswer {
        let is_change = matches!(request.method, Method::Put | Method::Patch | Method::Delete);
        if request.path.contains("/last_operation") && self.left > 0 {
            self.left -= 1;
            let state = if self.left > 0 { "in progress" } else { self.end };
            return told(200, json!({"state": state, "description": "why"}));
        }
        let mut probe = request.clone();
        probe.path = request
            .path
            .replace("?accepts_incomplete=true", "")
            .replace("&accepts_incomplete=true", "");
        let answer = self.provider.answer(&probe, identity);
        if !is_change || answer.status >= 300 || answer.status == 200 && request.method == Method::Put {
            return answer;
        }
        if !request.path.contains("accepts_incomplete=true") {
            // The request had to be refused before anything was done.
            let undo = match request.method {
                Method::Put => Some(CheckRequest::new(
                    Method::Delete,
                    format!("{}?service_id=a&plan_id=b", probe.path),
                )),
                _ => None,
            };
            if let Some(undo) = undo {
                self.provider.answer(&undo, identity);
            }
            return told(422, json!({"error": "AsyncRequired", "description": "later"}));
        }
        self.left = self.questions;
        told(202, json!({"operation": "task 10&x"}))
    }
}

#[test]
fn an_asynchronous_broker_is_waited_for() {
    let mut broker = Later::new(3, "succeeded");
    let mut operations = 0;
    let (report, _) = run_with(settings(Dialect::Osb), |_, request, identity| {
        if request.path.contains("last_operation") && request.path.contains("operation=task+10%26x") {
            operations += 1;
        }
        let mut answer = broker.answer(request, identity);
        answer.identity = Some(identity.to_owned());
        Ok(answer)
    });
    assert_eq!(of(&report, &[Fail, Warn]), [], "{report:#?}");
    assert!(operations >= 12, "{operations} questions");
    assert_eq!(report.left, Vec::<String>::new());
    let provision = report
        .findings
        .iter()
        .find(|finding| finding.name == "provision")
        .unwrap();
    assert!(
        provision.came.as_deref().unwrap().ends_with("then: succeeded"),
        "{provision:?}"
    );
}

#[test]
fn an_operation_that_fails_or_never_ends_fails_its_check() {
    for (questions, end, why) in [
        (2, "failed", "why"),
        (u32::MAX, "", "--poll-timeout"),
        (1, "what?", "state is not"),
    ] {
        let mut broker = Later::new(questions, end);
        let (report, requests) = run_with(settings(Dialect::Osb), |_, request, identity| {
            let mut answer = broker.answer(request, identity);
            answer.identity = Some(identity.to_owned());
            Ok(answer)
        });
        let found = of(&report, &[Fail]);
        let provision = found.iter().find(|(name, ..)| *name == "provision").unwrap();
        assert!(provision.2.contains(why), "{found:?}");
        assert!(requests < 400, "{requests} requests");
    }
}

#[test]
fn a_202_that_was_not_asked_for_fails() {
    let mut provider = Provider::new(Dialect::Osb);
    let (report, _) = run_with(settings(Dialect::Osb), |name, request, identity| {
        let mut answer = provider.answer(request, identity);
        if name == "provision" && request.method == Method::Put {
            answer.status = 202;
        }
        Ok(answer)
    });
    let found: Vec<_> = of(&report, &[Fail]).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(found, ["provision"]);
    assert_eq!(report.left, Vec::<String>::new());
}

#[test]
fn a_provider_that_does_not_answer_is_left_alone_soon() {
    for dialect in DIALECTS {
        let (report, requests) = run_with(settings(dialect), |_, _, _| Err(no_answer()));
        let failed = of(&report, &[Fail]);
        assert_eq!(failed.len(), 3, "{failed:?}");
        assert!(requests <= 8, "{requests} requests");
        let last = report.findings.last().unwrap();
        assert_eq!(last.verdict, Skip);
    }
}

/// After a lost answer, things that may have been made are removed, or reported where they cannot be removed.
#[test]
fn what_was_made_is_removed_when_an_answer_is_lost() {
    for dialect in DIALECTS {
        let names: Vec<&str> = checks(dialect).iter().map(|check| check.name).collect();
        for lost in names {
            let mut provider = Provider::new(dialect);
            let (report, _) = run_with(settings(dialect), |name, request, identity| {
                let answer = provider.answer(request, identity);
                if name == lost { Err(no_answer()) } else { Ok(answer) }
            });
            let there = provider.registry.iter().len();
            // Without the provider's id the resource cannot be removed.
            let has_own_ids = [Dialect::Scalingo, Dialect::CleverCloud].contains(&dialect);
            assert_eq!(
                there,
                usize::from(has_own_ids && lost == "provision"),
                "{dialect:?}: {lost}"
            );
            let is_unknown = |left: &String| has_own_ids && left.contains("has not told");
            assert!(
                report.left.len() >= there && report.left.iter().all(is_unknown),
                "{dialect:?}: {lost}: {:?}",
                report.left
            );
        }
    }
}

#[test]
fn an_interrupted_run_removes_what_it_made() {
    for dialect in DIALECTS {
        let total = run_with(settings(dialect), {
            let mut provider = Provider::new(dialect);
            move |_, request, identity| Ok(provider.answer(request, identity))
        })
        .1;
        for after in 1..total {
            let mut provider = Provider::new(dialect);
            let mut run = CheckRun::new(settings(dialect), [7; 16]).unwrap();
            let mut sent = 0;
            while let Next::Send(request, identity) = run.next(NOW) {
                let answer = provider.answer(&request, &identity);
                sent += 1;
                if sent == after {
                    // The request was answered, but the run did not receive the answer.
                    run.interrupt("interrupted");
                    continue;
                }
                run.answered(Ok(answer));
            }
            let remaining = run.left();
            let there = provider.registry.iter().len();
            assert!(there <= remaining.len(), "{dialect:?} after {after}: {remaining:?}");
            // Of one that was requested and not removed it is not known whether Heroku's provider does not have it, or another one.
            let is_unknown = remaining
                .iter()
                .all(|remaining| remaining.contains("has not told") || dialect == Dialect::Heroku);
            assert!(
                remaining.len() <= 1 && is_unknown,
                "{dialect:?} after {after}: {remaining:?}"
            );
        }
    }
}

/// Things made by a broker that should have refused the request, or that refuses to remove them, are removed or reported.
#[test]
fn what_a_bad_broker_made_is_removed_or_told() {
    let mut provider = Provider::new(Dialect::Osb);
    let mut made = BTreeSet::new();
    let (report, _) = run_with(settings(Dialect::Osb), |name, request, identity| {
        let (path, _) = request.path.split_once('?').unwrap_or((&request.path, ""));
        match request.method {
            Method::Put if name.starts_with("provision-without") => {
                made.insert(path.to_owned());
                Ok(told(201, json!({})))
            }
            Method::Delete if made.remove(path) => Ok(told(200, json!({}))),
            _ => Ok(provider.answer(request, identity)),
        }
    });
    assert_eq!((made.len(), report.left.len()), (0, 0), "{:?}", report.left);

    let mut provider = Provider::new(Dialect::Osb);
    let (report, _) = run_with(settings(Dialect::Osb), |_, request, identity| match request.method {
        Method::Delete => Ok(told(500, json!({}))),
        _ => Ok(provider.answer(request, identity)),
    });
    assert_eq!(report.left.len(), 2, "{:?}", report.left);
    assert!(
        report
            .left
            .iter()
            .all(|left| left.contains("DELETE /v2/service_instances/")),
        "{:?}",
        report.left
    );
}

#[test]
fn a_second_resource_of_the_same_app_is_removed_too() {
    let mut ids = Vec::new();
    let mut count = 0;
    let (report, _) = run_with(settings(Dialect::Scalingo), |name, request, _| {
        let is_made = ["provision", "provision-again", "provision-extension"].contains(&name);
        Ok(match request.method {
            Method::Post if request.path.is_empty() && is_made => {
                count += 1;
                ids.push(format!("made-{count}"));
                told(
                    201,
                    json!({"id": format!("made-{count}"), "config": {}, "message": "m"}),
                )
            }
            Method::Delete => {
                ids.retain(|id| !request.path.ends_with(id.as_str()));
                let mut answer = told(204, json!({}));
                answer.content = AnswerBody::Empty;
                answer
            }
            _ => told(422, json!({"message": "m"})),
        })
    });
    assert!(count >= 3, "{count}");
    assert_eq!(ids, Vec::<String>::new());
    assert_eq!(report.left, Vec::<String>::new());
    let again = of(&report, &[Warn]);
    assert!(again.iter().any(|(name, ..)| *name == "provision-again"), "{again:?}");
}

#[test]
fn nothing_that_is_shown_has_secrets() {
    for dialect in DIALECTS {
        let report = run(dialect);
        let text = format!("{report:?}");
        for secret in ["0123456789abcdef", "fedcba9876543210", "gateway.example.com:2"] {
            // The message of an answer is for everybody.
            let found: Vec<&CheckFinding> = report
                .findings
                .iter()
                .filter(|finding| finding.sent.as_deref().is_some_and(|sent| sent.contains(secret)))
                .collect();
            assert!(found.is_empty(), "{dialect:?}: {secret}: {found:?}");
        }
        assert!(!text.contains("0123456789abcdef") && !text.contains("fedcba9876543210"));
    }
}

#[test]
fn a_run_knows_what_it_needs() {
    let mut unknown = settings(Dialect::Heroku);
    unknown.plan = None;
    assert_eq!(CheckRun::new(unknown, [0; 16]).err(), Some(CheckSettingsError::NoPlan));
    let mut same = settings(Dialect::Scalingo);
    same.other_plan = Some("small".into());
    assert_eq!(CheckRun::new(same, [0; 16]).err(), Some(CheckSettingsError::SamePlan));
    // A manifest of Scalingo has plans.
    let mut scalingo = settings(Dialect::Scalingo);
    (scalingo.plan, scalingo.other_plan) = (None, None);
    let mut provider = Provider::new(Dialect::Scalingo);
    let report = run_with(scalingo, |_, request, identity| Ok(provider.answer(request, identity))).0;
    assert_eq!(of(&report, &[Fail, Warn, Skip]), []);
    // Plans that the catalog does not have, and one that it has under two names.
    let id = "00000000-0000-4000-8000-000000000010";
    for (plan, other) in [("huge", None), ("small", Some("huge")), ("small", Some(id))] {
        let mut missing = settings(Dialect::Osb);
        (missing.plan, missing.other_plan) = (Some(plan.into()), other.map(str::to_owned));
        let mut provider = Provider::new(Dialect::Osb);
        let report = run_with(missing, |_, request, identity| Ok(provider.answer(request, identity))).0;
        assert_eq!(of(&report, &[Fail]), []);
        assert!(of(&report, &[Skip]).iter().any(|(name, ..)| *name == "provision"));
    }
}

/// The form has the fields that Heroku's own SDK declares, and no other.
#[test]
fn herokus_form_has_herokus_fields() {
    let mut provider = Provider::new(Dialect::Heroku);
    let mut sent = Vec::new();
    run_with(settings(Dialect::Heroku), |name, request, identity| {
        if let ("sign-on", Body::Form(fields)) = (name, &request.body) {
            sent = fields.keys().cloned().collect();
        }
        Ok(provider.answer(request, identity))
    });
    let expected = [
        "app",
        "context_app",
        "email",
        "id",
        "nav-data",
        "resource_id",
        "resource_token",
        "timestamp",
        "token",
        "user_id",
        "user_scoped_resource_token",
    ];
    assert_eq!(sent, expected);
}

/// A provider that speaks another dialect makes what it is asked for, and knows the path by which it would be removed as little as that
/// of anything else: that is told.
#[test]
fn what_a_provider_of_another_dialect_keeps_is_told() {
    for (dialect, spoken) in [
        (Dialect::Scalingo, Dialect::Heroku),
        (Dialect::Heroku, Dialect::Scalingo),
        (Dialect::CleverCloud, Dialect::Heroku),
        (Dialect::Scalingo, Dialect::CleverCloud),
    ] {
        for loses_creation in [false, true] {
            let mut provider = Provider::new(spoken);
            let (report, _) = run_with(settings(dialect), |name, request, identity| {
                let answer = provider.answer(request, identity);
                if loses_creation && name == "provision" {
                    return Err(no_answer());
                }
                Ok(answer)
            });
            let there = provider.registry.iter().len();
            assert!(
                report.left.len() >= there,
                "{dialect:?} at {spoken:?}: {there} of {:?}",
                report.left
            );
        }
    }
    // The one that was reported: it is made, and there is a request for its removal.
    let mut provider = Provider::new(Dialect::Heroku);
    let (report, _) = run_with(settings(Dialect::Scalingo), |_, request, identity| {
        Ok(provider.answer(request, identity))
    });
    assert_eq!(provider.registry.iter().len(), 1);
    assert!(report.left[0].contains("DELETE BASE/"), "{:?}", report.left);
}

/// A request that was not sent has made nothing. One that was sent before may have, though it was refused when it was sent again.
#[test]
fn what_was_never_requested_is_not_left() {
    for dialect in DIALECTS {
        let (report, _) = run_with(settings(dialect), |_, _, _| {
            Err(NoAnswer {
                why: "failed to connect".into(),
                is_sent: false,
            })
        });
        assert_eq!(of(&report, &[Fail]).len(), 3);
        assert_eq!(report.left, Vec::<String>::new(), "{dialect:?}");
    }
    let mut provisions = 0;
    let (report, _) = run_with(settings(Dialect::Scalingo), |_, request, _| {
        if request.method == Method::Post && request.path.is_empty() && request.login == Login::Right {
            provisions += 1;
            if provisions == 1 {
                return Err(no_answer());
            }
        }
        Ok(told(422, json!({"message": "m"})))
    });
    assert!(provisions > 1, "it is asked again");
    assert_eq!(report.left.len(), 1, "{:?}", report.left);
}
