//! State of a run: its settings, the provider's offer, and the things made at the provider.

use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::created_resource::{CreatedResource, ProviderResource, ResourcePresence};
use super::message::{AnswerBody, CheckExchange, RequestEffect};
use super::need::Need;
use super::offer;
use super::offer::{Ability, Offer};
use super::settings::{CheckSettings, CheckSettingsError};
use crate::addon::Dialect;

pub(super) struct CheckContext {
    pub(super) settings: CheckSettings,
    /// Seed of the ids of this run.
    seed: [u8; 16],
    /// Time since 1970.
    pub(super) now: Duration,
    /// The catalog (OSB).
    pub(super) catalog: Option<Value>,
    /// The offering and plan that the run uses.
    pub(super) offer: Option<Offer>,
    /// The plan to provision by and the one to change to: ids (OSB) or names.
    pub(super) plan: String,
    pub(super) other_plan: Option<String>,
    /// The plan that the instance or resource has.
    pub(super) current_plan: String,
    /// Whether an operation must be asked for with `accepts_incomplete` (OSB).
    pub(super) is_asynchronous: bool,
    pub(super) made: Vec<CreatedResource>,
    /// Whether the provider has removed anything at the run's request: its requests to remove are those that the provider expects.
    has_removed: bool,
    /// Whether nothing is checked any more, and only what was made is removed.
    pub(super) is_cleaning: bool,
}

impl CheckContext {
    pub(super) fn new(settings: CheckSettings, seed: [u8; 16]) -> Result<Self, CheckSettingsError> {
        let plans = manifest_plans(settings.manifest.as_ref());
        let is_osb = settings.dialect == Dialect::Osb;
        let plan = settings.plan.clone().or_else(|| plans.first().cloned());
        let plan = match plan {
            Some(plan) => plan,
            // The catalog tells.
            None if is_osb => String::new(),
            None => return Err(CheckSettingsError::NoPlan),
        };
        let other_plan = settings.other_plan.clone();
        let other_plan = other_plan.or_else(|| plans.into_iter().find(|name| *name != plan));
        if other_plan.as_ref() == Some(&plan) {
            return Err(CheckSettingsError::SamePlan);
        }
        Ok(Self {
            current_plan: plan.clone(),
            settings,
            seed,
            now: Duration::ZERO,
            catalog: None,
            offer: None,
            plan,
            other_plan,
            is_asynchronous: false,
            made: Vec::new(),
            has_removed: false,
            is_cleaning: false,
        })
    }

    /// Returns an id of this run for a purpose: a random UUID (version 4, RFC 9562) that is the same each time.
    pub(super) fn id(&self, purpose: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(purpose);
        let hex = tcpgw_core::hex::digits(&hash.finalize());
        let variant = match hex.as_bytes().get(16).copied().unwrap_or(b'0') {
            b'0' | b'4' | b'8' | b'c' => '8',
            b'1' | b'5' | b'9' | b'd' => '9',
            b'2' | b'6' | b'a' | b'e' => 'a',
            _ => 'b',
        };
        format!(
            "{}-{}-4{}-{variant}{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[13..16],
            &hex[17..20],
            &hex[20..32]
        )
    }

    /// Returns the id of the instance, or the id that the platform gave the app.
    pub(super) fn main_id(&self) -> String {
        match self.settings.dialect {
            Dialect::CleverCloud => format!("addon_{}", self.id("main")),
            Dialect::Scalingo | Dialect::Local => format!("tcpgw-check-{}", &self.id("main")[..13]),
            Dialect::Osb | Dialect::Heroku => self.id("main"),
        }
    }

    /// Returns the instance or resource that most checks are about.
    pub(super) fn main_thing(&self) -> ProviderResource {
        match self.settings.dialect {
            Dialect::Osb => ProviderResource::Instance(self.main_id()),
            _ => ProviderResource::Resource(self.main_id()),
        }
    }

    pub(super) fn main_binding(&self) -> ProviderResource {
        ProviderResource::Binding(self.main_id(), self.id("binding"))
    }

    pub(super) fn presence(&self, thing: &ProviderResource) -> Option<ResourcePresence> {
        self.find(thing).map(|made| made.presence)
    }

    pub(super) fn find(&self, thing: &ProviderResource) -> Option<&CreatedResource> {
        self.made.iter().find(|made| made.thing == *thing)
    }

    /// Returns whether the id is known by which paths name the main resource.
    fn is_addressable(&self) -> bool {
        match self.settings.dialect {
            Dialect::Osb | Dialect::Heroku => true,
            _ => self.find(&self.main_thing()).is_some_and(|made| made.id.is_some()),
        }
    }

    /// Returns why a check with this precondition cannot be done; `None`: it can.
    pub(super) fn lacks(&self, need: Need) -> Option<&'static str> {
        let offer = self.offer.as_ref();
        let offers = |ability| offer.is_some_and(|offer| offer.abilities.contains(&ability));
        let is = |thing: &ProviderResource, wanted| self.presence(thing) == Some(wanted);
        let (is_met, reason) = match need {
            Need::Offer => (
                offer.is_some(),
                "the catalog cannot be read, or has no such offering or plans (--offering, --plan, --other-plan)",
            ),
            Need::Catalog => (self.catalog.is_some(), "there is no catalog"),
            Need::Schemas => (
                self.catalog.as_ref().is_some_and(offer::has_schemas),
                "no plan of the catalog has schemas",
            ),
            Need::OtherPlan => (
                self.other_plan.is_some(),
                "no other plan is known (--other-plan, or a manifest or catalog with several)",
            ),
            Need::InstancesRetrievable => (
                offers(Ability::Retrievable),
                "the catalog does not say instances_retrievable",
            ),
            Need::BindingsRetrievable => (
                offers(Ability::BindingsRetrievable),
                "the catalog does not say bindings_retrievable",
            ),
            Need::Bindable => (offers(Ability::Bindable), "the plan is not bindable"),
            Need::Updateable => (offers(Ability::Updateable), "the catalog does not say plan_updateable"),
            Need::Resource => (
                is(&self.main_thing(), ResourcePresence::There) && self.is_addressable(),
                "nothing was provisioned, or its id is not known",
            ),
            Need::Binding => (is(&self.main_binding(), ResourcePresence::There), "nothing was bound"),
            Need::ResourceRemoved => (
                is(&self.main_thing(), ResourcePresence::Gone) && self.is_addressable(),
                "nothing was provisioned and removed again",
            ),
            Need::BindingRemoved => (
                is(&self.main_binding(), ResourcePresence::Gone),
                "nothing was bound and unbound again",
            ),
            Need::Manifest => (self.settings.manifest.is_some(), "no manifest was given (--manifest)"),
            Need::SignOn => (
                self.settings.has_sign_on && self.settings.credentials.sso_salt.is_some(),
                "the URL of single sign-on (--sso-url or --manifest) or sso_salt in the credentials is not given",
            ),
        };
        (!is_met).then_some(reason)
    }

    /// Records a request before its answer is known.
    pub(super) fn begins(&mut self, effect: &RequestEffect) {
        if let RequestEffect::Creates(thing) = effect
            && self
                .find(thing)
                .is_none_or(|made| made.presence == ResourcePresence::Gone)
        {
            self.made.retain(|made| made.thing != *thing);
            let made = CreatedResource::new(thing.clone(), ResourcePresence::Perhaps, None);
            self.made.push(made);
        }
    }

    /// Records that no answer came to a request. One that was not sent has made nothing.
    pub(super) fn lost(&mut self, effect: &RequestEffect, is_sent: bool) {
        let Some(thing) = effect.thing() else { return };
        let Some(at) = self.made.iter().position(|made| made.thing == *thing) else {
            return;
        };
        let made = &mut self.made[at];
        match effect {
            RequestEffect::Creates(_) if is_sent => (made.is_requested, made.is_lost) = (true, true),
            RequestEffect::Creates(_) if !made.is_requested && made.presence == ResourcePresence::Perhaps => {
                self.made.remove(at);
            }
            RequestEffect::Removes(_) if is_sent => made.may_be_removed = true,
            _ => {}
        }
    }

    /// Records the result of an exchange.
    pub(super) fn settles(&mut self, exchange: &CheckExchange) {
        let (status, is_success) = (exchange.status(), exchange.is_success());
        match &exchange.request.effect {
            RequestEffect::Nothing => {}
            RequestEffect::Lists => {
                if is_success && let Some(catalog) = exchange.json().filter(|body| body["services"].is_array()) {
                    self.learns(catalog);
                }
            }
            RequestEffect::Creates(thing) => {
                let id = provider_id(exchange);
                let has_own_ids = self.settings.dialect != Dialect::Heroku;
                let Some(made) = self.made.iter_mut().find(|made| made.thing == *thing) else {
                    return;
                };
                let was_requested = std::mem::replace(&mut made.is_requested, true);
                if is_success {
                    made.presence = ResourcePresence::There;
                    // The same app once more, with an id of its own, is something else to remove.
                    let is_second = has_own_ids && id.is_some() && made.id.is_some() && made.id != id;
                    if is_second && let ProviderResource::Resource(app) = thing {
                        let thing = ProviderResource::Resource(format!(
                            "{app} once more, {}",
                            id.as_deref().unwrap_or_default()
                        ));
                        self.made.retain(|made| made.thing != thing);
                        self.made.push(CreatedResource::new(thing, ResourcePresence::There, id));
                    } else {
                        made.id = made.id.take().or(id);
                    }
                } else if (400..500).contains(&status) && made.presence == ResourcePresence::Perhaps && !was_requested {
                    // A refused request has changed nothing, so there is nothing to remove. One before it may have made the thing.
                    self.made.retain(|made| made.thing != *thing);
                }
            }
            RequestEffect::Removes(thing) => {
                self.has_removed |= is_success;
                let Some(made) = self.made.iter_mut().find(|made| made.thing == *thing) else {
                    return;
                };
                // A provider of another dialect, which knows the request's path or id for no thing, says so of things that it has, too. The
                // paths of Open Service Broker are those of no other dialect.
                let is_known = self.has_removed || self.settings.dialect == Dialect::Osb;
                let was_never_there = made.presence == ResourcePresence::Perhaps && (is_known || !made.is_lost);
                let is_absence_credible = made.may_be_removed || was_never_there;
                let is_absent = self.is_cleaning && [404, 410].contains(&status);
                if is_success || is_absent && is_absence_credible {
                    made.presence = ResourcePresence::Gone;
                }
                made.may_be_removed |= !(400..500).contains(&status);
            }
            RequestEffect::Changes(thing, plan) => {
                if is_success && *thing == self.main_thing() {
                    self.current_plan.clone_from(plan);
                }
            }
        }
    }
}

impl CheckContext {
    /// Records the catalog, and chooses offering and plans from it.
    fn learns(&mut self, catalog: &Value) {
        self.catalog = Some(catalog.clone());
        self.offer = Offer::choose(catalog, &self.settings);
        if let Some(offer) = &self.offer {
            self.plan.clone_from(&offer.plan_id);
            self.current_plan.clone_from(&offer.plan_id);
            self.other_plan.clone_from(&offer.other_plan_id);
        }
    }
}

/// Returns the id that a provider gave to the thing that it made.
fn provider_id(exchange: &CheckExchange) -> Option<String> {
    let AnswerBody::Json(body) = &exchange.answer.content else {
        return None;
    };
    match body.get("id")? {
        Value::String(id) if !id.is_empty() => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

/// Returns the names of a manifest's plans, those that cost nothing first.
fn manifest_plans(manifest: Option<&Value>) -> Vec<String> {
    let plans = manifest.and_then(|manifest| manifest.get("plans")?.as_array());
    let mut plans: Vec<&Value> = plans.into_iter().flatten().collect();
    plans.sort_by_key(|plan| plan.get("price").and_then(Value::as_f64) != Some(0.0));
    let names = plans.into_iter().filter_map(|plan| plan.get("name")?.as_str());
    names.map(str::to_owned).collect()
}
