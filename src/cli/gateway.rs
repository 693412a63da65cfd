//! Access to the kernel for commands that work without a daemon: sockets, the lock, the record.

use std::time::Duration;

use super::failure::Failure;
use super::global::Global;
use crate::config::Config;
use crate::lock::Lock;
use crate::reconcile::{Desired, Reconciler};
use crate::record::RecordFile;
use crate::view::ServicesView;
use tcpgw_core::model::{Service, State};
use tcpgw_core::ruleset::name::{Family, SetName};
use tcpgw_kernel::Kernel;
use tcpgw_kernel::linux::Linux;
use tcpgw_kernel::route::Routes;

/// The gateway that this runs on.
pub(super) struct Gateway {
    pub(super) kernel: Linux,
    store: RecordFile,
    pub(super) namespace: u64,
    pub(super) routes: Routes,
}

impl Gateway {
    /// Opens the kernel in the network namespace of this process.
    pub(super) fn open(global: &Global) -> Result<Self, Failure> {
        let mut kernel = Linux::open()?;
        // A user who may not read may not write either: report that before anything else fails because of it.
        kernel.identity()?;
        let namespace = kernel.netns_cookie().map_err(|source| Failure::Io {
            what: "identify the network namespace (needs Linux 5.14)",
            source,
        })?;
        let store = RecordFile::new(&global.run_dir, namespace);
        Ok(Self {
            kernel,
            store,
            namespace,
            routes: Routes::open()?,
        })
    }

    /// Takes the lock that allows to write.
    pub(super) fn lock(&mut self, global: &Global, timeout: Duration) -> Result<Lock, Failure> {
        // A user who may not write rules gets that error, and not one about another user's directory.
        self.kernel.identity()?;
        Ok(Lock::take(&global.run_dir, self.namespace, timeout)?)
    }

    pub(super) fn reconciler(&mut self, config: &Config) -> Reconciler<'_, Linux> {
        Reconciler::new(&mut self.kernel, &self.store, self.namespace, config.flow_mark)
    }

    /// Returns the services that the record defines.
    pub(super) fn services(&mut self, config: &Config) -> Result<ServicesView, Failure> {
        Ok(self.reconciler(config).services()?)
    }

    /// Returns whether the table lets new connections from outside reach backends through services only; `false` if the table
    /// cannot be read.
    pub(super) fn protects(&mut self, services: &ServicesView) -> bool {
        let mut holds_some = |family| {
            let held = self.kernel.counted(SetName::Protected(family));
            held.is_ok_and(|backends| !backends.is_empty())
        };
        services.table.is_some() && Family::BOTH.into_iter().any(&mut holds_some)
    }

    /// Returns the desired table of the state here, beside services of other providers.
    pub(super) fn desired(&mut self, state: &State, others: &[Service], config: &Config) -> Result<Desired, Failure> {
        let services = || state.services.iter().map(AsRef::as_ref).chain(others);
        let links = self.routes.own_links()?;
        let desired = Desired::of(services().collect(), &links).protecting(config.protect_backends);
        Ok(desired.with_timeouts(self.kernel.timeouts().with_idle(config.idle_timeout)))
    }
}
