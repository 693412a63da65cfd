//! A change of a resource that is being written.

use super::order::refused;
use crate::addon::{AddonOutcome, ResourceChange};
use crate::control::reply::ReplySender;
use crate::control::request::AddonRefused;
use crate::store::StoreError;

/// Result of an accepted request, with the client that waits for it.
pub(super) struct Provisioned {
    pub(super) change: Option<ResourceChange>,
    pub(super) outcome: AddonOutcome,
    pub(super) reply: ReplySender<Result<AddonOutcome, AddonRefused>>,
}

impl Provisioned {
    pub(super) fn refuse(self, error: &StoreError) {
        drop(self.reply.send(Err(AddonRefused::Daemon(refused(error)))));
    }
}
