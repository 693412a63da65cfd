//! The command `tcpgw render`.

use super::arguments::FileArgument;
use super::failure::{Code, Outcome};
use super::global::Global;
use super::print::print;
use tcpgw_core::ruleset::compile::compile;
use tcpgw_core::ruleset::links::Links;
use tcpgw_core::ruleset::timeouts::KernelTimeouts;

pub(super) fn run(global: &Global, file: &FileArgument) -> Outcome {
    let config = global.strict_config()?;
    let state = global.state(file, &config)?;
    // Links are known on the gateway only; without privilege they may be those of another machine anyway.
    let timeouts = KernelTimeouts::default().with_idle(config.idle_timeout);
    let ruleset = compile(&state, &Links::default())
        .protecting(config.protect_backends)
        .with_timeouts(timeouts);
    let mut text = String::new();
    tcpgw_core::render::table(&mut text, &ruleset, config.flow_mark).map_err(|error| super::failure::Failure::Io {
        what: "render",
        source: std::io::Error::other(error),
    })?;
    print(&text)?;
    Ok(Code::Success)
}
