//! Answers about services.

use std::borrow::Cow;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::control::request::{
    AddonView, BackendView, DeployView, Edited, ListedService, ListedServices, PauseView, ServiceView,
};
use tcpgw_core::model::Service;
use tcpgw_core::model::write::service_value;

/// A service as JSON of the state file. Fields that a newer daemon knows are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceFields(Map<String, Value>);

impl From<&Service> for ServiceFields {
    fn from(service: &Service) -> Self {
        match service_value(service) {
            Value::Object(fields) => Self(fields),
            _ => Self(Map::new()),
        }
    }
}

impl ServiceFields {
    /// Returns the service's name.
    pub fn name(&self) -> &str {
        self.get("name").as_str().unwrap_or_default()
    }

    /// Returns the addresses and ports of the backends; `None` stands for one that is not understood.
    pub fn endpoints(&self) -> impl Iterator<Item = Option<SocketAddr>> {
        let backends = self.get("backends").as_array().into_iter().flatten();
        backends.map(|backend| match backend {
            Value::String(endpoint) => endpoint.parse().ok(),
            backend => {
                let address = backend.get("address")?.as_str()?.parse().ok()?;
                let port = backend.get("port")?.as_u64()?.try_into().ok()?;
                Some(SocketAddr::new(address, port))
            }
        })
    }

    /// Returns the value of a label.
    pub fn label(&self, label: &str) -> Option<&str> {
        self.get("labels").get(label)?.as_str()
    }

    /// Returns a field; null if it is not there.
    pub fn get(&self, field: &str) -> &Value {
        self.0.get(field).unwrap_or(&Value::Null)
    }

    /// Returns the fields by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

/// The answer to `GET /v1/services`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceList {
    /// Revision of the store: grows by one with each change.
    pub revision: u64,
    /// Services, ordered by name.
    pub services: Vec<ListedAnswer>,
}

impl ServiceList {
    /// Returns the services of a list for which `is_meant` holds.
    pub fn new(list: &ListedServices, is_meant: impl Fn(&ListedService) -> bool) -> Self {
        let services = list.services.iter().filter(|listed| is_meant(listed));
        Self {
            revision: list.revision,
            services: services.map(ListedAnswer::from).collect(),
        }
    }
}

/// A service of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListedAnswer {
    /// The service as it is desired.
    pub service: ServiceFields,
    /// `file`, `api`, `docker` or `orphan`.
    pub provider: Cow<'static, str>,
    /// Revision of its last change; `None` for a service that is not the API's.
    pub revision: Option<u64>,
    /// Reasons why the service cannot be served here now, and is held back; empty if it is not.
    #[serde(default)]
    pub held_back: Vec<String>,
    /// The pause of its new connections.
    pub paused: Option<PauseView>,
    /// The resource of the add-on that it belongs to.
    pub addon: Option<AddonView>,
}

impl From<&ListedService> for ListedAnswer {
    fn from(listed: &ListedService) -> Self {
        Self {
            service: ServiceFields::from(&*listed.service),
            provider: listed.provider.into(),
            revision: listed.revision,
            held_back: listed.held_back.clone(),
            paused: listed.paused,
            addon: listed.addon.clone(),
        }
    }
}

/// A service that was asked for alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceAnswer {
    /// Fields that are in a list, too.
    #[serde(flatten)]
    pub listed: ListedAnswer,
    /// Seconds for which the pause goes on.
    pub paused_for: Option<u64>,
    /// Backends of the service, including those that leave, ordered by endpoint.
    pub backends: Vec<BackendView>,
    /// Whether the kernel holds all that is desired of it.
    pub in_kernel: bool,
    /// Whether every backend that shall be active is healthy and gets new connections, and there is one.
    pub healthy: bool,
    /// Whether no backend leaves.
    pub drained: bool,
    /// The deploy that is not over.
    pub deploy: Option<DeployView>,
    /// Warnings about the order that this answers; `None`: it answers no order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Vec<String>>,
}

impl From<ServiceView> for ServiceAnswer {
    fn from(view: ServiceView) -> Self {
        Self {
            healthy: view.is_healthy(),
            drained: view.is_drained(),
            listed: ListedAnswer::from(&view.listed),
            paused_for: view.paused_for,
            backends: view.backends,
            in_kernel: view.in_kernel,
            deploy: view.deploy,
            warnings: None,
        }
    }
}

/// Result of a change of one service. The change is on the disk and in the kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EditAnswer {
    /// The service as it is now; `None`: it was removed.
    pub service: Option<ServiceFields>,
    /// Revision of the service's last change; of the store's if it was removed.
    pub revision: u64,
    /// Whether the service did not exist before.
    pub created: bool,
    /// Whether the order changed anything.
    pub changed: bool,
    /// Warnings about the order.
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl From<Edited> for EditAnswer {
    fn from(edited: Edited) -> Self {
        Self {
            service: edited.service.as_deref().map(ServiceFields::from),
            revision: edited.revision,
            created: edited.created,
            changed: edited.changed,
            warnings: edited.warnings,
        }
    }
}

/// Result of a change of several services in one request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchAnswer {
    /// Revision of the store.
    pub revision: u64,
    /// Whether the order changed anything.
    pub changed: bool,
    /// The services, in the order of the request.
    pub services: Vec<BatchItemAnswer>,
    /// Warnings about the order.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// One service of a [`BatchAnswer`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchItemAnswer {
    /// The name of the service.
    pub name: String,
    /// The service as it is now; `None`: it was removed.
    pub service: Option<ServiceFields>,
    /// Revision of the service's last change; of the store's if it was removed.
    pub revision: u64,
    /// Whether the service did not exist before.
    pub created: bool,
    /// Whether the order changed anything.
    pub changed: bool,
}
