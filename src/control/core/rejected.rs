//! What was refused because of what others had: a state file that claims a name, a port or an endpoint of another provider,
//! and stored services that do not go together. It is judged again whenever something that it was judged by has changed.
use std::sync::Arc;

use super::store_contents::left_out;
use super::{Core, Now, Provider};
use crate::control::membership::Name;
use crate::provider::News;
use tcpgw_core::model::{Edits, State};
use tcpgw_core::problem::Kind;

/// The state file that was refused last, if it may be accepted as it is at another time.
#[derive(Debug, Default)]
pub(super) struct Rejected {
    /// News that nothing is decided of yet: the gateway is being looked at.
    pending: Option<News>,
    file: Option<(Arc<State>, Vec<String>)>,
    /// Something has changed since.
    is_due: bool,
}

impl Rejected {
    /// The file says something else, or there is none.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// These news are judged again when the gateway has been looked at.
    pub(super) fn wait_with(&mut self, news: News) {
        self.pending = Some(news);
    }

    /// What it was judged by has changed, or may have.
    pub(super) fn again(&mut self) {
        self.is_due = self.file.is_some();
    }
}

impl Core {
    /// Returns the state of the file that is to be judged again, since nothing was decided of it, or it was refused and the
    /// reasons may be gone: [`Self::file_news`] does.
    pub fn judges_again(&mut self) -> Option<News> {
        if let Some(news) = self.rejected.pending.take() {
            return Some(news);
        }
        let is_due = std::mem::take(&mut self.rejected.is_due);
        let (state, _) = self.rejected.file.as_ref().filter(|_| is_due)?;
        Some(News::State(Arc::clone(state), Vec::new()))
    }

    /// The state file cannot be used as things are. What is refused for the same reasons as before is no news.
    pub(super) fn refuse_file(&mut self, state: Arc<State>, why: Vec<String>, now: Now) {
        let known = self.rejected.file.replace((state, why.clone()));
        let is_told = self.problems.get(Kind::RejectedState).is_some();
        if !is_told || known.is_none_or(|(_, known)| known != why) {
            self.reject(Provider::File.name(), why, now);
        }
    }

    /// Services have changed that others may have been refused because of.
    pub(super) fn judge_refused_again(&mut self, now: Now) {
        self.rejected.again();
        if self.problems.get(Kind::RejectedStore).is_some() {
            self.addresses_changed(now);
        }
    }

    /// Judges stored services that did not go together with others by what is there now.
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
            self.problems.resolve(Kind::RejectedStore);
        } else {
            self.report_rejected(Provider::Api.name(), &reasons);
        }
    }
}
