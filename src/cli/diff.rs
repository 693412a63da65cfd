//! The command `tcpgw diff`.

use std::time::Duration;

use clap::Args;

use super::apply_output::ReportJson;
use super::arguments::FileArgument;
use super::denied::Denied;
use super::failure::{Code, Failure, Outcome};
use super::gateway::Gateway;
use super::global::{Global, OutputFormat};
use super::print::print;
use super::{others, preflight, remote};
use crate::apply_report::{DiffReport, ReportText as _};
use crate::control::request::ApplyOptions;
use crate::reconcile::{Desired, KnownContents, Reconciler};
use tcpgw_core::model::duration;
use tcpgw_core::ruleset::timeouts::KernelTimeouts;
use tcpgw_kernel::linux::Linux;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: FileArgument,
    /// Include the removals of `apply --prune`
    #[arg(long)]
    prune: bool,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    let config = global.config()?;
    let text = global.read(&arguments.file)?;
    if let Some(daemon) = global.daemon()? {
        let options = ApplyOptions {
            dry_run: true,
            // The order only reports the differences, so every confirmation is given.
            take_over: true,
            allow_empty: true,
            prune: arguments.prune,
            hold_back: true,
            drain: None,
        };
        let (report, denied) = remote::apply::<DiffReport>(global, &daemon, (&arguments.file, text), &options, false)?;
        if let Some(denied) = denied {
            denied.tell(global)?;
        }
        return Ok(if report.changed { Code::Failure } else { Code::Success });
    }
    let mut state = global.parse(&arguments.file, &text, &config)?;
    drop(text);
    let mut gateway = Gateway::open(global)?;
    let obstacles = preflight::obstacles(global, &mut gateway, &state)?;
    preflight::refuse(&arguments.file, &obstacles)?;
    let (known, others) = others::read(&mut gateway, &config, &arguments.file, &mut state, arguments.prune)?;
    others.tell(global);
    let desired = gateway.desired(&state, &others.services, &config)?;
    let mut reconciler = gateway.reconciler(&config);
    let differs = show(global, &mut reconciler, &known, &desired)?;
    Ok(if differs { Code::Failure } else { Code::Success })
}

/// Prints what would change. Returns whether anything would.
pub(super) fn show(
    global: &Global,
    reconciler: &mut Reconciler<'_, Linux>,
    known: &KnownContents,
    desired: &Desired,
) -> Result<bool, Failure> {
    let (changes, flows) = reconciler.diff(known, desired)?;
    let denied = reconciler.denied(&desired.summary)?;
    // Not every change is one in the kernel: `on_empty` of a service that has backends, say.
    let differs = Reconciler::<Linux>::differs(known, desired) || flows > 0 || !changes.is_empty();
    let report = DiffReport {
        changed: differs,
        rebuild: known.rebuild(),
        services: changes.services,
        flows,
    };
    if global.output == OutputFormat::Json {
        let denied = Denied::counts(Some(&Denied::GoingOn(denied)), true);
        ReportJson {
            report: &report,
            denied,
            kept: None,
        }
        .print()?;
        return Ok(differs);
    }
    let mut text = report.text();
    match (known.protects(), desired.ruleset.protects()) {
        (false, true) => {
            text += "~ new connections from outside will reach backends through services only (protect_backends)\n";
        }
        (true, false) => {
            text += "~ new connections from outside will reach backends past services, too (protect_backends)\n";
        }
        _ => {}
    }
    if let Some(had) = known.timeouts().filter(|had| *had != desired.ruleset.timeouts()) {
        text += &retimed(had, desired.ruleset.timeouts());
    }
    if known.rebuild().is_none() && known.has_other_links(&desired.ruleset) && report.services.is_empty() {
        text += "~ the gateway's links or their addresses have changed, and the rules will follow\n";
    }
    if differs && text.is_empty() {
        // Elements that the description leaves out differ: the table was changed, or the order of slots differs.
        text += "~ the elements in the kernel differ from the state and will be put right\n";
    }
    print(&text)?;
    Denied::GoingOn(denied).tell(global)?;
    Ok(differs)
}

fn retimed(had: &KernelTimeouts, wanted: &KernelTimeouts) -> String {
    if had.established == wanted.established {
        return "~ new connections will follow the timeouts of conntrack as they are now\n".to_owned();
    }
    let [before, after] = [had, wanted].map(|of| duration::show(Duration::from_secs(of.established.into())));
    format!("~ new connections of services without an idle_timeout may be silent for {before} -> {after}\n")
}
