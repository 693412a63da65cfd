//! Reasons why the kernel could not be reconciled.

use thiserror::Error;

use tcpgw_core::model::FlowMark;
use tcpgw_kernel::KernelError;

/// Number of attempts when others write at the same time.
pub(super) const ATTEMPTS: u32 = 20;

/// Reason why the kernel could not be reconciled.
#[derive(Debug, Error)]
pub enum ReconcileError {
    /// The kernel did not carry out a request.
    #[error("{}{source}", owner.as_ref().map(|owner| format!("service {owner}: ")).unwrap_or_default())]
    Kernel {
        /// Name of the service that it concerns.
        owner: Option<String>,
        /// Error of the kernel.
        source: KernelError,
    },
    /// Some transactions of a change were committed, and then one failed.
    #[error("stopped between two transactions: clients are served, but not yet as desired; run again: {0}")]
    Halfway(#[source] KernelError),
    /// The rules are as desired, but not all flows were checked.
    #[error("applied; stale flows may be left: {0}; run again")]
    Unswept(#[source] KernelError),
    /// Other programs wrote to the kernel during every attempt.
    #[error(
        "other programs changed the nftables ruleset during each of {ATTEMPTS} attempts; no change is incomplete; run again, or find the program (`nft monitor`)"
    )]
    Busy,
    /// Another program owns the table, and only the owner may write to it.
    #[error(
        "the table inet tcpgw is owned by another program (netlink port {0}, usually the id of its process): nobody else can \
         change it; end that program first"
    )]
    Foreign(u32),
    /// The note that keeps removed services from coming back cannot be written.
    #[error(
        "failed to write {0}, which has to record that orphans (services that no provider defines) were removed, or they would be served \
         again; nothing was changed; make it writable, then try again"
    )]
    Unrecorded(String),
    /// The flows in the kernel have another mark.
    #[error(
        "the table in the kernel marks its flows with {theirs}, the configuration says {ours}: put `flow_mark = \"{theirs}\"` back into the \
         configuration. Only if {ours} is meant, run `tcpgw teardown` first, which ends every service and its connections"
    )]
    OtherMark {
        /// Mark in the table.
        theirs: FlowMark,
        /// Mark in the configuration.
        ours: FlowMark,
    },
}

impl From<KernelError> for ReconcileError {
    fn from(source: KernelError) -> Self {
        Self::Kernel { owner: None, source }
    }
}
