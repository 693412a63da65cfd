//! The checks of the provider APIs that have resources: Scalingo's, Heroku's and Clever Cloud's.
//!
//! Sources: Scalingo, "Addon Provider API" (developers.scalingo.com), and its add-on provider boilerplate; Heroku, "Add-on Partner API
//! Reference", version 3 (devcenter.heroku.com), and its tester kensa; Clever Cloud, "Marketplace APIs & Tools" of its documentation.
//! Where a document says nothing, another answer is a warning.
mod answers;
mod requests;
mod table;

use super::Check;
use super::context::Context;
use crate::addon::Dialect;

pub(super) use self::requests::removing;

/// Differences between the dialects.
pub(super) struct Rules {
    dialect: Dialect,
    /// The field that names the app.
    app: &'static str,
    created: &'static [u16],
    created_rule: &'static str,
    removed: &'static [u16],
    removed_rule: &'static str,
    /// Status codes of a second removal.
    removed_again: &'static [u16],
    /// Further rules in the dialect's documents.
    says: &'static [Says],
    sources: Sources,
}

/// Rules that only some dialects' documents have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// A repeated request makes nothing new.
    Idempotent,
    /// The plan can be changed.
    PlanChange,
    /// Resources can be suspended.
    Suspension,
    /// A token of single sign-on must not be older than 5 minutes. The others recommend it.
    TokenAge,
}

impl Rules {
    fn say(&self, what: Says) -> bool {
        self.says.contains(&what)
    }
}

struct Sources {
    access: &'static str,
    manifest: &'static str,
    provision: &'static str,
    again: &'static str,
    extension: &'static str,
    change: &'static str,
    suspend: &'static str,
    sign_on: &'static str,
    remove: &'static str,
    bodies: &'static str,
}

pub(super) static SCALINGO: Rules = Rules {
    dialect: Dialect::Scalingo,
    app: "app_id",
    created: &[200, 201, 202],
    created_rule: "200, 201 or 202",
    removed: &[204],
    removed_rule: "204",
    removed_again: &[404, 410],
    says: &[Says::PlanChange, Says::Suspension, Says::TokenAge],
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

pub(super) static HEROKU: Rules = Rules {
    dialect: Dialect::Heroku,
    app: "uuid",
    created: &[200, 202],
    created_rule: "200, or 202 if it is provisioned later",
    removed: &[200, 204],
    removed_rule: "204 (200, which kensa wants, does too)",
    removed_again: &[404, 410],
    says: &[Says::Idempotent, Says::PlanChange, Says::TokenAge],
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

pub(super) static CLEVER_CLOUD: Rules = Rules {
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

fn rules_of(context: &Context) -> &'static Rules {
    match context.settings.dialect {
        Dialect::Heroku => &HEROKU,
        Dialect::CleverCloud => &CLEVER_CLOUD,
        Dialect::Scalingo | Dialect::Local | Dialect::Osb => &SCALINGO,
    }
}

/// Returns the checks of a dialect, in their order.
pub(super) fn checks(rules: &'static Rules) -> Vec<Check> {
    let mut checks = table::manifest_checks(rules);
    checks.extend(table::refusal_checks(rules));
    checks.extend(table::provision_checks(rules));
    checks.extend(table::change_checks(rules));
    if rules.say(Says::Suspension) {
        checks.extend(table::suspend_checks(rules));
    }
    checks.extend(table::sign_on_checks(rules));
    checks.extend(table::removal_checks(rules));
    checks.extend(table::whole_checks(rules));
    checks
}
