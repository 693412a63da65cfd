//! One run of the checks: what to send next, what came of it, and the removal of all that was made.

mod cleaning;
mod polling;
mod report;
mod stage;

use std::time::Duration;

use serde_json::Value;

pub use self::report::{CheckFinding, CheckReport, CheckVerdict};

use self::stage::{CheckStage, MAX_LOST};
use super::checks::checks;
use super::context::CheckContext;
use super::created_resource::{ProviderResource, ResourcePresence};
use super::definition::{Act, Check};
use super::judgement::{CheckResult, Flaw};
use super::message::{CheckExchange, CheckRequest, NoAnswer, PathBase, ProviderAnswer};
use super::settings::{CheckSettings, CheckSettingsError};
use super::{osb, redacted};
use crate::addon::Dialect;

/// Next action that a run needs from its caller.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Send this request, and pass the answer to the run. The text identifies the request (OSB).
    Send(Box<CheckRequest>, String),
    /// The run has ended.
    End,
}

/// State machine of a run: gives requests out, takes answers in, and collects findings.
pub struct CheckRun {
    context: CheckContext,
    checks: Vec<Check>,
    at: usize,
    stage: CheckStage,
    transcript: Vec<CheckExchange>,
    /// Checks that were answered, with the place of the answer in the transcript.
    answered: Vec<(&'static str, usize)>,
    findings: Vec<CheckFinding>,
    lost: u32,
    /// Reason why the remaining checks are skipped.
    ended: Option<String>,
    identities: u32,
}

impl CheckRun {
    /// Returns a run whose ids come from 16 random bytes.
    ///
    /// # Errors
    /// Fails with [`CheckSettingsError`] when the plan is not known, or both plans are the same.
    pub fn new(settings: CheckSettings, seed: [u8; 16]) -> Result<Self, CheckSettingsError> {
        let checks = checks(settings.dialect);
        Ok(Self {
            context: CheckContext::new(settings, seed)?,
            checks,
            at: 0,
            stage: CheckStage::Ready,
            transcript: Vec::new(),
            answered: Vec::new(),
            findings: Vec::new(),
            lost: 0,
            ended: None,
            identities: 0,
        })
    }

    /// Returns the next action. `now` is the time since 1970.
    pub fn next(&mut self, now: Duration) -> Next {
        self.context.now = now;
        loop {
            match std::mem::replace(&mut self.stage, CheckStage::Over) {
                CheckStage::Ready => match self.checks.get(self.at).copied() {
                    None => self.begin_cleaning(),
                    Some(check) => {
                        if let Some(request) = self.begin(check) {
                            return self.ask(request);
                        }
                    }
                },
                CheckStage::Polling(poll) => {
                    let request = poll.request.clone();
                    self.stage = CheckStage::Polling(poll);
                    return self.send(request);
                }
                CheckStage::Cleaning { left, tries } => {
                    if let Some(request) = self.remove_first(left, tries) {
                        return self.send(request);
                    }
                }
                // The caller did not pass an answer to the run, so the request is sent again.
                CheckStage::Asked(request) => return self.ask(*request),
                CheckStage::Removing { request, left, tries } => {
                    self.stage = CheckStage::Removing {
                        request: request.clone(),
                        left,
                        tries,
                    };
                    return self.send(*request);
                }
                CheckStage::Over => return Next::End,
            }
        }
    }

    /// Takes the answer to the request that was sent last, or why there is none. Returns how long to wait before the next one.
    pub fn answered(&mut self, came: Result<ProviderAnswer, NoAnswer>) -> Option<Duration> {
        match &came {
            Ok(_) => self.lost = 0,
            Err(_) => self.lost += 1,
        }
        match std::mem::replace(&mut self.stage, CheckStage::Over) {
            CheckStage::Asked(request) => {
                self.stage = CheckStage::Ready;
                match came {
                    Ok(answer) => return self.took(*request, answer),
                    Err(lost) => self.lost_answer(&request, lost),
                }
                None
            }
            CheckStage::Polling(poll) => self.polled(poll, came),
            CheckStage::Removing { request, left, tries } => self.removed(*request, left, tries, came),
            other => {
                self.stage = other;
                None
            }
        }
    }

    /// Returns the name of the current check; empty when the checks are over.
    pub fn name(&self) -> &'static str {
        self.checks.get(self.at).map_or("", |check| check.name)
    }

    /// Ends the checks: those that are left are skipped, and what was made is removed. A request that is under way is
    /// forgotten. Returns false where only the removal is left, which goes on.
    pub fn interrupt(&mut self, why: &str) -> bool {
        if matches!(
            self.stage,
            CheckStage::Cleaning { .. } | CheckStage::Removing { .. } | CheckStage::Over
        ) {
            return false;
        }
        if let CheckStage::Polling(poll) = &self.stage
            && poll.cleaning.is_some()
        {
            return false;
        }
        self.ended = Some(why.to_owned());
        if let CheckStage::Asked(request) = std::mem::replace(&mut self.stage, CheckStage::Ready) {
            self.context.lost(&request.effect, true);
        }
        true
    }

    /// Returns the findings so far.
    pub fn findings(&self) -> &[CheckFinding] {
        &self.findings
    }

    /// Returns the result of the run.
    pub fn report(self) -> CheckReport {
        let remaining = self.left();
        CheckReport {
            findings: self.findings,
            left: remaining,
        }
    }

    /// Returns the things that may still be at the provider.
    pub fn left(&self) -> Vec<String> {
        let there = self
            .context
            .made
            .iter()
            .filter(|made| made.presence != ResourcePresence::Gone);
        there
            .map(|made| {
                let what = match &made.thing {
                    ProviderResource::Instance(id) => format!("instance {id}"),
                    ProviderResource::Binding(instance, id) => format!("binding {id} of instance {instance}"),
                    ProviderResource::Resource(app) => match &made.id {
                        Some(id) => format!("resource {id} of app {app}"),
                        None => format!("resource of app {app}, whose id the provider has not told"),
                    },
                };
                match self.removal(&made.thing) {
                    Some(request) => format!("{what}: {}", self.shown_request(&request)),
                    None => what,
                }
            })
            .collect()
    }

    fn is_osb(&self) -> bool {
        self.context.settings.dialect == Dialect::Osb
    }

    /// Returns the request of a check, or records the result of a check that needs none.
    fn begin(&mut self, check: Check) -> Option<CheckRequest> {
        if let Some(reason) = self.reason_to_skip(check) {
            self.finish(check, CheckVerdict::Skip, Some(reason), None);
            return None;
        }
        match check.act {
            Act::Send(request, _) => {
                let mut request = request(&self.context);
                if self.context.is_asynchronous && request.effect.thing().is_some() {
                    request.path = incomplete(&request.path);
                }
                return Some(request);
            }
            Act::Judge(name, judge) => {
                let place = self.answered.iter().find(|(answered, _)| *answered == name);
                if let Some(exchange) = place.and_then(|(_, at)| self.transcript.get(*at)) {
                    let judgement = judge(&self.context, exchange);
                    let place = place.map(|(_, at)| *at);
                    self.judged(check, judgement, place);
                }
            }
            Act::Manifest(judge) => {
                let manifest = self.context.settings.manifest.clone().unwrap_or(Value::Null);
                let judgement = judge(&self.context, &manifest);
                self.judged(check, judgement, None);
            }
            Act::Each(judge) => {
                let mut worst: Option<(usize, Flaw)> = None;
                for (at, exchange) in self.transcript.iter().enumerate() {
                    let Err(flaw) = judge(&self.context, exchange) else {
                        continue;
                    };
                    if worst
                        .as_ref()
                        .is_none_or(|(_, known)| flaw.is_failure && !known.is_failure)
                    {
                        worst = Some((at, flaw));
                    }
                }
                match worst {
                    None => self.judged(check, Ok(()), None),
                    Some((at, flaw)) => self.judged(check, Err(flaw), Some(at)),
                }
            }
        }
        None
    }

    fn reason_to_skip(&self, check: Check) -> Option<String> {
        // Answers that came can be judged, whatever ended the run.
        let needs_provider = matches!(check.act, Act::Send(..));
        if let Some(why) = self.ended.as_ref().filter(|_| needs_provider) {
            return Some(why.clone());
        }
        if let Some(reason) = check.needs.iter().find_map(|need| self.context.lacks(*need)) {
            return Some(reason.to_owned());
        }
        match check.act {
            Act::Judge(name, _) => {
                let passed = |finding: &&CheckFinding| {
                    finding.name == name && matches!(finding.verdict, CheckVerdict::Pass | CheckVerdict::Warn)
                };
                let is_known = self.findings.iter().find(passed).is_some();
                (!is_known).then(|| format!("the check {name} has not passed"))
            }
            Act::Each(_) if self.transcript.is_empty() => Some("there was no answer".into()),
            _ => None,
        }
    }

    fn ask(&mut self, request: CheckRequest) -> Next {
        self.context.begins(&request.effect);
        self.stage = CheckStage::Asked(Box::new(request.clone()));
        self.send(request)
    }

    fn send(&mut self, request: CheckRequest) -> Next {
        self.identities += 1;
        Next::Send(Box::new(request), self.identity())
    }

    /// Returns the identity of the request that was sent last.
    fn identity(&self) -> String {
        self.context.id(&format!("request {}", self.identities))
    }

    fn exchange(&self, request: CheckRequest, answer: ProviderAnswer) -> CheckExchange {
        CheckExchange {
            request,
            identity: self.identity(),
            answer,
            end: None,
        }
    }

    fn took(&mut self, request: CheckRequest, answer: ProviderAnswer) -> Option<Duration> {
        let exchange = self.exchange(request, answer);
        let thing = exchange.request.effect.thing().cloned();
        if self.is_osb()
            && let Some(thing) = thing
        {
            if osb::wants_asynchronous(&exchange) && !self.context.is_asynchronous {
                // The broker may say so; the same is asked for again in the way that it wants.
                self.context.is_asynchronous = true;
                let mut again = exchange.request.clone();
                again.path = incomplete(&again.path);
                self.transcript.push(exchange);
                self.context.begins(&again.effect);
                self.stage = CheckStage::Ready;
                return None;
            }
            if exchange.status() == 202 {
                return self.poll(exchange, &thing, None);
            }
        }
        self.settle(exchange);
        None
    }

    /// Judges the answer to the current check.
    fn settle(&mut self, exchange: CheckExchange) {
        self.stage = CheckStage::Ready;
        let Some(check) = self.checks.get(self.at).copied() else {
            return;
        };
        self.context.settles(&exchange);
        let judgement = match check.act {
            Act::Send(_, judge) => judge(&self.context, &exchange),
            _ => Ok(()),
        };
        self.transcript.push(exchange);
        let at = self.transcript.len() - 1;
        self.answered.push((check.name, at));
        self.judged(check, judgement, Some(at));
    }

    fn lost_answer(&mut self, request: &CheckRequest, lost: NoAnswer) {
        self.context.lost(&request.effect, lost.is_sent);
        if self.lost >= MAX_LOST {
            self.ended = Some(format!("the provider did not answer {MAX_LOST} times in a row"));
        }
        let Some(check) = self.checks.get(self.at).copied() else {
            return;
        };
        let sent = self.shown_request(request);
        self.finish(check, CheckVerdict::Fail, Some(lost.why), Some((sent, None)));
    }

    fn judged(&mut self, check: Check, judgement: CheckResult, at: Option<usize>) {
        let shown = at
            .and_then(|at| self.transcript.get(at))
            .map(|exchange| (self.shown_request(&exchange.request), Some(redacted::answer(exchange))));
        match judgement {
            Ok(()) => self.finish(check, CheckVerdict::Pass, None, shown),
            Err(Flaw { is_failure, why }) => {
                let verdict = if is_failure {
                    CheckVerdict::Fail
                } else {
                    CheckVerdict::Warn
                };
                self.finish(check, verdict, Some(why), shown);
            }
        }
    }

    fn finish(
        &mut self,
        check: Check,
        verdict: CheckVerdict,
        why: Option<String>,
        shown: Option<(String, Option<String>)>,
    ) {
        let (sent, came) = shown.map_or((None, None), |(sent, came)| (Some(sent), came));
        self.findings.push(CheckFinding {
            name: check.name,
            verdict,
            why,
            sent,
            came,
            rule: check.rule,
            source: check.source,
        });
        self.at += 1;
        self.stage = CheckStage::Ready;
    }

    fn shown_request(&self, request: &CheckRequest) -> String {
        let place = match (request.place, self.context.settings.dialect) {
            (PathBase::SignOn, _) => "SSO",
            (PathBase::Base, Dialect::Osb) => "",
            (PathBase::Base, _) => "BASE",
        };
        redacted::request(request, place)
    }
}

/// Returns the path with the parameter that says that the platform can wait.
fn incomplete(path: &str) -> String {
    if path.contains("accepts_incomplete=") {
        return path.to_owned();
    }
    let joint = if path.contains('?') { '&' } else { '?' };
    format!("{path}{joint}accepts_incomplete=true")
}
