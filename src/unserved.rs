//! Ordered services that the kernel does not hold, while no daemon runs that would restore them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::addon::ResourceStatus;
use crate::config::Config;
use crate::config::daemon::DEFAULT_STORE;
use crate::record::boot_id;
use crate::store::last_services::{LastServices, LastServicesError};
use crate::view::ServicesView;
use crate::view::problems::some_of;
use tcpgw_core::owner::Owner;
use tcpgw_core::problem::{Problem, ProblemKind};
use tcpgw_core::words::count;

/// Returns the path of a daemon's store, as far as the environment and the configuration tell.
pub fn store_path(config: &Config) -> PathBuf {
    let named = std::env::var_os("TCPGW_STORE").filter(|path| !path.is_empty());
    let named = named.map(PathBuf::from).or_else(|| config.daemon.store.clone());
    named.unwrap_or_else(|| DEFAULT_STORE.into())
}

/// Returns the last desired services of a daemon of this network namespace. In another boot, namespaces had other
/// numbers.
///
/// # Errors
/// Fails when the file exists and cannot be read or is damaged.
pub fn last_here(store: &Path, namespace: u64) -> Result<Option<LastServices>, LastServicesError> {
    let last = LastServices::load(&LastServices::path(store))?;
    Ok(last.filter(|last| last.namespace == namespace || last.boot != boot_id()))
}

/// Returns the problem that services of the API, or orphans, are not served while no daemon runs; also if the file of
/// last services cannot be read.
pub fn problem(config: &Config, namespace: u64, services: &ServicesView) -> Option<Problem> {
    match last_here(&store_path(config), namespace) {
        Ok(last) => find(services, &last?, &boot_id()),
        Err(error) => Some(Problem::new(ProblemKind::LastServices, error.to_string())),
    }
}

/// Returns the problem. In the boot in which `last` was written, the record tells which services were removed since.
fn find(services: &ServicesView, last: &LastServices, boot: &str) -> Option<Problem> {
    let of_kernel = services.summary.services.iter();
    let of_kernel: BTreeSet<&str> = of_kernel.filter_map(|service| service.name.as_deref()).collect();
    let resources = last.resources.iter().flat_map(|last| &last.resources);
    let suspended = resources.filter(|resource| resource.status == ResourceStatus::Suspended);
    let suspended: BTreeSet<Box<str>> = suspended
        .map(|resource| resource.id.service().as_str().into())
        .collect();
    let is_wanted = |name: &str| {
        let owners = services.owners.as_ref();
        let is_recorded = owners.is_none_or(|owners| owners.get(name).is_some_and(|owner| *owner != Owner::Removed));
        last.boot != boot || last.unserved.contains(name) || is_recorded
    };
    let of_others = last.services.iter().filter(|(owner, _)| *owner != Owner::File);
    // Services without backends and suspended ones serve no client.
    let of_others = of_others.filter(|(_, service)| !service.backends.is_empty());
    // Without a record the kernel's services have no names: they are known by their ports.
    let unnamed = services
        .summary
        .services
        .iter()
        .filter(|service| service.name.is_none());
    let unnamed: BTreeSet<u16> = unnamed.map(|service| service.port).collect();
    let of_others = of_others.filter(|(_, service)| !unnamed.contains(&service.port.get()));
    let is_missing = |name: &str| !of_kernel.contains(name) && !suspended.contains(name) && is_wanted(name);
    let missing: Vec<_> = of_others.filter(|(_, service)| is_missing(&service.name)).collect();
    let names: Vec<&str> = missing.iter().map(|(_, service)| &*service.name).collect();
    if names.is_empty() {
        let is_lost = last.boot == boot && of_kernel.is_empty() && !unnamed.is_empty();
        return is_lost.then(|| {
            Problem::new(
                ProblemKind::Record,
                "the record in the run directory is missing or damaged, so that the names, owners, drains and pauses of what the kernel \
                 serves are not known from it, and no daemon runs: start it (`systemctl start tcpgw`, or `tcpgw daemon`), which knows the \
                 names, and pauses that are not over",
            )
        });
    }
    let (are, they, serves) = if names.len() == 1 {
        ("is", "it", "serves it")
    } else {
        ("are", "they", "serves them")
    };
    let is_of_docker = missing.iter().any(|(owner, _)| *owner == Owner::Docker);
    let or_docker = if is_of_docker { " or Docker's containers" } else { "" };
    let message = format!(
        "{} of the daemon's API{or_docker}, or that no provider defines, {are} not served, since {they} {are} not in the kernel and no daemon runs: {}; \
         start it (`systemctl start tcpgw`, or `tcpgw daemon`), which {serves}",
        count(names.len(), "service"),
        some_of(&names)
    );
    Some(Problem::new(ProblemKind::NotServed, message))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use tcpgw_core::model::parse;

    const NOW: &str = "this boot";

    fn last(boot: &str, owner: Owner) -> LastServices {
        let text = br#"{"version": 1, "services": [
            {"name": "a", "port": 2001, "backends": ["10.2.0.11:3000"]},
            {"name": "b", "port": 2002, "backends": ["10.2.0.11:3000"]},
            {"name": "empty", "port": 2003, "backends": []}]}"#;
        let services = parse(text).unwrap().services;
        LastServices {
            boot: boot.into(),
            services: services
                .into_iter()
                .map(|service| (owner, Arc::clone(&service)))
                .collect(),
            ..LastServices::default()
        }
    }

    fn kernel(names: &[&str], recorded: Option<&[&str]>) -> ServicesView {
        let all = last(NOW, Owner::Api).services;
        let held = all.iter().filter(|(_, service)| names.contains(&&*service.name));
        let owners = recorded.map(|names| names.iter().map(|name| ((*name).into(), Owner::Api)).collect());
        ServicesView {
            summary: held.map(|(_, service)| &**service).collect(),
            owners,
            ..ServicesView::default()
        }
    }

    fn told(services: &ServicesView, last: &LastServices) -> Option<String> {
        find(services, last, NOW).map(|problem| problem.message)
    }

    #[test]
    fn without_a_record_services_of_the_kernel_are_known_by_their_ports() {
        let mut services = kernel(&["a", "b"], None);
        for service in &mut services.summary.services {
            service.name = None;
        }
        let problem = find(&services, &last(NOW, Owner::Api), NOW).unwrap();
        assert_eq!(problem.kind, ProblemKind::Record);
        assert!(problem.message.contains("missing or damaged"), "{}", problem.message);
        services.summary.services.retain(|service| service.port == 2001);
        let text = told(&services, &last(NOW, Owner::Api)).unwrap();
        assert!(text.contains("not in the kernel") && text.contains(": b;"), "{text}");
    }

    #[test]
    fn after_a_boot_all_are_named_that_the_kernel_does_not_hold() {
        for owner in [Owner::Api, Owner::Orphan] {
            let last = last("another boot", owner);
            let answer = told(&kernel(&["a"], Some(&[])), &last).unwrap();
            assert!(
                answer.starts_with("1 service ") && answer.contains("runs: b;"),
                "{answer}"
            );
            let answer = told(&kernel(&[], None), &last).unwrap();
            assert!(
                answer.starts_with("2 services ") && answer.contains("runs: a, b;"),
                "{answer}"
            );
            assert_eq!(told(&kernel(&["a", "b"], None), &last), None);
        }
        assert_eq!(told(&kernel(&[], None), &last("another boot", Owner::File)), None);
    }

    #[test]
    fn in_the_same_boot_those_are_named_that_the_record_has() {
        let mut last = last(NOW, Owner::Api);
        let answer = told(&kernel(&[], Some(&["b"])), &last).unwrap();
        assert!(answer.contains("runs: b;"), "{answer}");
        assert_eq!(told(&kernel(&["b"], Some(&["b"])), &last), None);
        last.unserved.insert("a".into());
        let answer = told(&kernel(&["b"], Some(&["b"])), &last).unwrap();
        assert!(answer.contains("runs: a;"), "{answer}");
    }
}
