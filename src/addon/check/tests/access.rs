//! Requests without credentials: each is in the table of checks, and a provider that answers one of them is found.

use super::*;
use crate::addon::check::checks::checks;
use crate::addon::check::definition::Act;

/// Segments of paths that are not ids.
const WORDS: [&str; 7] = [
    "v2",
    "catalog",
    "service_instances",
    "service_bindings",
    "last_operation",
    "suspend",
    "resume",
];

/// Returns what a request is for: its method, and its path with `ID` for each id.
fn kind(request: &CheckRequest) -> String {
    let path = request.path.split('?').next().unwrap_or_default();
    let segments: Vec<&str> = path
        .split('/')
        .map(|segment| {
            if segment.is_empty() || WORDS.contains(&segment) {
                segment
            } else {
                "ID"
            }
        })
        .collect();
    format!("{} {}", request.method.name(), segments.join("/"))
}

/// Runs with a provider that takes requests of that kind, or of that check, without looking at their credentials. Returns the findings,
/// and the number of things that are still there.
fn run_open(dialect: Dialect, is_open: impl Fn(&str, &CheckRequest) -> bool) -> (CheckReport, usize) {
    let mut provider = Provider::new(dialect);
    let (report, _) = run_with(settings(dialect), |name, request, identity| {
        let mut request = request.clone();
        if request.place == PathBase::Base && is_open(name, &request) {
            request.login = Login::Right;
        }
        Ok(provider.answer(&request, identity))
    });
    (report, provider.registry.iter().len())
}

/// Returns the kinds of the requests that are sent with credentials, and of those that are sent without.
fn kinds(dialect: Dialect, mut answer: impl FnMut(&CheckRequest, &str) -> ProviderAnswer) -> [BTreeSet<String>; 2] {
    let mut sent = [BTreeSet::new(), BTreeSet::new()];
    run_with(settings(dialect), |_, request, identity| {
        if request.place == PathBase::Base {
            match request.login {
                Login::Right => sent[0].insert(kind(request)),
                Login::Missing => sent[1].insert(kind(request)),
                Login::Wrong => false,
            };
        }
        Ok(answer(request, identity))
    });
    sent
}

#[test]
fn each_request_is_sent_without_credentials_too() {
    for dialect in DIALECTS {
        let mut provider = Provider::new(dialect);
        let [with, without] = kinds(dialect, |request, identity| provider.answer(request, identity));
        assert!(with.len() >= 3, "{with:?}");
        let lacks: Vec<&String> = with.difference(&without).collect();
        assert_eq!(lacks, Vec::<&String>::new(), "{dialect:?}");
    }
    let mut later = super::behaviour::Later::new(2, "succeeded");
    let [with, without] = kinds(Dialect::Osb, |request, identity| later.answer(request, identity));
    assert_eq!(with, without, "an asynchronous broker");
}

#[test]
fn a_provider_that_is_open_at_one_request_is_found() {
    for dialect in DIALECTS {
        let mut provider = Provider::new(dialect);
        let [with, _] = kinds(dialect, |request, identity| provider.answer(request, identity));
        for open in with {
            let (report, left) = run_open(dialect, |_, request| kind(request) == open);
            let failed = of(&report, &[Fail]);
            assert!(
                failed
                    .iter()
                    .any(|(name, ..)| name.ends_with("-credentials") || name.ends_with("-unauthorized")),
                "{dialect:?}: {open}: {failed:?}"
            );
            assert_eq!((left, report.left), (0, Vec::new()), "{dialect:?}: {open}");
        }
    }
}

/// A request with refused credentials that is accepted fails its own check, and removes nothing that the run has not made.
#[test]
fn a_provider_that_takes_one_request_without_the_right_credentials_fails_its_check() {
    for dialect in DIALECTS {
        let mut refused = BTreeSet::new();
        let mut provider = Provider::new(dialect);
        run_with(settings(dialect), |name, request, identity| {
            if request.place == PathBase::Base && request.login != Login::Right {
                refused.insert(name.to_owned());
            }
            Ok(provider.answer(request, identity))
        });
        for at in refused {
            let (report, left) = run_open(dialect, |name, _| name == at);
            let failed: Vec<&str> = of(&report, &[Fail]).into_iter().map(|(name, ..)| name).collect();
            // The provider has made what it was asked for, which the next check sees.
            let expected: &[&str] = match at.as_str() {
                "provision-unauthorized" => &["provision-unauthorized", "fetch-refused"],
                at => &[at],
            };
            assert_eq!(failed, expected, "{dialect:?}");
            assert_eq!((left, report.left), (0, Vec::new()), "{dialect:?}: {at}");
        }
    }
}

#[test]
fn requests_that_remove_without_credentials_are_for_what_the_run_has_made() {
    for dialect in DIALECTS {
        let mut provider = Provider::new(dialect);
        run_with(settings(dialect), |_, request, identity| {
            if request.method == Method::Delete && request.login != Login::Right {
                let there = provider.registry.iter().len();
                assert_eq!(there, 1, "{dialect:?}: {request:?}");
            }
            Ok(provider.answer(request, identity))
        });
    }
}

/// Few enough for a provider that throttles ten: see `crate::throttle`.
#[test]
fn few_requests_have_wrong_credentials() {
    for dialect in DIALECTS {
        let mut wrong = 0;
        let mut provider = Provider::new(dialect);
        run_with(settings(dialect), |_, request, identity| {
            wrong += u32::from(request.login == Login::Wrong);
            Ok(provider.answer(request, identity))
        });
        assert_eq!(wrong, 2, "{dialect:?}: the guide says so");
    }
}

/// A provider that signs on to a resource that it does not have.
#[test]
fn signing_on_to_nothing_is_found() {
    for dialect in [Dialect::Scalingo, Dialect::Heroku, Dialect::CleverCloud] {
        let mut provider = Provider::new(dialect);
        let (report, _) = run_with(settings(dialect), |_, request, identity| {
            let mut answer = provider.answer(request, identity);
            if let (PathBase::SignOn, Body::Form(fields)) = (request.place, &request.body) {
                let is_valid = sso::verify(dialect, fields, "fedcba9876543210", NOW).is_ok();
                answer.status = if is_valid { 303 } else { 403 };
            }
            Ok(answer)
        });
        let found: Vec<_> = of(&report, &[Fail, Warn]);
        assert_eq!(found.len(), 1, "{dialect:?}: {found:?}");
        assert_eq!(found[0].0, "sign-on-missing");
    }
}

#[test]
fn checks_without_credentials_are_of_requests() {
    for dialect in DIALECTS {
        let checks = checks(dialect);
        let named = checks.iter().filter(|check| check.name.ends_with("-no-credentials"));
        assert!(named.clone().count() >= 2, "{dialect:?}");
        assert!(named.into_iter().all(|check| matches!(check.act, Act::Send(..))));
    }
}
