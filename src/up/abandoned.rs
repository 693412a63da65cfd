//! Resources of apps whose `tcpgw up` has ended without removing them, and of which the run directory has no record: a boot
//! empties the run directory while the store stays, or the run directory is that of another network namespace.
//!
//! Such a resource belongs to no platform (`local`), its app has a name as [`AppId`] makes it, all backends of its service are
//! in networks of apps, and none of a label of the service, a lock of the run directory and a link of this network namespace
//! says that the app lives.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::gateway;
use super::id::AppId;
use super::network::{LinkOwner, Network};
use super::owner::{self, UpOwner};
use super::record::RecordPaths;
use crate::addon::{Dialect, Quarantined, Removed, Resource, ResourceChange};
use crate::api::answers::{ResourceListAnswer, ServiceFields, ServiceList};
use crate::api::client::{Client, ClientError, DaemonResponse};
use crate::control::request::ResourceView;
use crate::date::since_1970;
use crate::store::{
    ChangeAuthor, Expect, HistoryFilter, LoadedResources, LoadedServices, Store, StoreChange, StoreEdit, StoreError,
};

/// Maximum number of entries of the history that are read: a store that `tcpgw up` has made has fewer.
const MOST_ENTRIES: usize = 10_000;

/// Tells whether the app with an id lives, or why that cannot be known.
pub type Lives<'l> = dyn Fn(&str) -> Result<bool, String> + 'l;

/// Resources that were removed from a store that no daemon uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// The apps whose resources were removed.
    pub apps: Vec<String>,
    /// Whether the store has never held anything but apps of `tcpgw up`.
    pub is_of_up: bool,
    /// Whether it holds other services, too.
    pub serves_others: bool,
}

/// Returns whether the app with this id lives, as far as the run directory and the links of this network namespace tell.
///
/// # Errors
/// Fails when the run directory or the links cannot be listed.
pub fn lives(places: &RecordPaths, network: &Network, id: &str) -> Result<bool, String> {
    let has_lock = places.is_held(id).map_err(|error| error.to_string())?;
    let owner = network.link_owner(id).map_err(|error| error.to_string())?;
    Ok(has_lock || matches!(owner, LinkOwner::Living(_) | LinkOwner::Unknown))
}

/// Returns whether a resource was left behind.
fn is_abandoned(
    app: &str,
    is_local: bool,
    owner: Option<&str>,
    backends: impl IntoIterator<Item = Option<IpAddr>>,
    lives: &Lives<'_>,
) -> Result<bool, String> {
    let Some(id) = AppId::in_app(app).filter(|_| is_local) else {
        return Ok(false);
    };
    // The app's `tcpgw up` may run in another network namespace, with another run directory.
    if owner
        .and_then(|owner| owner.parse::<UpOwner>().ok())
        .is_some_and(|owner| owner.lives())
    {
        return Ok(false);
    }
    let is_of_apps = |address: Option<IpAddr>| address.is_some_and(Network::is_of_apps);
    Ok(backends.into_iter().all(is_of_apps) && !lives(id)?)
}

/// Removes abandoned resources from the store of a daemon, and returns the apps that they belonged to.
///
/// # Errors
/// Fails when the daemon does not answer or refuses, or when it cannot be known which apps live.
pub fn remove(daemon: &Client, lives: &Lives<'_>) -> Result<Vec<String>, String> {
    let failed = |error: ClientError| error.to_string();
    let list: ResourceListAnswer = daemon
        .get("/v1/addon/resources")
        .and_then(DaemonResponse::json)
        .map_err(failed)?;
    let is_candidate =
        |resource: &ResourceView| resource.dialect == Dialect::Local && AppId::in_app(resource.app.as_str()).is_some();
    let candidates: Vec<ResourceView> = list.resources.into_iter().filter(is_candidate).collect();
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    let listed: ServiceList = daemon
        .get("/v1/services")
        .and_then(DaemonResponse::json)
        .map_err(failed)?;
    let abandoned = abandoned(&candidates, &listed, lives)?;
    for app in &abandoned {
        gateway::deprovision(daemon, app).map_err(|error| format!("the resource of app {app}: {error}"))?;
    }
    Ok(abandoned)
}

/// Returns the apps of those local resources that were left behind.
fn abandoned(candidates: &[ResourceView], listed: &ServiceList, lives: &Lives<'_>) -> Result<Vec<String>, String> {
    let mut abandoned = Vec::new();
    for resource in candidates {
        let app = resource.app.as_str();
        let mut services = listed.services.iter().map(|listed| &listed.service);
        let service = services.find(|service| service.name() == resource.service);
        let owner = service.and_then(|service| service.label(owner::LABEL));
        let addresses = service.into_iter().flat_map(ServiceFields::endpoints);
        let addresses = addresses.map(|backend| backend.map(|backend| backend.ip()));
        if is_abandoned(app, true, owner, addresses, lives)? {
            abandoned.push(app.to_owned());
        }
    }
    Ok(abandoned)
}

/// Removes abandoned resources from a store that no daemon has open, before a daemon would serve it. Ports rest for `rest`.
/// Does nothing if another daemon has the store, or if it does not exist.
///
/// # Errors
/// Fails when the store cannot be read or written, or when it cannot be known which apps live.
pub fn sweep_store(path: &Path, rest: Duration, lives: &Lives<'_>) -> Result<Swept, String> {
    if !path.exists() {
        return Ok(Swept::default());
    }
    let mut store = match Store::open(path) {
        Ok(store) => store,
        Err(StoreError::Locked { .. }) => return Ok(Swept::default()),
        Err(error) => return Err(error.to_string()),
    };
    let failed = |error: StoreError| error.to_string();
    let loaded = store.load().map_err(failed)?;
    let resources = store.resources().map_err(failed)?;
    let mut dead: Vec<&Resource> = Vec::new();
    for resource in &resources.resources {
        let name = resource.id.service();
        let service = loaded.services.iter().find(|one| *one.service.name == *name);
        let backends = service.into_iter().flat_map(|one| &one.service.backends);
        let addresses = backends.map(|backend| Some(backend.endpoint.address));
        let is_local = resource.dialect == Dialect::Local;
        let owner = service
            .and_then(|one| one.service.labels.get(owner::LABEL))
            .map(String::as_str);
        if is_abandoned(resource.app.as_str(), is_local, owner, addresses, lives)? {
            dead.push(resource);
        }
    }
    if dead.is_empty() {
        return Ok(Swept::default());
    }
    let is_of_up = is_of_up(&mut store, &loaded, &resources).map_err(failed)?;
    let now = since_1970();
    let names: Vec<String> = dead.iter().map(|resource| resource.id.service()).collect();
    let of_dead = |name: &str| names.iter().any(|dead| dead == name);
    let (gone, others): (Vec<_>, Vec<_>) = loaded.services.iter().partition(|one| of_dead(&one.service.name));
    let change = StoreChange {
        edits: gone
            .iter()
            .map(|one| StoreEdit::Delete(one.service.name.clone(), Expect::Anything))
            .collect(),
        resources: dead.iter().map(|resource| removal(resource, rest, now)).collect(),
        ..StoreChange::default()
    };
    let by = ChangeAuthor {
        uid: nix::unistd::geteuid().as_raw(),
        pid: std::process::id(),
        what: "up".into(),
    };
    store.commit(&change, &by, now).map_err(failed)?;
    Ok(Swept {
        apps: dead.iter().map(|resource| resource.app.as_str().to_owned()).collect(),
        is_of_up,
        serves_others: !others.is_empty(),
    })
}

fn removal(resource: &Resource, rest: Duration, now: Duration) -> ResourceChange {
    ResourceChange::Remove(Removed {
        id: resource.id,
        dialect: resource.dialect,
        app: resource.app.clone(),
        port: Quarantined {
            port: resource.port,
            until: now + rest,
        },
        at: now,
    })
}

/// Returns whether everything in a store, including what it remembers of removed resources, belongs to apps of `tcpgw up`.
fn is_of_up(store: &mut Store, loaded: &LoadedServices, resources: &LoadedResources) -> Result<bool, StoreError> {
    let here = resources.resources.iter().map(|one| (one.id, one.dialect, &one.app));
    let gone = resources.removed.iter().map(|one| (one.id, one.dialect, &one.app));
    let mut names = Vec::new();
    for (id, dialect, app) in here.chain(gone) {
        if dialect != Dialect::Local || AppId::in_app(app.as_str()).is_none() {
            return Ok(false);
        }
        names.push(id.service());
    }
    let all = HistoryFilter {
        limit: MOST_ENTRIES + 1,
        ..HistoryFilter::default()
    };
    let entries = store.history(&all)?;
    let is_its = |service: &str| names.iter().any(|name| name == service);
    Ok(entries.len() <= MOST_ENTRIES
        && entries.iter().all(|entry| is_its(&entry.service))
        && loaded.services.iter().all(|one| is_its(&one.service.name)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::num::NonZeroU16;
    use std::path::PathBuf;
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::addon::ResourceStatus;
    use crate::addon::id::ResourceId;
    use crate::api::answers::ListedAnswer;
    use tcpgw_core::model;

    const DEAD: &str = "up-shop-00000001";
    const LIVING: &str = "up-shop-00000002";

    fn lives(id: &str) -> Result<bool, String> {
        match id {
            "" => Err("there is no id".into()),
            id => Ok(id == "00000002"),
        }
    }

    /// Returns a store with a resource for each app, whose service has one backend.
    fn store_with(apps: &[(&str, Dialect, &str)]) -> (tempfile::TempDir, PathBuf) {
        store_of(apps, &json!({}))
    }

    /// Returns the same, with these labels on the services.
    fn store_of(apps: &[(&str, Dialect, &str)], labels: &Value) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let mut change = StoreChange::default();
        for (number, (app, dialect, backend)) in (1_u16..).zip(apps) {
            let id = ResourceId::from_random(number.into());
            let port = NonZeroU16::new(20_000 + number).unwrap();
            let service = json!({"name": id.service(), "port": port, "backends": [backend], "labels": labels});
            let service = service.to_string();
            let service = model::parse_service(service.as_bytes()).unwrap();
            change.edits.push(StoreEdit::Put(Arc::new(service), Expect::Absent));
            change.resources.push(ResourceChange::Put(Arc::new(Resource {
                id,
                dialect: *dialect,
                app: app.parse().unwrap(),
                uuid: None,
                owner: None,
                plan: "free".parse().unwrap(),
                plan_id: None,
                port,
                status: ResourceStatus::Active,
                bindings: BTreeMap::new(),
                created: Duration::ZERO,
                asked: None,
            })));
        }
        let by = ChangeAuthor {
            uid: 0,
            pid: 1,
            what: "addon".into(),
        };
        Store::open(&path)
            .unwrap()
            .commit(&change, &by, Duration::from_secs(1))
            .unwrap();
        (directory, path)
    }

    fn apps_in(path: &Path) -> Vec<String> {
        let resources = Store::open(path).unwrap().resources().unwrap().resources;
        let mut apps: Vec<String> = resources.iter().map(|one| one.app.as_str().to_owned()).collect();
        apps.sort();
        apps
    }

    #[test]
    fn only_what_dead_ones_have_left_is_removed() {
        let (_directory, path) = store_with(&[
            (DEAD, Dialect::Local, "10.213.7.2:5000"),
            (LIVING, Dialect::Local, "10.213.8.2:5000"),
            ("up-shop-00000003", Dialect::Scalingo, "10.213.7.2:5000"),
            ("up-shop-00000004", Dialect::Local, "192.0.2.1:5000"),
            ("up-to-date", Dialect::Local, "10.213.7.2:5000"),
        ]);
        let swept = sweep_store(&path, Duration::from_secs(60), &lives).unwrap();
        let expected = Swept {
            apps: vec![DEAD.into()],
            is_of_up: false,
            serves_others: true,
        };
        assert_eq!(swept, expected);
        let left = [LIVING, "up-shop-00000003", "up-shop-00000004", "up-to-date"];
        assert_eq!(apps_in(&path), left);
        let mut store = Store::open(&path).unwrap();
        assert_eq!(store.load().unwrap().services.len(), 4);
        let removed = store.resources().unwrap().removed;
        assert_eq!(removed[0].port.until, removed[0].at + Duration::from_secs(60));
        drop(store);
        assert_eq!(sweep_store(&path, Duration::ZERO, &lives), Ok(Swept::default()));
    }

    #[test]
    fn what_belongs_to_a_living_one_elsewhere_stays() {
        let (own, app) = (UpOwner::own().unwrap(), [(DEAD, Dialect::Local, "10.213.7.2:5000")]);
        let (_directory, path) = store_of(&app, &json!({owner::LABEL: own.to_string()}));
        assert_eq!(sweep_store(&path, Duration::ZERO, &lives), Ok(Swept::default()));
        assert_eq!(apps_in(&path), [DEAD]);
        let ended = own.to_string().replace("boot=", "boot=0");
        let (_directory, path) = store_of(&app, &json!({owner::LABEL: ended}));
        assert_eq!(sweep_store(&path, Duration::ZERO, &lives).unwrap().apps, [DEAD]);
    }

    #[test]
    fn a_daemons_resource_of_a_living_app_elsewhere_stays() {
        let own = UpOwner::own().unwrap().to_string();
        let ended = own.replace("boot=", "boot=0");
        let left = |owner: &str, backends: &Value| {
            let id = ResourceId::from_random(1);
            let service =
                json!({"name": id.service(), "port": 20_001, "backends": backends, "labels": {owner::LABEL: owner}});
            let service = model::parse_service(service.to_string().as_bytes()).unwrap();
            let listed = ListedAnswer {
                service: (&service).into(),
                provider: "api".into(),
                revision: Some(1),
                held_back: Vec::new(),
                paused: None,
                addon: None,
            };
            let list = ServiceList {
                revision: 1,
                services: vec![listed],
            };
            // As the command reads it.
            let list: ServiceList = serde_json::from_str(&serde_json::to_string(&list).unwrap()).unwrap();
            let resource = json!({"id": id, "app": DEAD, "dialect": "local", "plan": "free", "port": 20_001, "url": null,
                "service": id.service(), "state": "active", "created": 0, "bindings": [], "warning": null});
            abandoned(&[serde_json::from_value(resource).unwrap()], &list, &lives)
        };
        let weighted = json!([{"address": "10.213.7.2", "port": 5000, "weight": 2}]);
        let (none, dead) = (Ok(Vec::new()), Ok(vec![DEAD.to_owned()]));
        assert_eq!(left(&own, &json!(["10.213.7.2:5000"])), none, "its `tcpgw up` runs");
        assert_eq!(left(&ended, &json!(["10.213.7.2:5000"])), dead);
        assert_eq!(left(&ended, &weighted), dead);
        let backends = json!(["10.213.7.2:5000", {"address": "192.0.2.7", "port": 5000, "weight": 2}]);
        assert_eq!(left(&ended, &backends), none, "a backend is not in a network of apps");
    }

    #[test]
    fn a_store_of_apps_alone_is_told_from_others() {
        let (_directory, path) = store_with(&[(DEAD, Dialect::Local, "10.213.7.2:5000")]);
        let unknown = |_: &str| Err("it cannot be known".to_owned());
        assert_eq!(
            sweep_store(&path, Duration::ZERO, &unknown),
            Err("it cannot be known".into())
        );
        assert_eq!(apps_in(&path), [DEAD], "nothing was changed");
        let swept = sweep_store(&path, Duration::ZERO, &lives).unwrap();
        assert!(swept.is_of_up && !swept.serves_others, "{swept:?}");
        let missing = path.with_extension("none");
        assert_eq!(sweep_store(&missing, Duration::ZERO, &lives), Ok(Swept::default()));
        assert!(!missing.exists(), "looking makes no store");
    }
}
