//! `tcpgw man`: manual pages of section 8, made from the command line's own help.
//!
//! One page describes tcpgw as a whole, and one each command with the commands below it. The options of all commands stand on
//! the first page only. The pages of section 5, on the files, are written by hand: `dist/man`.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

use super::arguments::ManualArguments;
use super::failure::{Code, Failure, Outcome};
use super::help;
use super::print::print;

const SECTION: &str = "8";

pub(super) fn run(arguments: &ManualArguments) -> Outcome {
    let program = program();
    if let Some(directory) = &arguments.to {
        write_all(&program, directory)?;
        return Ok(Code::Success);
    }
    let page = match arguments.command.as_deref() {
        None => overview(&program),
        Some(name) => command_page(find(&program, name)?),
    };
    print(&String::from_utf8_lossy(&page.map_err(failed)?))?;
    Ok(Code::Success)
}

/// Returns the complete command line, with the options of all commands in each command.
fn program() -> Command {
    let mut program = help::command();
    program.build();
    program
}

fn commands(program: &Command) -> impl Iterator<Item = &Command> {
    program.get_subcommands().filter(|command| !command.is_hide_set())
}

fn find<'c>(program: &'c Command, name: &str) -> Result<&'c Command, Failure> {
    commands(program)
        .find(|command| command.get_name() == name)
        .ok_or_else(|| {
            let names: Vec<&str> = commands(program).map(Command::get_name).collect();
            Failure::Usage(format!(
                "tcpgw has no command {}; it has {}",
                tcpgw_core::escape::text(name),
                names.join(", ")
            ))
        })
}

fn write_all(program: &Command, directory: &Path) -> Result<(), Failure> {
    let write = |name: &str, page: io::Result<Vec<u8>>| {
        let path = directory.join(format!("{name}.{SECTION}"));
        let named = |source: io::Error| {
            let message = format!("{}: {source}", tcpgw_core::escape::path(&path));
            failed(io::Error::new(source.kind(), message))
        };
        fs::write(&path, page.map_err(failed)?).map_err(named)
    };
    write(program.get_name(), overview(program))?;
    commands(program).try_for_each(|command| write(&page_name(command), command_page(command)))
}

fn failed(source: io::Error) -> Failure {
    Failure::Io {
        what: "write the manual page",
        source,
    }
}

fn page_name(command: &Command) -> String {
    format!("tcpgw-{}", command.get_name())
}

fn page_of(command: &Command) -> Man {
    Man::new(command.clone())
        .section(SECTION)
        .source(concat!("tcpgw ", env!("CARGO_PKG_VERSION")))
        .manual("TCP gateway")
}

/// Returns the page of tcpgw as a whole.
fn overview(program: &Command) -> io::Result<Vec<u8>> {
    let page = page_of(program);
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    text.extend_from_slice(b".SH COMMANDS\n");
    let mut list = Vec::new();
    page.render_subcommands_section(&mut list)?;
    text.extend_from_slice(without_heading(&list).as_bytes());
    page.render_options_section(&mut text)?;
    append_examples(program, &page, EXAMPLES, &mut text)?;
    text.extend_from_slice(OVERVIEW_END.as_bytes());
    Ok(text)
}

/// Returns the page of a command, with a section for each command below it.
fn command_page(command: &Command) -> io::Result<Vec<u8>> {
    let own = with_own_options(command);
    let page = page_of(&own);
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    if has_options(&own) {
        page.render_options_section(&mut text)?;
    }
    append_commands_below(&own, &mut text)?;
    append_examples(&own, &page, EXAMPLES, &mut text)?;
    text.extend_from_slice(COMMAND_END.as_bytes());
    Ok(text)
}

/// Appends a section for each command below this one, and for those below them.
fn append_commands_below(command: &Command, text: &mut Vec<u8>) -> io::Result<()> {
    for below in commands(command) {
        let own = with_own_options(below);
        let page = page_of(&own);
        let name = own.get_bin_name().unwrap_or(own.get_name());
        text.extend_from_slice(format!(".SH \"{name}\"\n").as_bytes());
        let mut synopsis = Vec::new();
        page.render_synopsis_section(&mut synopsis)?;
        text.extend_from_slice(without_heading(&synopsis).as_bytes());
        let mut description = Vec::new();
        page.render_description_section(&mut description)?;
        text.extend_from_slice(b".PP\n");
        text.extend_from_slice(without_heading(&description).as_bytes());
        if has_options(&own) {
            let mut options = Vec::new();
            page.render_options_section(&mut options)?;
            text.extend_from_slice(without_heading(&options).as_bytes());
        }
        append_examples(&own, &page, ".PP\nExamples:\n", text)?;
        append_commands_below(&own, text)?;
    }
    Ok(())
}

/// Appends the text below the options in `--help`.
fn append_examples(command: &Command, page: &Man, heading: &str, text: &mut Vec<u8>) -> io::Result<()> {
    if command.get_after_help().is_some() || command.get_after_long_help().is_some() {
        let mut examples = Vec::new();
        page.render_extra_section(&mut examples)?;
        // Each line of it is one on the page, too.
        text.extend_from_slice(heading.as_bytes());
        text.extend_from_slice(b".nf\n");
        let examples = without_heading(&examples);
        let lines = examples.split_inclusive('\n');
        let lines = lines.filter(|line| line.trim_end() != "Examples:");
        text.extend_from_slice(lines.collect::<String>().as_bytes());
        text.extend_from_slice(b".fi\n");
    }
    Ok(())
}

/// Returns the command without the options that every command takes: they are on the page of tcpgw.
fn with_own_options(command: &Command) -> Command {
    command.clone().mut_args(|argument| {
        let is_common = argument.is_global_set() || ["help", "version"].contains(&argument.get_id().as_str());
        let is_hidden = argument.is_hide_set() || is_common;
        argument.hide(is_hidden)
    })
}

fn has_options(command: &Command) -> bool {
    command.get_arguments().any(|argument| !argument.is_hide_set())
}

/// Returns a section without its heading.
fn without_heading(section: &[u8]) -> String {
    let text = String::from_utf8_lossy(section);
    let lines = text.split_inclusive('\n').filter(|line| !line.starts_with(".SH "));
    lines.collect()
}

const EXAMPLES: &str = ".SH EXAMPLES\n";

const COMMAND_END: &str = "\
.SH \"SEE ALSO\"
.BR tcpgw (8),
with the options of all commands, exit codes, files and variables;
.BR tcpgw.json (5),
.BR tcpgw.toml (5)
";

const OVERVIEW_END: &str = "\
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
the configuration, of every command and of the daemon: \\fBtcpgw.toml\\fR(5)
.TP
\\fI/etc/tcpgw/state.json\\fR
the state file that the daemon follows unless the configuration names another one: \\fBtcpgw.json\\fR(5)
.TP
\\fI/run/tcpgw/tcpgw.sock\\fR
the socket of the daemon; while it answers there, \\fBapply\\fR, \\fBdiff\\fR, \\fBstatus\\fR, \\fBflows\\fR, \\fBwho\\fR and
\\fBteardown\\fR go through it; \\fBdeploy\\fR, \\fBservice\\fR and what else changes or waits for single services need it
.TP
\\fI/run/tcpgw\\fR
the lock and the record of the last apply, for each network namespace
.TP
\\fI/var/lib/tcpgw/tcpgw.db\\fR
the daemon's store: services of its API, their history, resources of the add-on
.TP
\\fI/usr/share/doc/tcpgw\\fR
the manual as a book, one page for each topic
.SH ENVIRONMENT
.TP
\\fBTCPGW_CONFIG\\fR, \\fBTCPGW_SOCKET\\fR
as \\fB\\-\\-config\\fR and \\fB\\-\\-socket\\fR
.TP
\\fBNO_COLOR\\fR
as \\fB\\-\\-no\\-color\\fR
.SH \"SEE ALSO\"
.BR tcpgw.json (5),
.BR tcpgw.toml (5),
.BR nft (8),
.BR conntrack (8)
";
