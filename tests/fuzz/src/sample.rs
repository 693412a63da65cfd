//! A state with every feature, which the targets compare with the input.

use std::net::Ipv6Addr;
use std::sync::OnceLock;

use tcpgw_core::model::{self, State};
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::compile::compile;
use tcpgw_core::ruleset::links::{Link, Links};
use tcpgw_core::summary::Summary;

const TEXT: &str = include_str!("../sample.json");

/// The sample state, and its compiled forms.
pub struct Sample {
    /// State as it was parsed.
    pub state: State,
    /// Ruleset that the kernel should have.
    pub ruleset: Ruleset,
    /// Summary of its services.
    pub summary: Summary,
}

/// Returns the sample.
pub fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let state = model::parse(TEXT.as_bytes()).expect("the sample is a state");
        let ruleset = compile(&state, &links());
        let summary = Summary::from(&state);
        Sample {
            state,
            ruleset,
            summary,
        }
    })
}

/// Returns the links of the sample's gateway.
pub fn links() -> Links {
    let bridge = Link {
        up: true,
        source_v4: Some([10, 2, 0, 1].into()),
        source_v6: Some(Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 1)),
    };
    let mut links: Links = ["ext".to_owned()].into();
    links.insert("br0".into(), bridge);
    links
}
