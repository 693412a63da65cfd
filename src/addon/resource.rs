//! One resource: what a platform has provisioned for one app.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::{Serialize, Serializer};

use super::fingerprint::Fingerprint;
use super::id::{Guid, PlanName, PlatformId, ResourceId};
use tcpgw_core::model::Word;

/// The provider API through which a resource was provisioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    /// The Open Service Broker API.
    Osb,
    /// Scalingo's add-on provider API.
    Scalingo,
    /// Heroku's add-on provider API, version 3.
    Heroku,
    /// Clever Cloud's add-on provider API.
    CleverCloud,
    /// No platform: the command line of the gateway.
    Local,
}

impl Word for Dialect {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("osb", Self::Osb),
        ("scalingo", Self::Scalingo),
        ("heroku", Self::Heroku),
        ("clever-cloud", Self::CleverCloud),
        ("local", Self::Local),
    ];
}

/// Whether a resource is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceStatus {
    /// The resource is in use: its service is served.
    Active,
    /// The resource is suspended: new connections are reset until the platform resumes it.
    Suspended,
}

impl Word for ResourceStatus {
    const WORDS: &'static [(&'static str, Self)] = &[("active", Self::Active), ("suspended", Self::Suspended)];
}

/// State of a resource's service, as in `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceState {
    /// The service has backends that get connections.
    Active,
    /// No backend gets connections: nothing was deployed yet, or all backends were removed or drain.
    Waiting,
    /// Its resource is suspended.
    Suspended,
}

impl Word for ServiceState {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("active", Self::Active),
        ("waiting", Self::Waiting),
        ("suspended", Self::Suspended),
    ];
}

impl ServiceState {
    /// Returns whether the service has no backends on purpose, so that this is no fault of the gateway.
    pub fn is_idle(self) -> bool {
        self != Self::Active
    }
}

/// Declares that a choice is written as its word.
macro_rules! written_as_word {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = String::deserialize(deserializer)?;
                let found = Self::WORDS.iter().find(|(known, _)| *known == word);
                found
                    .map(|(_, choice)| *choice)
                    .ok_or_else(|| D::Error::custom("is no known word"))
            }
        }
    };
}

written_as_word!(Dialect);
written_as_word!(ResourceStatus);
written_as_word!(ServiceState);

/// Organization and space that an OSB instance belongs to. The same id with another owner is another instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceOwner {
    /// Value of `organization_guid`.
    pub organization: PlatformId,
    /// Value of `space_guid`.
    pub space: PlatformId,
}

/// An OSB binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// `app_guid`, which names the resource as its app id does.
    pub app: Option<PlatformId>,
    /// The plan and the parameters that the request named; `None`: not known. The store keeps it beside the resource.
    #[serde(skip)]
    pub asked: Option<Fingerprint>,
}

/// A resource. Its JSON is what the store keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// Our own id of the resource.
    pub id: ResourceId,
    /// Provider API that the resource was made by.
    pub dialect: Dialect,
    /// The app: unique among the resources that exist.
    pub app: PlatformId,
    /// Scalingo's `uuid`, if one was sent: it tells requests apart instead of the app.
    pub uuid: Option<PlatformId>,
    /// Organization and space that the instance belongs to (OSB only).
    pub owner: Option<ResourceOwner>,
    /// Name of the plan, as in the last configuration that had the plan.
    pub plan: PlanName,
    /// The plan's id, by which it is known whatever its name becomes; `None`: not known, because an earlier version wrote it, or the plan was
    /// not in the configuration since. The store keeps it beside the resource.
    #[serde(skip)]
    pub plan_id: Option<Guid>,
    /// The public port.
    pub port: NonZeroU16,
    /// Whether the resource is in use or suspended.
    pub status: ResourceStatus,
    /// Its bindings, by id (OSB only).
    pub bindings: BTreeMap<PlatformId, Binding>,
    /// Time at which it was provisioned, since 1970.
    pub created: Duration,
    /// The parameters that it was provisioned with (OSB only); `None`: not known. The store keeps it beside the resource.
    #[serde(skip)]
    pub asked: Option<Fingerprint>,
}

/// Maximum number of bindings of a resource.
pub(super) const MAX_BINDINGS: usize = 100;
