//! `tcpgw help`, and what every help text has beside clap's: examples, and where the options of all commands are described.

use clap::{Arg, Command, CommandFactory as _};

use super::arguments::HelpArguments;
use super::command::Cli;
use super::failure::{Code, Outcome};
use super::print::print;
use super::usage;

/// Output of `tcpgw`, `tcpgw help` and `tcpgw --help`. It fits on a terminal of 80 columns and 24 lines.
const OVERVIEW: &str = "\
A TCP gateway in front of containers, done by nftables in the kernel

Usage: tcpgw COMMAND [OPTIONS]

State file    check     validate it            diff      show what apply changes
              render    print it as nft rules  apply     put it into the kernel
Inspect       status    services and backends  flows     live connections
              doctor    what breaks traffic    who       the client of a flow
              events    what the daemon did    history   changes of services
              top       live in a terminal
Daemon        daemon    run it                 service   add, change, remove
              export    services as a file     wait      until healthy, drained
Deploys       deploy    new backends, checked  rollback  undo the last deploy
              deploys   list of deploys        drain     take backends out
              undrain   put them in again      pause     hold new connections
              resume    let them in again
Platforms     addon     public ports of apps   env       TCP_URL of an app
              up        run a Procfile
This machine  teardown  remove all rules       completions  for a shell
              man       manual pages           help      this, or a topic

tcpgw help COMMAND: options and examples of a command
tcpgw help options: options of all commands (-o json, -q, --socket, ...)
";

/// Columns of the commands in a line of the overview.
#[cfg(test)]
const PLACES: [usize; 2] = [14, 47];

/// The help of a command, below which its examples stand.
const TEMPLATE: &str = "\
{before-help}{about-with-newline}
{usage-heading} {usage}

{all-args}

Options of all commands, such as -o json: tcpgw help options{after-help}";

/// Two command lines for each command, and for those below it.
const EXAMPLES: &[(&str, [&str; 2])] = &[
    ("check", ["tcpgw check state.json", "generate-state | tcpgw check -"]),
    (
        "render",
        [
            "tcpgw render state.json",
            "tcpgw render state.json | sed 1d | nft -c -f -",
        ],
    ),
    ("diff", ["tcpgw diff state.json", "tcpgw diff --prune state.json"]),
    (
        "apply",
        ["tcpgw apply state.json", "tcpgw apply --drain 30s state.json"],
    ),
    (
        "daemon",
        [
            "tcpgw daemon --state /etc/tcpgw/state.json",
            "tcpgw daemon --log-format json --log-level warn",
        ],
    ),
    ("doctor", ["tcpgw doctor", "tcpgw doctor -o json"]),
    (
        "status",
        [
            "tcpgw status -o wide",
            "tcpgw status --service my-app --wait --timeout 1m",
        ],
    ),
    (
        "flows",
        [
            "tcpgw flows --service my-app",
            "tcpgw flows --client 203.0.113.0/24 -o wide",
        ],
    ),
    (
        "who",
        [
            "tcpgw who 10.2.0.1:60692",
            "tcpgw who 10.2.0.1:60692 --backend 10.2.0.12:3000",
        ],
    ),
    ("top", ["tcpgw top", "tcpgw top --once --sort dropped"]),
    (
        "events",
        ["tcpgw events --follow", "tcpgw events --service my-app -o json"],
    ),
    (
        "deploy",
        [
            "tcpgw deploy my-app --target 10.2.0.13:3000 --target 10.2.0.14:3000",
            "tcpgw deploy my-app --target 10.2.0.13:3000 --until switched --timeout 1m",
        ],
    ),
    ("rollback", ["tcpgw rollback my-app", "tcpgw rollback my-app -o json"]),
    ("deploys", ["tcpgw deploys --service my-app", "tcpgw deploys 7"]),
    (
        "drain",
        [
            "tcpgw drain my-app 10.2.0.11:3000",
            "tcpgw drain my-app --wait --timeout 5m",
        ],
    ),
    (
        "undrain",
        ["tcpgw undrain my-app", "tcpgw undrain my-app 10.2.0.11:3000"],
    ),
    ("pause", ["tcpgw pause my-app", "tcpgw pause my-app --for 2m"]),
    ("resume", ["tcpgw resume my-app", "tcpgw resume"]),
    (
        "wait",
        [
            "tcpgw wait my-app --for healthy",
            "tcpgw wait my-app --for drained --timeout 5m",
        ],
    ),
    (
        "service",
        [
            "tcpgw service ls",
            "tcpgw service add my-app --port 20003 --backend 10.2.0.11:3000",
        ],
    ),
    (
        "service add",
        [
            "tcpgw service add my-app --port 20003 --pps 1000 --backend 10.2.0.11:3000",
            "tcpgw service add my-app --file service.json",
        ],
    ),
    (
        "service set",
        [
            "tcpgw service set my-app --pps 500",
            "tcpgw service set my-app --reset allow --if-revision 7",
        ],
    ),
    (
        "service rm",
        ["tcpgw service rm my-app", "tcpgw service rm my-app --drain 1m"],
    ),
    ("service ls", ["tcpgw service ls", "tcpgw service ls -o json"]),
    (
        "service show",
        ["tcpgw service show my-app", "tcpgw service show app:my-app -o json"],
    ),
    ("addon", ["tcpgw addon provision my-app --plan small", "tcpgw addon ls"]),
    (
        "addon provision",
        [
            "tcpgw addon provision my-app --plan small",
            "tcpgw addon provision my-app --plan small --port 20003",
        ],
    ),
    (
        "addon plan",
        [
            "tcpgw addon plan my-app large",
            "tcpgw addon plan my-app --plan large -o json",
        ],
    ),
    (
        "addon suspend",
        ["tcpgw addon suspend my-app", "tcpgw addon suspend my-app -q"],
    ),
    (
        "addon resume",
        ["tcpgw addon resume my-app", "tcpgw addon resume my-app -q"],
    ),
    (
        "addon deprovision",
        [
            "tcpgw addon deprovision my-app",
            "tcpgw addon deprovision my-app -o json",
        ],
    ),
    ("addon ls", ["tcpgw addon ls", "tcpgw addon ls -o json"]),
    (
        "addon show",
        ["tcpgw addon show my-app", "tcpgw addon show my-app -o json"],
    ),
    (
        "addon manifest",
        [
            "tcpgw addon manifest --dialect scalingo",
            "tcpgw addon manifest --dialect heroku --url https://tcp.example.org",
        ],
    ),
    (
        "addon check",
        [
            "tcpgw addon check https://tcp.example.org --dialect osb --credentials osb.toml",
            "tcpgw addon check https://example.org/ --dialect heroku --credentials h.toml",
        ],
    ),
    ("env", ["tcpgw env my-app", "tcpgw env my-app -o json"]),
    (
        "history",
        ["tcpgw history my-app", "tcpgw history --since 24h --limit 100"],
    ),
    ("export", ["tcpgw export", "tcpgw export --all"]),
    (
        "up",
        ["sudo tcpgw up", "sudo tcpgw up --formation tcp=2,web=1 --port 20003"],
    ),
    ("up ps", ["sudo tcpgw up ps", "sudo tcpgw up ps -f app/Procfile"]),
    ("up restart", ["sudo tcpgw up restart", "sudo tcpgw up restart tcp"]),
    (
        "up scale",
        ["sudo tcpgw up scale tcp=3", "sudo tcpgw up scale tcp=2 web=0"],
    ),
    ("up stop", ["sudo tcpgw up stop", "sudo tcpgw up stop -f app/Procfile"]),
    ("up run", ["sudo tcpgw up run sh", "sudo tcpgw up run 'echo $TCP_URL'"]),
    ("teardown", ["tcpgw teardown", "tcpgw teardown --lock-timeout 1m"]),
    (
        "completions",
        [
            "tcpgw completions bash >/etc/bash_completion.d/tcpgw",
            "tcpgw completions fish >~/.config/fish/completions/tcpgw.fish",
        ],
    ),
    ("man", ["tcpgw man apply | man -l -", "tcpgw man --to man8"]),
    ("help", ["tcpgw help deploy", "tcpgw help options"]),
];

/// Returns the command line with its help texts.
pub(super) fn command() -> Command {
    let command = Cli::command().help_template(OVERVIEW);
    with_examples(command, "")
}

/// Returns the command with the help of all commands below it.
fn with_examples(command: Command, above: &str) -> Command {
    let names: Vec<String> = command
        .get_subcommands()
        .map(|below| below.get_name().to_owned())
        .collect();
    names.into_iter().fold(command, |command, name| {
        let path = format!("{above} {name}");
        command.mut_subcommand(name, |below| {
            let below = with_examples(below, &path)
                .help_template(TEMPLATE)
                .disable_help_subcommand(true);
            match EXAMPLES.iter().find(|(of, _)| *of == path.trim_start()) {
                Some((_, lines)) => below.after_help(format!("Examples:\n  {}\n  {}", lines[0], lines[1])),
                None => below,
            }
        })
    })
}

pub(super) fn run(arguments: &HelpArguments) -> Outcome {
    if arguments.topic.first().is_some_and(|topic| topic == "options") && arguments.topic.len() == 1 {
        print(&options())?;
        return Ok(Code::Success);
    }
    let words = ["tcpgw"].into_iter().chain(arguments.topic.iter().map(String::as_str));
    // The error names similar commands if there is no such command.
    match command().try_get_matches_from(words.chain(["--help"])) {
        Ok(_) => Ok(Code::Success),
        Err(error) => {
            let is_usage = error.use_stderr();
            let _ = usage::print(error);
            Ok(if is_usage { Code::Other(2) } else { Code::Success })
        }
    }
}

/// Returns the help of the options of all commands.
fn options() -> String {
    const ABOUT: &str = "Options that every command takes, before or after its name\n\n{all-args}\n";
    let rendered = |option: &Arg| option.clone().hide_short_help(false).hide_long_help(false);
    let program = Cli::command();
    let mut options = Command::new("tcpgw")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .help_template(ABOUT)
        .max_term_width(super::command::WIDEST)
        .args(program.get_arguments().map(rendered));
    options.render_long_help().to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::document_tests::command_lines;
    use super::*;

    fn paths(command: &Command, above: &str) -> Vec<String> {
        let below = command.get_subcommands();
        below
            .flat_map(|below| {
                let path = format!("{above} {}", below.get_name()).trim_start().to_owned();
                let mut all = paths(below, &path);
                all.push(path);
                all
            })
            .collect()
    }

    /// Returns the names of the commands that a line leads to.
    fn path_of(line: &[String]) -> String {
        let matches = command().try_get_matches_from(std::iter::once("tcpgw").chain(line.iter().map(String::as_str)));
        let matches = matches.unwrap_or_else(|error| panic!("{line:?}: {error}"));
        let (mut path, mut matches) = (Vec::new(), &matches);
        while let Some((name, below)) = matches.subcommand() {
            path.push(name.to_owned());
            matches = below;
        }
        path.join(" ")
    }

    #[test]
    fn every_command_has_two_examples_that_it_takes() {
        let mut with_examples: Vec<&str> = EXAMPLES.iter().map(|(path, _)| *path).collect();
        let all = paths(&Cli::command(), "");
        with_examples.sort_unstable();
        let mut all: Vec<&str> = all.iter().map(String::as_str).collect();
        all.sort_unstable();
        assert_eq!(with_examples, all);
        for (path, lines) in EXAMPLES {
            assert_ne!(lines[0], lines[1]);
            for line in lines {
                assert!(line.len() <= 78, "{line} is wrapped on 80 columns");
                let found = command_lines(line);
                assert_eq!(found.len(), 1, "{line}");
                let words = std::iter::once("tcpgw").chain(found[0].iter().map(String::as_str));
                Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
                let leads_to = path_of(&found[0]);
                assert!(
                    leads_to == *path || leads_to.starts_with(&format!("{path} ")),
                    "{line}: {leads_to}"
                );
            }
        }
    }

    #[test]
    fn help_ends_with_the_examples_and_has_no_options_of_all_commands() {
        for path in paths(&Cli::command(), "") {
            let words = std::iter::once("tcpgw").chain(path.split(' ')).chain(["--help"]);
            let help = command().try_get_matches_from(words).unwrap_err().to_string();
            let (_, lines) = EXAMPLES.iter().find(|(of, _)| *of == path).expect("examples");
            let end = format!(
                "\n\nOptions of all commands, such as -o json: tcpgw help options\n\nExamples:\n  {}\n  {}\n",
                lines[0], lines[1]
            );
            assert!(help.ends_with(&end), "{path}: {help}");
            for common in ["--no-color", "--socket <", "--config", "--version"] {
                assert!(!help.contains(common), "{path}: {common}: {help}");
            }
        }
    }

    #[test]
    fn the_topic_options_has_every_option_of_all_commands() {
        let text = options();
        for option in Cli::command().get_arguments().filter(|option| !option.is_hide_set()) {
            let name = option.get_long().expect("a long name");
            assert!(text.contains(&format!("--{name}")), "{name}: {text}");
        }
        assert!(text.contains("--version") && text.contains("TCPGW_SOCKET"), "{text}");
    }

    #[test]
    fn the_overview_fits_on_a_screen_and_has_every_command() {
        let lines: Vec<&str> = OVERVIEW.lines().collect();
        // The last line is the shell's.
        assert!(lines.len() < 24, "{} lines", lines.len());
        let widest = lines.iter().map(|line| line.len()).max();
        assert!(widest <= Some(80), "{widest:?}");
        let mut collected = Vec::new();
        let list = lines.iter().skip_while(|line| !line.starts_with("State file"));
        for line in list.take_while(|line| !line.is_empty()) {
            for place in PLACES {
                collected.extend(line.get(place..).and_then(|rest| rest.split(' ').next()));
            }
        }
        collected.sort_unstable();
        let command = Cli::command();
        let mut names: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        names.sort_unstable();
        assert_eq!(collected, names);
        assert_eq!(
            command.clone().get_subcommands().count(),
            super::command().get_subcommands().count()
        );
    }
}
