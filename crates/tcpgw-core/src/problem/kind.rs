//! Kinds of problems.

use serde::{Deserialize, Serialize};

use super::severity::Severity;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $id:literal, $severity:ident;)+) => {
        /// Kind of a problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ProblemKind {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl ProblemKind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            /// Returns the identifier of the `doctor` finding about it, in kebab case.
            pub const fn id(self) -> &'static str {
                match self {
                    $(Self::$kind => $id,)+
                }
            }

            /// Returns the usual severity of this kind; a check may set another one.
            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$kind => Severity::$severity,)+
                }
            }
        }
    };
}

kinds! {
    /// The daemon has not read yet what the kernel holds.
    Starting = "starting", Error;
    /// Everything was removed by `teardown`, and nothing was ordered since.
    TornDown = "torn-down", Error;
    /// The table of tcpgw does not exist.
    NoTable = "no-table", Error;
    /// The table is switched off.
    TableDormant = "table-dormant", Error;
    /// The kernel refuses a request, or does not answer.
    KernelRefuses = "kernel-refuses", Error;
    /// A service has no active backend.
    NoActiveBackend = "no-active-backend", Error;
    /// A service has active backends, and none of them answers the daemon's probes.
    NoHealthyBackend = "no-healthy-backend", Error;
    /// A service is not possible here now, because of the gateway's addresses or listeners.
    HeldBack = "held-back", Error;
    /// Services of the API or orphans are not in the kernel, and no daemon runs that would put them there.
    NotServed = "not-served", Error;
    /// A service that is served shows its backends an address that the gateway has no more.
    SourceAddressGone = "source-address-gone", Error;
    /// A backend of a service that is served has become one of the gateway's own addresses.
    OwnBackend = "own-backend", Error;
    /// A service that is served is outside of the configuration's fences.
    OutsideFences = "outside-fences", Warning;
    /// Flows are left that should have been flushed.
    StaleFlows = "stale-flows", Error;
    /// The state file was rejected, so that its contents are not in effect.
    RejectedState = "rejected-state", Error;
    /// The services in the store conflict with each other.
    RejectedStore = "rejected-store", Error;
    /// The store cannot be written.
    Store = "store", Error;
    /// The file of the store was removed or replaced while the daemon runs.
    StoreMoved = "store-moved", Error;
    /// Handshakes of clients are not completed: an error if this holds for all handshakes.
    Unanswered = "unanswered", Error;
    /// IPv4 packets are not forwarded.
    IpForwardOff = "ip-forward-off", Error;
    /// IPv6 packets are not forwarded.
    Ipv6ForwardingOff = "ipv6-forwarding-off", Error;
    /// Another table drops packets between clients and backends.
    PacketsDropped = "packets-dropped", Error;
    /// Another table makes packets of services bypass conntrack.
    PacketsUntracked = "packets-untracked", Error;
    /// Another table translates connections to a service.
    PortTranslatedElsewhere = "port-translated-elsewhere", Error;
    /// A rule of another program overwrites the bits of the ct mark that belong to tcpgw.
    FlowMarkOverwritten = "flow-mark-overwritten", Error;
    /// Flows from services to their backends do not have the mark of tcpgw.
    FlowsUnmarked = "flows-unmarked", Error;
    /// The reverse path filter drops packets of clients or backends.
    ReversePathFilter = "reverse-path-filter", Error;
    /// The table of conntrack is full, or nearly.
    ConntrackFull = "conntrack-full", Error;
    /// The table of conntrack fills.
    ConntrackFilling = "conntrack-filling", Warning;
    /// A service listens on addresses that the gateway does not have.
    AddressNotLocal = "address-not-local", Error;
    /// The gateway has lost an address on which clients had connections; an error where it has the address and does not
    /// accept packets to it.
    AddressLost = "address-lost", Error;
    /// The gateway has no address that clients from outside could connect to.
    NoPublicAddress = "no-public-address", Error;
    /// The links that clients come in by have no carrier.
    NoCarrier = "no-carrier", Error;
    /// A service shows its backends an address that the gateway does not have.
    SourceAddressNotLocal = "source-address-not-local", Error;
    /// No route leads to a backend; a warning where probes take it out of the balance and its service has others.
    BackendWithoutRoute = "backend-without-route", Error;
    /// The default route leads to backends with private addresses.
    BackendByDefaultRoute = "backend-by-default-route", Warning;
    /// No route leads to clients for answers; a warning where some clients have one.
    AnswersWithoutRoute = "answers-without-route", Error;
    /// A backend's address is the gateway's own.
    BackendIsGateway = "backend-is-gateway", Error;
    /// Clients can reach backends directly, and so bypass limits and access lists.
    BackendsExposed = "backends-exposed", Warning;
    /// Another table drops probes, or their answers.
    ProbesDropped = "probes-dropped", Warning;
    /// Probes take another route than packets of clients, and fail.
    ProbesMisrouted = "probes-misrouted", Warning;
    /// Another table offloads flows, so that they bypass the rules.
    FlowsOffloaded = "flows-offloaded", Warning;
    /// conntrack has too few buckets for the entries that it may have.
    ConntrackLongChains = "conntrack-long-chains", Warning;
    /// A daemon runs, but its socket does not answer.
    DaemonUnreachable = "daemon-unreachable", Warning;
    /// The checks of the surroundings have not ended for a long time.
    ChecksStalled = "checks-stalled", Warning;
    /// The daemon that ran here was killed or has crashed, and was not started again.
    DaemonGone = "daemon-gone", Error;
    /// The daemon that answers runs in another network namespace than the command.
    OtherNamespace = "other-namespace", Warning;
    /// The daemon's socket is gone, and cannot be created again.
    SocketGone = "socket-gone", Warning;
    /// The table's rules are not those of this program; a warning where another version made them.
    TableChanged = "table-changed", Error;
    /// The table and the configuration have different flow marks.
    OtherMark = "other-mark", Warning;
    /// The add-on's provider API is not served.
    ProviderApi = "provider-api", Warning;
    /// The listener for metrics and the operator's pages is not served.
    Web = "web", Warning;
    /// The read-only socket for monitoring is not served.
    SocketReadonly = "socket-readonly", Warning;
    /// Few public ports are left for resources of the add-on, or none.
    AddonPorts = "addon-ports", Warning;
    /// The configuration is not accepted: a running daemon keeps its old one, and a new one does not start.
    RejectedConfiguration = "rejected-configuration", Warning;
    /// Services that no provider defines any more are still in effect.
    Orphaned = "orphaned", Warning;
    /// The desired services could not be written beside the store, so that a machine that boots with a lost file or
    /// store does not find them.
    LastServices = "last-services", Warning;
    /// The record in the run directory cannot be written.
    Record = "record", Warning;
    /// The store was lost and replaced by a new one: the last orders may be undone.
    StoreLost = "store-lost", Warning;
    /// Connections are missing in the flow log.
    FlowLog = "flow-log", Warning;
    /// Hooks are not told of events.
    Hooks = "hooks", Warning;
    /// Docker's engine does not answer, or names no containers.
    Docker = "docker", Warning;
    /// Labels of a container are not in effect; a warning where other containers serve its service.
    Container = "container", Error;
    /// New connections of a service are held back for a time by a pause.
    Paused = "paused", Warning;
    /// A backend does not answer the daemon's probes.
    BackendUnhealthy = "backend-unhealthy", Warning;
    /// A gateway address has few source ports left towards a backend.
    SourcePorts = "source-ports", Warning;
    /// Packets over the limit were dropped; an error where a service turns new clients away by its `max_flows`.
    OverLimit = "over-limit", Warning;
}

impl ProblemKind {
    /// Returns the name in events, `status` and the log, in snake case.
    pub fn word(self) -> String {
        self.id().replace('-', "_")
    }

    /// Returns whether the kernel does not hold what was ordered.
    pub fn is_out_of_sync(self) -> bool {
        matches!(
            self,
            Self::KernelRefuses | Self::RejectedState | Self::RejectedStore | Self::HeldBack
        )
    }

    /// Returns whether this kind has an event of its own, so that the log contains it already.
    pub(super) fn has_own_event(self) -> bool {
        matches!(
            self,
            Self::KernelRefuses
                | Self::RejectedState
                | Self::RejectedStore
                | Self::TornDown
                | Self::Paused
                | Self::Orphaned
        )
    }
}
