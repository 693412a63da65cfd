//! The offering and the plan of a catalog that a run uses.

use std::collections::BTreeSet;

use serde_json::Value;

use super::settings::CheckSettings;

/// Ability that a catalog declares for the instances of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ability {
    /// Instances can be fetched.
    Retrievable,
    /// Bindings of instances can be fetched.
    BindingsRetrievable,
    /// Instances can be bound.
    Bindable,
    /// The plan of an instance can be changed.
    Updateable,
}

/// The offering and the plan that are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) service_id: String,
    pub(super) plan_id: String,
    /// Another plan of the same offering.
    pub(super) other_plan_id: Option<String>,
    /// Abilities that the catalog declares for instances of the plan.
    pub(super) abilities: BTreeSet<Ability>,
    /// The version of the plan's `maintenance_info`.
    pub(super) maintenance: Option<String>,
    /// The permissions that the offering asks for.
    pub(super) requires: Vec<String>,
}

impl Offer {
    /// Chooses from a catalog. `None`: there is nothing that the settings name.
    pub(super) fn choose(catalog: &Value, settings: &CheckSettings) -> Option<Self> {
        let is = |object: &Value, wanted: &str| ["id", "name"].iter().any(|key| object[key] == *wanted);
        let services = catalog.get("services")?.as_array()?;
        let service_fits = |service: &&Value| settings.offering.as_ref().is_none_or(|wanted| is(service, wanted));
        let plans_of = |service: &Value| service["plans"].as_array().cloned().unwrap_or_default();
        services.iter().filter(service_fits).find_map(|service| {
            let plans = plans_of(service);
            let named = |wanted: &str| plans.iter().find(|plan| is(plan, wanted));
            let plan = match &settings.plan {
                Some(wanted) => named(wanted)?,
                None => plans.first()?,
            };
            let other = match &settings.other_plan {
                // A plan that was asked for and is not there is no plan to leave out without a word.
                Some(wanted) => Some(named(wanted).filter(|other| other["id"] != plan["id"])?),
                None => plans.iter().find(|other| other["id"] != plan["id"]),
            };
            let says = |object: &Value, key: &str| object[key].as_bool();
            let of_plan = |key: &str| says(plan, key).or(says(service, key)).unwrap_or(false);
            let of_service = |key: &str| says(service, key).unwrap_or(false);
            let abilities = [
                (Ability::Retrievable, of_service("instances_retrievable")),
                (Ability::BindingsRetrievable, of_service("bindings_retrievable")),
                (Ability::Bindable, of_plan("bindable")),
                (Ability::Updateable, of_plan("plan_updateable")),
            ];
            let requires = service["requires"].as_array().into_iter().flatten();
            Some(Self {
                service_id: service["id"].as_str()?.to_owned(),
                plan_id: plan["id"].as_str()?.to_owned(),
                other_plan_id: other.and_then(|other| other["id"].as_str()).map(str::to_owned),
                abilities: abilities
                    .into_iter()
                    .filter_map(|(ability, is_said)| is_said.then_some(ability))
                    .collect(),
                maintenance: plan["maintenance_info"]["version"].as_str().map(str::to_owned),
                requires: requires.filter_map(Value::as_str).map(str::to_owned).collect(),
            })
        })
    }
}

/// Returns whether the catalog has schemas to check.
pub(super) fn has_schemas(catalog: &Value) -> bool {
    let services = catalog["services"].as_array().into_iter().flatten();
    let mut plans = services.flat_map(|service| service["plans"].as_array().into_iter().flatten());
    plans.any(|plan| plan["schemas"].is_object())
}
