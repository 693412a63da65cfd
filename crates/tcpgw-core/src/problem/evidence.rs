//! Where the evidence for each kind of problem is: a problem must not end by a restart of the daemon while its cause is there.

use super::ProblemKind;

/// Place from which a daemon that has just started knows of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvidencePlace {
    /// The kernel, which is read again and again.
    Kernel,
    /// The configuration, the state file or the store, which are read at the start and after each change.
    Files,
    /// An attempt that is made again, such as a probe, a write or a listener.
    Attempt,
    /// A file of the run directory with this ending, since nothing else has it.
    Kept(&'static str),
    /// The process that reports it: it ends with that process.
    Process,
}

impl ProblemKind {
    /// Returns where the evidence for the problem is. A kind that has evidence in several places has the one that could get
    /// lost.
    pub const fn evidence(self) -> EvidencePlace {
        match self {
            Self::NoTable
            | Self::TableDormant
            | Self::HeldBack
            | Self::SourceAddressGone
            | Self::OwnBackend
            | Self::StaleFlows
            | Self::Unanswered
            | Self::IpForwardOff
            | Self::Ipv6ForwardingOff
            | Self::PacketsUntracked
            | Self::PortTranslatedElsewhere
            | Self::FlowMarkOverwritten
            | Self::FlowsUnmarked
            | Self::ReversePathFilter
            | Self::ConntrackFull
            | Self::ConntrackFilling
            | Self::AddressNotLocal
            | Self::NoCarrier
            | Self::SourceAddressNotLocal
            | Self::BackendWithoutRoute
            | Self::BackendByDefaultRoute
            | Self::BackendIsGateway
            | Self::BackendsExposed
            | Self::ProbesDropped
            | Self::FlowsOffloaded
            | Self::ConntrackLongChains
            | Self::OtherMark
            | Self::SourcePorts
            | Self::OverLimit => EvidencePlace::Kernel,
            Self::NoActiveBackend
            | Self::OutsideFences
            | Self::RejectedState
            | Self::RejectedStore
            | Self::AddonPorts
            | Self::RejectedConfiguration
            | Self::StoreLost => EvidencePlace::Files,
            Self::KernelRefuses
            | Self::NoHealthyBackend
            | Self::Store
            | Self::ProbesMisrouted
            | Self::DaemonUnreachable
            | Self::OtherNamespace
            | Self::SocketGone
            | Self::ProviderApi
            | Self::Web
            | Self::SocketReadonly
            | Self::LastServices
            | Self::Record
            | Self::FlowLog
            | Self::Hooks
            | Self::Docker
            | Self::Container
            | Self::BackendUnhealthy => EvidencePlace::Attempt,
            Self::NotServed | Self::TableChanged | Self::Orphaned | Self::Paused => EvidencePlace::Kept("state"),
            Self::TornDown => EvidencePlace::Kept("torn-down"),
            Self::DaemonGone => EvidencePlace::Kept("daemon"),
            Self::PacketsDropped | Self::AnswersWithoutRoute | Self::AddressLost | Self::NoPublicAddress => {
                EvidencePlace::Kept("memory")
            }
            // The next daemon opens the file that is there then; that the store was lost is another problem.
            Self::Starting | Self::ChecksStalled | Self::StoreMoved => EvidencePlace::Process,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_describes_each_file_that_keeps_evidence() {
        let manual = include_str!("../../../../docs/internals/failures.md");
        for kind in ProblemKind::ALL {
            if let EvidencePlace::Kept(ending) = kind.evidence() {
                assert!(
                    manual.contains(&format!("netns-COOKIE.{ending}`")),
                    "{kind:?}: {ending}"
                );
            }
        }
    }

    /// A daemon reports these without having seen their cause: they tell of itself.
    #[test]
    fn few_problems_end_with_a_process() {
        let of_process = ProblemKind::ALL
            .iter()
            .filter(|kind| kind.evidence() == EvidencePlace::Process);
        let of_process: Vec<ProblemKind> = of_process.copied().collect();
        assert_eq!(
            of_process,
            [
                ProblemKind::Starting,
                ProblemKind::StoreMoved,
                ProblemKind::ChecksStalled
            ]
        );
    }
}
