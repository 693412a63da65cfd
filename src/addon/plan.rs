//! Plans: what a resource's containers may send and receive, and what it costs.

use std::collections::BTreeSet;
use std::fmt;

use thiserror::Error;

use super::id::{Guid, PlanName};
use super::resource::Resource;
use tcpgw_core::model::Limit;

/// Maximum length of a plan's description, in bytes.
const MAX_DESCRIPTION: usize = 1024;
/// Maximum price per month.
const MAX_PRICE: f64 = 1_000_000.0;

/// A price per month, in hundredths of the platform's currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price(u32);

impl Price {
    /// Returns whether nothing is to be paid.
    pub fn is_free(self) -> bool {
        self.0 == 0
    }

    /// Returns the price as a number of the currency's unit.
    pub fn amount(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl TryFrom<f64> for Price {
    type Error = PlanError;

    fn try_from(amount: f64) -> Result<Self, PlanError> {
        if !(0.0..=MAX_PRICE).contains(&amount) {
            return Err(PlanError::Price);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range was checked"
        )]
        let hundredths = (amount * 100.0).round() as u32;
        Ok(Self(hundredths))
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// A plan: its name, id, limits, price and description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddonPlan {
    /// Name of the plan, unique among the plans.
    pub name: PlanName,
    /// Id of the plan in an OSB catalog, unique among the plans.
    pub id: Guid,
    /// The limit of each container.
    pub limit: Limit,
    /// Price of the plan.
    pub price: Price,
    /// Description for people; at most 1024 bytes.
    pub description: String,
}

/// Reason why plans cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// There are no plans.
    #[error("there must be at least one plan")]
    None,
    /// Two plans have one name.
    #[error("two plans are named {0}")]
    SameName(PlanName),
    /// Two plans have one id.
    #[error("two plans have the id {0}")]
    SameId(Guid),
    /// The price is out of range.
    #[error("price must be a number from 0 to {MAX_PRICE}")]
    Price,
    /// The description is too long.
    #[error("the description of plan {0} must be {MAX_DESCRIPTION} bytes at most")]
    Description(PlanName),
}

/// All plans, in the configuration's order; empty only where the add-on is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plans(Vec<AddonPlan>);

impl Plans {
    /// Returns the empty set, for an add-on that is off.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Returns the set of these plans.
    ///
    /// # Errors
    /// Fails with [`PlanError`] when there are no plans, two have the same name or id, or a description is too long.
    pub fn new(plans: Vec<AddonPlan>) -> Result<Self, PlanError> {
        let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for plan in &plans {
            if !names.insert(&plan.name) {
                return Err(PlanError::SameName(plan.name.clone()));
            }
            if !ids.insert(plan.id.as_str().to_ascii_lowercase()) {
                return Err(PlanError::SameId(plan.id.clone()));
            }
            if plan.description.len() > MAX_DESCRIPTION {
                return Err(PlanError::Description(plan.name.clone()));
            }
        }
        if plans.is_empty() {
            return Err(PlanError::None);
        }
        Ok(Self(plans))
    }

    /// Returns the plan of this name.
    pub fn by_name(&self, name: &str) -> Option<&AddonPlan> {
        self.0.iter().find(|plan| plan.name.as_str() == name)
    }

    /// Returns the plan of this id.
    pub fn by_id(&self, id: &str) -> Option<&AddonPlan> {
        self.0.iter().find(|plan| plan.id.as_str().eq_ignore_ascii_case(id))
    }

    /// Returns the plan of a resource: by its id, or by its name if the id is not known.
    pub fn of(&self, resource: &Resource) -> Option<&AddonPlan> {
        match &resource.plan_id {
            Some(id) => self.by_id(id.as_str()),
            None => self.by_name(resource.plan.as_str()),
        }
    }

    /// Returns all plans.
    pub fn iter(&self) -> impl Iterator<Item = &AddonPlan> {
        self.0.iter()
    }

    /// Returns their names, for an error message.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|plan| plan.name.as_str()).collect();
        names.join(", ")
    }
}

#[cfg(test)]
impl AddonPlan {
    /// Returns a free plan of 512 packets per second.
    ///
    /// # Panics
    /// The name or the id is none.
    pub(crate) fn example(name: &str, id: &str) -> Self {
        Self {
            name: name.parse().unwrap(),
            id: id.parse().unwrap(),
            limit: Limit {
                pps: 512,
                burst: 5120,
                direction: tcpgw_core::model::LimitDirection::Each,
                mtu: 1500,
            },
            price: Price::try_from(0.0).unwrap(),
            description: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcpgw_core::model::LimitDirection;

    fn plan(name: &str, id: u8) -> AddonPlan {
        AddonPlan {
            name: name.parse().unwrap(),
            id: format!("00000000-0000-0000-0000-0000000000{id:02x}").parse().unwrap(),
            limit: Limit {
                pps: 512,
                burst: 5120,
                direction: LimitDirection::Each,
                mtu: 1500,
            },
            price: Price(0),
            description: String::new(),
        }
    }

    #[test]
    fn plans_are_told_apart_by_name_and_id() {
        assert_eq!(Plans::new(vec![]), Err(PlanError::None));
        assert!(matches!(
            Plans::new(vec![plan("a", 1), plan("a", 2)]),
            Err(PlanError::SameName(_))
        ));
        assert!(matches!(
            Plans::new(vec![plan("a", 10), plan("b", 10)]),
            Err(PlanError::SameId(_))
        ));
        let plans = Plans::new(vec![plan("a", 10), plan("b", 11)]).unwrap();
        assert_eq!(
            plans.by_name("b").map(|plan| &plan.id),
            plans.by_id("00000000-0000-0000-0000-00000000000B").map(|plan| &plan.id)
        );
        assert_eq!(plans.names(), "a, b");
    }

    #[test]
    fn prices_are_kept_to_the_hundredth() {
        for (amount, text) in [
            (0.0, "0.00"),
            (9.99, "9.99"),
            (0.1 + 0.2, "0.30"),
            (1_000_000.0, "1000000.00"),
        ] {
            assert_eq!(Price::try_from(amount).unwrap().to_string(), text);
        }
        for bad in [-0.01, f64::NAN, f64::INFINITY, 1_000_000.01] {
            assert_eq!(Price::try_from(bad), Err(PlanError::Price), "{bad}");
        }
        assert!(Price(0).is_free() && !Price(1).is_free());
    }
}
