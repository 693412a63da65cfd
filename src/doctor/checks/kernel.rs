//! Check of the kernel's features.

use super::super::facts::Facts;
use super::super::finding::{Diagnosis, advice};

/// Oldest release that the tests run on.
const TESTED: (u32, u32) = (6, 1);

pub(super) fn check(facts: &Facts, diagnosis: &mut Diagnosis) {
    if let Some(lacks) = diagnosis.known("features of the kernel", &facts.lacks) {
        for lack in lacks {
            let feature = lack.feature;
            let since = feature
                .since
                .map(|since| format!(", Linux {since} and newer"))
                .unwrap_or_default();
            let seen = format!(
                "this kernel lacks {} ({}{since}): {}",
                feature.what, feature.config, lack.answer
            );
            match (feature.fallback, feature.module) {
                (Some(fallback), _) => diagnosis.note("kernel-fallback", seen, format!("without: {fallback}")),
                (None, Some(module)) => diagnosis.broken(
                    "kernel-feature-missing",
                    seen,
                    "`apply` cannot create its rules without it",
                    advice(format!(
                        "see whether `modprobe {module}` loads it; else run a kernel that was built with {}",
                        feature.config
                    )),
                ),
                (None, None) => diagnosis.broken(
                    "kernel-feature-missing",
                    seen,
                    "`apply` cannot create its rules without it",
                    advice(format!("run a kernel that was built with {}", feature.config)),
                ),
            }
        }
    }
    if let Some(false) = diagnosis.known("the filter of conntrack", &facts.conntrack_filter) {
        diagnosis.note(
            "kernel-fallback",
            "conntrack has no filter by address (Linux 5.8 and newer)",
            "without it, flows of a removed backend are searched among all flows of tcpgw, which takes longer",
        );
    }
    version(facts, diagnosis);
}

fn version(facts: &Facts, diagnosis: &mut Diagnosis) {
    let mut numbers = facts
        .release
        .split(|letter: char| !letter.is_ascii_digit())
        .map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < TESTED => diagnosis.warning(
            "kernel-untested",
            format!("this is Linux {}", facts.release),
            "tcpgw is tested on Linux 6.1 and newer",
            advice("run a newer kernel"),
        ),
        (Some(Ok(_)), Some(Ok(_))) => {}
        _ => diagnosis.unchecked(
            "the kernel's version",
            format!("\"{}\" is not a release", facts.release),
        ),
    }
}
