//! Definitions that were refused because of other services: a state file that claims a name, port or endpoint of
//! another provider, and stored services that conflict. They are judged again when one of the reasons has changed.
use std::sync::Arc;

use super::store_contents::left_out;
use super::{Core, Now, Provider};
use crate::control::name::Name;
use crate::provider::News;
use tcpgw_core::model::{Edits, State};
use tcpgw_core::problem::ProblemKind;

/// The state file that was refused last, if it may be accepted unchanged at another time.
#[derive(Debug, Default)]
pub(super) struct Rejected {
    /// A state that is not decided because the gateway is being examined.
    pending: Option<News>,
    file: Option<(Arc<State>, Vec<String>)>,
    /// Whether one of the reasons has changed since.
    is_due: bool,
}

impl Rejected {
    /// Forgets the refused state, since the file has changed or is not followed any more.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Keeps a state until the gateway has been examined.
    pub(super) fn wait_with(&mut self, news: News) {
        self.pending = Some(news);
    }

    /// Marks the refused state to be judged again, since one of the reasons may have changed.
    pub(super) fn again(&mut self) {
        self.is_due = self.file.is_some();
    }
}

impl Core {
    /// Returns the state of the file that [`Self::file_news`] has to judge again: one that was not decided, or was
    /// refused for reasons that may be gone.
    pub fn judges_again(&mut self) -> Option<News> {
        if let Some(news) = self.rejected.pending.take() {
            return Some(news);
        }
        let is_due = std::mem::take(&mut self.rejected.is_due);
        let (state, _) = self.rejected.file.as_ref().filter(|_| is_due)?;
        Some(News::State(Arc::clone(state), Vec::new()))
    }

    /// Refuses the state file because of other services. A refusal for the same reasons as before is not reported
    /// again.
    pub(super) fn refuse_file(&mut self, state: Arc<State>, why: Vec<String>, now: Now) {
        let known = self.rejected.file.replace((state, why.clone()));
        let is_told = self.problems.get(ProblemKind::RejectedState).is_some();
        if !is_told || known.is_none_or(|(_, known)| known != why) {
            self.reject(Provider::File.name(), why, now);
        }
    }

    /// Judges refused definitions again after services have changed.
    pub(super) fn judge_refused_again(&mut self, now: Now) {
        self.rejected.again();
        self.docker.judge_again();
        if self.problems.get(ProblemKind::RejectedStore).is_some() {
            self.addresses_changed(now);
        }
    }

    /// Judges the stored services again that conflicted with others.
    pub(super) fn judge_refused(&mut self) {
        for service in self.api.refused() {
            let name: &Name = &service.name;
            let edits = Edits {
                put: vec![Arc::clone(&service)],
                ..Edits::default()
            };
            let refused = self.judge_books(&edits, Provider::Api).err();
            let reason = refused.map(|refused| left_out(name, &refused.lines().join("; ")));
            if reason.is_none() {
                self.held_back.add(name);
            }
            self.api.judged(name, reason);
        }
        let reasons = self.api.reasons();
        if reasons.is_empty() {
            self.problems.resolve(ProblemKind::RejectedStore);
        } else {
            self.report_rejected(Provider::Api.name(), &reasons);
        }
    }
}
