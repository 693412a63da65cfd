//! `tcpgw completions`, `tcpgw man`

use clap::{Args, CommandFactory};

use super::{Cli, Code, Failure, Outcome, print};

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// For this shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub(super) fn completions(arguments: &Completions) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "tcpgw", &mut text);
    print(&String::from_utf8_lossy(&text))?;
    Ok(Code::Success)
}

pub(super) fn man() -> Outcome {
    let mut text = Vec::new();
    let failed = |source| Failure::Io {
        what: "write the manual page",
        source,
    };
    let mut command = Cli::command();
    command.build();
    let page = clap_mangen::Man::new(command.clone());
    page.render(&mut text).map_err(failed)?;
    describe(&command, "TCPGW", &mut text).map_err(failed)?;
    text.extend_from_slice(EXIT_STATUS.as_bytes());
    print(&String::from_utf8_lossy(&text))?;
    Ok(Code::Success)
}

/// A section for each command, and for those below it.
fn describe(command: &clap::Command, above: &str, text: &mut Vec<u8>) -> std::io::Result<()> {
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let name = format!("{above} {}", sub.get_name().to_uppercase());
        let page = clap_mangen::Man::new(sub.clone());
        text.extend_from_slice(format!(".SH \"{name}\"\n").as_bytes());
        page.render_synopsis_section(text)?;
        page.render_description_section(text)?;
        page.render_options_section(text)?;
        describe(sub, &name, text)?;
    }
    Ok(())
}

const EXIT_STATUS: &str = "\
.SH \"EXIT STATUS\"
.TP
\\fB0\\fR
success
.TP
\\fB1\\fR
failure; for \\fBdiff\\fR: there are changes; for \\fBstatus\\fR: something is unhealthy; for \\fBwho\\fR: nobody; for
\\fBdeploy\\fR: it has failed or was undone, or what \\fB\\-\\-on\\-switched\\fR ran has failed; for \\fBwait\\fR: time was over
.TP
\\fB130\\fR, \\fB143\\fR
\\fBdeploy\\fR was ended by SIGINT or SIGTERM; \\fBup\\fR by a second one
.TP
\\fB2\\fR
wrong usage, missing or invalid input; for \\fBdiff\\fR: trouble
.SH FILES
.TP
\\fI/etc/tcpgw/config.toml\\fR
fences and flow mark
.TP
\\fI/run/tcpgw/tcpgw.sock\\fR
the socket of the daemon; while it answers there, \\fBapply\\fR, \\fBdiff\\fR, \\fBstatus\\fR, \\fBflows\\fR, \\fBwho\\fR and
\\fBteardown\\fR go through it; \\fBdeploy\\fR, \\fBservice\\fR and what else changes or waits for single services need it
.TP
\\fI/run/tcpgw\\fR
the lock and the record of the last apply, for each network namespace
.SH ENVIRONMENT
.TP
\\fBTCPGW_CONFIG\\fR, \\fBTCPGW_SOCKET\\fR
as \\fB\\-\\-config\\fR and \\fB\\-\\-socket\\fR
.TP
\\fBNO_COLOR\\fR
as \\fB\\-\\-no\\-color\\fR
";
