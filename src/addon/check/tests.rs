//! The checks against this program's own provider API, in memory: as it is, and with one thing wrong.

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::time::Duration;

use serde_json::{Value, json};

use super::run::CheckVerdict::{self, Fail, Skip, Warn};
use super::*;
use crate::addon::Dialect;
use crate::addon::check::checks::checks;
use crate::addon::credentials::{Credentials, ProviderCredentials};
use crate::addon::decision::RegistryFacts;
use crate::addon::dialect::exchange::{AuthenticatedRequest, Call, Method};
use crate::addon::dialect::gateway::GatewayProperties;
use crate::addon::dialect::{self, exchange};
use crate::addon::plan::{AddonPlan, Plans};
use crate::addon::ports::PortSet;
use crate::addon::registry::Registry;
use crate::addon::request::ResourceTarget;
use crate::addon::sso::{self, FormFields};
use tcpgw_core::model::PortRange;

const NOW: Duration = Duration::from_secs(1_800_000_000);
const USER: &str = "username = 'tcp'\npassword = '0123456789abcdef'\nsso_salt = 'fedcba9876543210'";
const DIALECTS: [Dialect; 4] = [Dialect::Osb, Dialect::Scalingo, Dialect::Heroku, Dialect::CleverCloud];

fn plans() -> Plans {
    let plan = |(at, name)| AddonPlan::example(name, &format!("00000000-0000-4000-8000-00000000001{at}"));
    Plans::new(["small", "large"].into_iter().enumerate().map(plan).collect()).unwrap()
}

/// A provider: this program's own, without sockets.
struct Provider {
    dialect: Dialect,
    plans: Plans,
    registry: Registry,
    random: u64,
}

impl Provider {
    fn new(dialect: Dialect) -> Self {
        let port = |number| NonZeroU16::new(number).unwrap();
        let range = PortRange::new(port(20_000), port(20_099)).unwrap();
        Self {
            dialect,
            plans: plans(),
            registry: Registry::new(range, Duration::ZERO, [], [], NOW),
            random: 0,
        }
    }

    fn answer(&mut self, request: &CheckRequest, identity: &str) -> ProviderAnswer {
        let (status, body) = self.told(request);
        ProviderAnswer {
            status,
            media: body.is_some().then(|| "application/json".to_owned()),
            identity: Some(identity.to_owned()),
            retry_after: None,
            content: body.map_or(AnswerBody::Empty, AnswerBody::Json),
            took: Duration::from_millis(5),
        }
    }

    fn told(&mut self, request: &CheckRequest) -> (u16, Option<Value>) {
        if request.place == PathBase::SignOn {
            return (self.signs_on(request), None);
        }
        if request.login != Login::Right {
            return (
                401,
                Some(json!({"error": "Unauthorized", "message": "m", "description": "d"})),
            );
        }
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let query: FormFields = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let prefix = if self.dialect == Dialect::Osb { "" } else { "resources" };
        let path = format!("{prefix}{}", path.strip_prefix("/v2/").unwrap_or(path));
        let path: Vec<&str> = path.split('/').collect();
        let bytes = request.bytes();
        let received = AuthenticatedRequest {
            method: request.method,
            path: &path,
            query: &query,
            version: match request.version {
                Version::Usual => Some("2.17"),
                Version::Missing => None,
                Version::Other(version) => Some(version),
            },
            body: &bytes,
        };
        let answer = match dialect::parse(self.dialect, &received) {
            Err(answer) => answer,
            Ok(call) => self.does(&call),
        };
        (answer.status, answer.body)
    }

    fn does(&mut self, call: &Call) -> exchange::DialectAnswer {
        let plans = self.plans.clone();
        let gateway = GatewayProperties {
            host: "gateway.example.com",
            pages: None,
            plans: &plans,
        };
        let target = match call {
            Call::Catalog => {
                return exchange::DialectAnswer {
                    status: 200,
                    body: Some(dialect::catalog(&plans)),
                };
            }
            Call::Change(request) => {
                self.random += 1;
                let facts = RegistryFacts {
                    plans: &plans,
                    busy: &PortSet::default(),
                    random: self.random,
                    now: NOW,
                };
                let decided = self.registry.decide(request, facts);
                let result = decided.map(|decision| {
                    if let Some(change) = &decision.change {
                        self.registry.commit(change, NOW);
                    }
                    decision.outcome
                });
                return dialect::answer(self.dialect, request, &result, gateway);
            }
            Call::Show(target)
            | Call::Keep(target)
            | Call::ShowBinding(target, _)
            | Call::LastOperation(target)
            | Call::LastBindingOperation(target, _) => target,
        };
        let found = self.registry.find(target).cloned();
        dialect::shown(self.dialect, call, &found, gateway)
    }

    fn signs_on(&self, request: &CheckRequest) -> u16 {
        let Body::Form(fields) = &request.body else { return 400 };
        let Ok(named) = sso::verify(self.dialect, fields, "fedcba9876543210", NOW) else {
            return 403;
        };
        let target = match self.dialect {
            Dialect::Heroku => named.parse().ok().map(|app| ResourceTarget::App(self.dialect, app)),
            _ => named.parse().ok().map(|id| ResourceTarget::Id(self.dialect, id)),
        };
        match target.map(|target| self.registry.find(&target).is_ok()) {
            Some(true) => 303,
            _ => 403,
        }
    }
}

fn settings(dialect: Dialect) -> CheckSettings {
    let is_osb = dialect == Dialect::Osb;
    let credentials = Credentials::parse(USER).unwrap();
    let manifest = dialect::manifest(dialect, &plans(), &credentials, "https://gw.example.com");
    CheckSettings {
        dialect,
        credentials: ProviderCredentials::parse(USER).unwrap(),
        offering: None,
        plan: (!is_osb).then(|| "small".into()),
        other_plan: (!is_osb).then(|| "large".into()),
        organization: "organization".into(),
        space: "space".into(),
        parameters: serde_json::Map::new(),
        manifest: (!is_osb).then_some(manifest),
        has_sign_on: true,
        poll_limit: Duration::from_secs(60),
    }
}

/// The request was sent, and no answer came.
fn no_answer() -> NoAnswer {
    NoAnswer {
        why: "no answer".into(),
        is_sent: true,
    }
}

/// Runs all checks. What `change` returns stands for the answer to the request of that check.
fn run_with(
    settings: CheckSettings,
    mut answer: impl FnMut(&str, &CheckRequest, &str) -> Result<ProviderAnswer, NoAnswer>,
) -> (CheckReport, u64) {
    let mut run = CheckRun::new(settings, [7; 16]).unwrap();
    let mut requests = 0;
    while let Next::Send(request, identity) = run.next(NOW) {
        requests += 1;
        assert!(requests < 1000, "it does not end");
        let name = run.name().to_owned();
        run.answered(answer(&name, &request, &identity));
    }
    (run.report(), requests)
}

fn run(dialect: Dialect) -> CheckReport {
    let mut provider = Provider::new(dialect);
    run_with(settings(dialect), |_, request, identity| {
        Ok(provider.answer(request, identity))
    })
    .0
}

fn of(report: &CheckReport, verdicts: &[CheckVerdict]) -> Vec<(&'static str, CheckVerdict, String)> {
    let findings = report
        .findings
        .iter()
        .filter(|finding| verdicts.contains(&finding.verdict));
    findings
        .map(|finding| (finding.name, finding.verdict, finding.why.clone().unwrap_or_default()))
        .collect()
}

#[test]
fn this_programs_own_provider_api_passes() {
    for dialect in DIALECTS {
        let report = run(dialect);
        assert_eq!(of(&report, &[Fail, Warn]), [], "{dialect:?}");
        let skipped: Vec<&str> = of(&report, &[Skip]).into_iter().map(|(name, ..)| name).collect();
        let expected: &[&str] = match dialect {
            Dialect::Osb => &["catalog-schemas"],
            _ => &[],
        };
        assert_eq!(skipped, expected, "{dialect:?}");
        assert_eq!(report.left, Vec::<String>::new());
    }
}

#[test]
fn names_are_unique_and_rules_have_sources() {
    for dialect in DIALECTS {
        let checks = checks(dialect);
        let names: BTreeSet<&str> = checks.iter().map(|check| check.name).collect();
        assert_eq!(names.len(), checks.len(), "{dialect:?}");
        assert!(
            checks
                .iter()
                .all(|check| !check.rule.is_empty() && !check.source.is_empty())
        );
    }
}

mod access;
mod behaviour;
mod mutants;
