//! The reconciler's state.

use crate::record::{ApplyNote, Deadline, RecordFile, RecordedPause};
use tcpgw_core::model::FlowMark;
use tcpgw_core::owner::AllDetails;
use tcpgw_kernel::Kernel;

/// Reconciles a kernel with the desired services, and keeps a record of it.
pub struct Reconciler<'a, K: Kernel> {
    pub(super) kernel: &'a mut K,
    pub(super) store: &'a RecordFile,
    pub(super) namespace: u64,
    pub(super) mark: FlowMark,
    pub(super) applied: Option<ApplyNote>,
    pub(super) drains: Vec<Deadline>,
    pub(super) pauses: Vec<RecordedPause>,
    pub(super) details: AllDetails,
    /// Whether the record could not be written before; this is reported once.
    pub(super) had_trouble: bool,
    pub(super) must_record: bool,
}
