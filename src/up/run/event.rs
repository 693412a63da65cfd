//! Events of the main loop.

use crate::up::container::HelperReport;
use crate::up::control::ReceivedRequest;
use crate::up::gateway::GatewayEvent;
use crate::up::supervisor::InstanceId;

/// Event of the main loop.
pub(super) enum UpEvent {
    Report(InstanceId, HelperReport),
    Ended(InstanceId),
    Gateway(GatewayEvent),
    Control(ReceivedRequest),
    Signal(u8),
    /// Standard output is closed.
    Closed,
}
