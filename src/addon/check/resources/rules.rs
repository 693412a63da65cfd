//! Differences between the dialects.

use crate::addon::Dialect;
use crate::addon::check::context::CheckContext;

/// Differences between the dialects.
pub(in super::super) struct CheckRules {
    pub(super) dialect: Dialect,
    /// The field that names the app.
    pub(super) app: &'static str,
    pub(super) created: &'static [u16],
    pub(super) created_rule: &'static str,
    pub(super) removed: &'static [u16],
    pub(super) removed_rule: &'static str,
    /// Status codes of a second removal.
    pub(super) removed_again: &'static [u16],
    /// Further rules in the dialect's documents.
    says: &'static [DocumentedRule],
    pub(super) sources: Sources,
}

/// Rules that only some dialects' documents have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DocumentedRule {
    /// A repeated request makes nothing new.
    Idempotent,
    /// The plan can be changed.
    PlanChange,
    /// Resources can be suspended.
    Suspension,
    /// A token of single sign-on must not be older than 5 minutes. The others recommend it.
    TokenAge,
}

impl CheckRules {
    pub(super) fn say(&self, what: DocumentedRule) -> bool {
        self.says.contains(&what)
    }
}

pub(super) struct Sources {
    pub(super) access: &'static str,
    pub(super) manifest: &'static str,
    pub(super) provision: &'static str,
    pub(super) again: &'static str,
    pub(super) extension: &'static str,
    pub(super) change: &'static str,
    pub(super) suspend: &'static str,
    pub(super) sign_on: &'static str,
    pub(super) remove: &'static str,
    pub(super) bodies: &'static str,
}

pub(in super::super) static SCALINGO: CheckRules = CheckRules {
    dialect: Dialect::Scalingo,
    app: "app_id",
    created: &[200, 201, 202],
    created_rule: "200, 201 or 202",
    removed: &[204],
    removed_rule: "204",
    removed_again: &[404, 410],
    says: &[
        DocumentedRule::PlanChange,
        DocumentedRule::Suspension,
        DocumentedRule::TokenAge,
    ],
    sources: Sources {
        access: "Scalingo, Addon definition manifest: username and password",
        manifest: "Scalingo, Addon definition manifest, Structure",
        provision: "Scalingo, Addon Provider API, Addon provisioning",
        again: "Scalingo says nothing of it; the same uuid is the same request",
        extension: "Scalingo says nothing of it",
        change: "Scalingo, Addon Provider API, Plan modification",
        suspend: "Scalingo, add-on provider boilerplate: suspend and resume",
        sign_on: "Scalingo, Addon definition manifest: sso_salt; its boilerplate refuses what is older than 5 minutes",
        remove: "Scalingo, Addon Provider API, Addon deprovisioning",
        bodies: "Scalingo, Addon Provider API: answers are JSON",
    },
};

pub(in super::super) static HEROKU: CheckRules = CheckRules {
    dialect: Dialect::Heroku,
    app: "uuid",
    created: &[200, 202],
    created_rule: "200, or 202 if it is provisioned later",
    removed: &[200, 204],
    removed_rule: "204 (200, which kensa wants, does too)",
    removed_again: &[404, 410],
    says: &[
        DocumentedRule::Idempotent,
        DocumentedRule::PlanChange,
        DocumentedRule::TokenAge,
    ],
    sources: Sources {
        access: "Heroku, Add-on Partner API Reference, Authentication & SSL",
        manifest: "Heroku, kensa: ManifestCheck",
        provision: "Heroku, Add-on Partner API Reference, Provisioning; kensa: ProvisionResponseCheck",
        again: "Heroku, Add-on Partner API Reference, Idempotency",
        extension: "Heroku, Add-on Partner API Reference, Validation",
        change: "Heroku, Add-on Partner API Reference, Plan Change",
        suspend: "",
        sign_on: "Heroku, Add-on Single Sign-On; kensa: SsoCheck",
        remove: "Heroku, Add-on Partner API Reference, Deprovisioning",
        bodies: "Heroku, Add-on Partner API Reference, Response Bodies and Exceptions",
    },
};

pub(in super::super) static CLEVER_CLOUD: CheckRules = CheckRules {
    dialect: Dialect::CleverCloud,
    app: "addon_id",
    created: &[200, 201],
    created_rule: "200",
    removed: &[200],
    removed_rule: "200",
    removed_again: &[200, 404, 410],
    says: &[],
    sources: Sources {
        access: "Clever Cloud, Marketplace APIs & Tools, Authentication",
        manifest: "Clever Cloud, Marketplace APIs & Tools, Add-on Manifest",
        provision: "Clever Cloud, Marketplace APIs & Tools, Provisioning",
        again: "Clever Cloud says nothing of it",
        extension: "Clever Cloud says nothing of it",
        change: "Clever Cloud, Marketplace APIs & Tools, Sample code (its text says nothing of it)",
        suspend: "",
        sign_on: "Clever Cloud, Marketplace APIs & Tools, SSO",
        remove: "Clever Cloud, Marketplace APIs & Tools, De-provisioning",
        bodies: "Clever Cloud, Marketplace APIs & Tools, Provisioning: answers are JSON",
    },
};

pub(super) fn rules_of(context: &CheckContext) -> &'static CheckRules {
    match context.settings.dialect {
        Dialect::Heroku => &HEROKU,
        Dialect::CleverCloud => &CLEVER_CLOUD,
        Dialect::Scalingo | Dialect::Local | Dialect::Osb => &SCALINGO,
    }
}
