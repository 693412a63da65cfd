//! Requests about resources of the add-on.

use std::num::NonZeroU16;

use super::fingerprint::Fingerprint;
use super::id::{Guid, PlanName, PlatformId, ResourceId};
use super::plan::{AddonPlan, Plans};
use super::refusal::Refusal;
use super::resource::{Binding, Dialect, Resource, ResourceOwner};

/// A resource to provision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provision {
    /// Provider API of the request.
    pub dialect: Dialect,
    /// The platform's id of the app.
    pub app: PlatformId,
    /// Scalingo's `uuid`.
    pub uuid: Option<PlatformId>,
    /// Organization and space that the instance belongs to (OSB).
    pub owner: Option<ResourceOwner>,
    /// The plan.
    pub plan: WantedPlan,
    /// Requested port; `None`: any.
    pub port: Option<NonZeroU16>,
    /// The parameters (OSB); `None`: not to be compared.
    pub asked: Option<Fingerprint>,
}

/// The plan that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedPlan {
    /// The plan of this name.
    Named(PlanName),
    /// The plan of this id (OSB), which can be a plan that is no longer in the catalog and that existing instances keep.
    /// `None`: the request has a text that is no plan's id.
    Id(Option<Guid>),
}

impl From<PlanName> for WantedPlan {
    fn from(name: PlanName) -> Self {
        Self::Named(name)
    }
}

impl WantedPlan {
    /// Returns whether this names the plan that a resource has. A name means the plan that has this name now.
    pub(super) fn is_of(&self, resource: &Resource, plans: &Plans) -> bool {
        match (self, &resource.plan_id) {
            (Self::Named(name), _) => *name == resource.plan,
            (Self::Id(Some(id)), Some(of)) => id.is(of.as_str()),
            (Self::Id(None), Some(_)) => false,
            // A plan of which only the name is known has left the catalog, or is the one of that name.
            (Self::Id(id), None) => {
                let listed = |id: &Guid| plans.by_id(id.as_str()).map(|plan| &plan.name);
                let there = plans.by_name(resource.plan.as_str()).map(|plan| &plan.name);
                id.as_ref().and_then(listed) == there
            }
        }
    }

    /// Returns the plan, or the error if it cannot be given to a resource.
    pub(super) fn to_give<'p>(&self, plans: &'p Plans) -> Result<&'p AddonPlan, Refusal> {
        match self {
            Self::Named(name) => plans.by_name(name.as_str()).ok_or_else(|| Refusal::UnknownPlan {
                name: name.to_string(),
                known: plans.names(),
            }),
            Self::Id(id) => {
                let plan = id.as_ref().and_then(|id| plans.by_id(id.as_str()));
                plan.ok_or(Refusal::UnlistedPlan)
            }
        }
    }

    /// Returns whether a change to this plan leaves a resource as it is. The plan that it has may have left the configuration: it stays
    /// with those who have it.
    pub(super) fn leaves(&self, resource: &Resource, plans: &Plans) -> bool {
        match self.to_give(plans) {
            Ok(plan) => plans.of(resource).is_some_and(|there| there.id == plan.id),
            Err(_) => self.is_of(resource, plans),
        }
    }
}

/// Resource that a request is about. A provider API has access to its own resources only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResourceTarget {
    /// The resource with this id, which tcpgw has given.
    Id(Dialect, ResourceId),
    /// The resource of the app with this id, which the platform has given.
    App(Dialect, PlatformId),
    /// The resource of the app or of the binding with this id, of any provider API (the command line).
    Any(PlatformId),
}

/// A request about a resource, with its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddonRequest {
    /// A new resource.
    Provision(Provision),
    /// A change of the plan.
    ChangePlan(ResourceTarget, WantedPlan),
    /// A suspension: new connections shall be reset.
    Suspend(ResourceTarget),
    /// The end of a suspension.
    Resume(ResourceTarget),
    /// A removal of the resource.
    Deprovision(ResourceTarget),
    /// A binding of this id, to a resource of this plan.
    Bind(ResourceTarget, PlatformId, WantedPlan, Binding),
    /// The end of the binding of this id.
    Unbind(ResourceTarget, PlatformId),
}

impl AddonRequest {
    /// Returns whether it can be carried out where no plans are configured.
    pub fn needs_no_plan(&self) -> bool {
        match self {
            Self::Suspend(_) | Self::Resume(_) | Self::Deprovision(_) | Self::Unbind(..) => true,
            Self::Provision(_) | Self::ChangePlan(..) | Self::Bind(..) => false,
        }
    }
}
