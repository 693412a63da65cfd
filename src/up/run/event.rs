//! Events of the main loop.

use crate::up::container::Report;
use crate::up::control::ReceivedRequest;
use crate::up::gateway::GatewayEvent;
use crate::up::supervisor::InstanceId;

/// Event of the main loop.
pub(super) enum Event {
    Report(InstanceId, Report),
    Ended(InstanceId),
    Gateway(GatewayEvent),
    Control(ReceivedRequest),
    Signal(u8),
    /// Standard output is closed.
    Closed,
}
