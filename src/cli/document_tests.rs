//! The command lines that documents, recipes, scripts and messages show are such as the program takes, and the files that they
//! name are there.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _, Parser as _};

use super::command::Cli;
use crate::source_tests::{self, root};

/// Directories and files of documents, scripts and units.
const PLACES: [&str; 9] = [
    "README.md",
    "docs",
    "examples/mqtt/README.md",
    "rules/README.md",
    "tests/fuzz/README.md",
    "recipes",
    "dist",
    "scripts",
    "vagrant",
];
/// Directories of files that a document may name.
const DIRECTORIES: [&str; 8] = [
    "examples", "scripts", "recipes", "docs", "dist", "rules", "tests", "vagrant",
];

#[test]
fn command_lines_are_taken() {
    let (mut parsed, mut wrong) = (0, Vec::new());
    for path in files() {
        for words in shell_of(&path).iter().flat_map(|text| commands(text)) {
            let Some(arguments) = of_tcpgw(&words) else { continue };
            parsed += 1;
            let has_variable = arguments.iter().any(|word| word.contains('$'));
            let result = if has_variable {
                check_names(&Cli::command(), &arguments)
            } else {
                let line = std::iter::once("tcpgw").chain(arguments.iter().map(String::as_str));
                Cli::try_parse_from(line).map(drop).map_err(|error| error.to_string())
            };
            if let Err(error) = result {
                wrong.push(format!("{}: {}: {error}", name(&path), words.join(" ")));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(parsed >= 40, "only {parsed} command lines");
}

#[test]
fn commands_in_sentences_have_the_names_and_options_that_they_are_told_with() {
    let command = Cli::command();
    let is_test = |path: &PathBuf| path.to_string_lossy().ends_with("_tests.rs");
    let sources = source_tests::files(&root().join("src"))
        .into_iter()
        .filter(|path| !is_test(path));
    let (mut found, mut wrong) = (0, Vec::new());
    for path in files().into_iter().chain(sources) {
        for told in spans(&read(&path)) {
            let told = told.strip_prefix("tcpgw ");
            // Between two that are shown stands anything.
            let Some(told) = told.filter(|told| told.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-'))
            else {
                continue;
            };
            let arguments: Vec<String> = told
                .split_whitespace()
                .take_while(|word| !["|", ">", "<", "&&", "||", ";"].contains(word) && !word.starts_with('#'))
                .map(|word| {
                    word.trim_matches(['[', ']', '(', ')', ',', '…'])
                        .trim_end_matches("...")
                        .to_owned()
                })
                .collect();
            found += 1;
            if let Err(error) = check_names(&command, &arguments) {
                wrong.push(format!("{}: tcpgw {told}: {error}", name(&path)));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(found >= 200, "only {found} commands");
}

#[test]
fn files_that_documents_name_are_there() {
    let (mut found, mut lacks) = (0, Vec::new());
    for path in files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|of| of == "md"))
    {
        let text = read(&path);
        let blocks = blocks(&text);
        let in_blocks = blocks.iter().flat_map(|block| commands(block)).flatten();
        let in_sentences = spans(&text).into_iter().flat_map(|span| {
            let words = span.split_whitespace().map(str::to_owned);
            words.collect::<Vec<_>>()
        });
        for word in in_blocks.chain(in_sentences) {
            let named = word.trim_end_matches(['.', ',', ':', ';']).trim_start_matches("./");
            let directory = named.split_once('/').map_or("", |(directory, _)| directory);
            // Placeholders are not names of files.
            let last = named.rsplit('/').next().unwrap_or_default();
            let stem = last.split('.').next().unwrap_or_default();
            let is_placeholder = stem.len() > 1 && stem != "README" && stem.chars().all(|c| c.is_ascii_uppercase());
            if !DIRECTORIES.contains(&directory) || named.contains(['$', '{', '<', '…']) || is_placeholder {
                continue;
            }
            found += 1;
            let there = named.split_once('*').map_or(named, |(there, _)| there);
            let there = if there == named {
                there
            } else {
                there.rsplit_once('/').map_or("", |(there, _)| there)
            };
            if !root().join(there).exists() {
                lacks.push(format!("{}: {named}", name(&path)));
            }
        }
    }
    assert_eq!(lacks, Vec::<String>::new());
    assert!(found >= 20, "only {found} files");
}

#[test]
fn shell_is_split_as_a_shell_does() {
    let text = "sudo tcpgw apply 'a b' \\\n  --drain \"2s\"  # why\n\
        last=$(tcpgw events | tail -n 1) && X=1 tcpgw diff >out 2>/dev/null <<END\ntcpgw nothing\nEND\n\
        systemctl restart tcpgw; (/usr/bin/tcpgw status) || echo tcpgw\nssh root@HOST tcpgw doctor <<<x";
    let found: Vec<String> = commands(text)
        .iter()
        .filter_map(|words| of_tcpgw(words))
        .map(|arguments| arguments.join(","))
        .collect();
    assert_eq!(found, ["apply,a b,--drain,2s", "events", "diff", "status", "doctor"]);
    let command = Cli::command();
    let check = |line: &str| {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        check_names(&command, &words)
    };
    assert_eq!(check("service add|set NAME --port 1 -o json"), Ok(()));
    assert_eq!(check("service put NAME"), Err("there is no command put".to_owned()));
    assert_eq!(check("status --force"), Err("there is no option --force".to_owned()));
    assert_eq!(check("status -x"), Err("there is no option -x".to_owned()));
}

/// With `pipefail`, a reader that ends before its writer sometimes makes the writer fail with SIGPIPE, and so the whole
/// pipeline.
#[test]
fn readers_of_a_pipe_in_scripts_read_to_its_end() {
    let ends_early = |command: &str| {
        let mut words = command.split_whitespace();
        let program = words.next();
        let mut options = words.take_while(|word| word.starts_with('-'));
        match program {
            Some("head") => true,
            Some("grep") => {
                options.any(|word| !word.starts_with("--") && word.contains(['q', 'm']) || word == "--quiet")
            }
            _ => false,
        }
    };
    let (mut pipes, mut wrong) = (0, Vec::new());
    for path in files() {
        let text = read(&path);
        if !text.starts_with("#!") && path.extension().is_none_or(|of| of != "sh") {
            continue;
        }
        for line in text.lines() {
            let mut readers = line.split(" | ").skip(1).peekable();
            pipes += usize::from(readers.peek().is_some());
            if readers.any(ends_early) {
                wrong.push(format!("{}: {line}", name(&path)));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(pipes >= 20, "only {pipes} lines with pipes");
}

pub(super) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", name(path)))
}

pub(super) fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned()
}

/// Documents and scripts, without what measurements have left.
pub(super) fn files() -> Vec<PathBuf> {
    let all = PLACES.iter().flat_map(|place| source_tests::files(&root().join(place)));
    let is_text = |path: &PathBuf| {
        let of = path.extension().map(|of| of.to_string_lossy().into_owned());
        matches!(of.as_deref(), None | Some("md" | "sh" | "service" | "yml"))
    };
    all.filter(is_text).collect()
}

/// Returns the words after `tcpgw` in the commands of a shell text that run it.
pub(super) fn command_lines(text: &str) -> Vec<Vec<String>> {
    commands(text).iter().filter_map(|words| of_tcpgw(words)).collect()
}

/// Returns the shell text in a file: the blocks of a document, the commands of a unit, or all of a script.
fn shell_of(path: &Path) -> Vec<String> {
    let text = read(path);
    let extension = path.extension().map(|of| of.to_string_lossy().into_owned());
    match extension.as_deref() {
        Some("md") => blocks(&text),
        Some("service") => text
            .lines()
            .filter_map(|line| {
                line.strip_prefix("Exec")?
                    .split_once('=')
                    .map(|(_, command)| command.to_owned())
            })
            .collect(),
        Some("yml") => Vec::new(),
        _ => vec![text],
    }
}

/// Returns the blocks that are marked as shell. Of a console block, the lines after a prompt.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else {
            continue;
        };
        let block = lines.by_ref().take_while(|line| !line.trim_start().starts_with("```"));
        let block: Vec<&str> = block.collect();
        match language {
            "sh" | "bash" => blocks.push(block.join("\n")),
            // A block without a language shows the output of a command.
            "console" | "" => {
                let typed = block
                    .iter()
                    .filter_map(|line| line.strip_prefix("$ ").or(line.strip_prefix("# ")));
                blocks.push(typed.collect::<Vec<_>>().join("\n"));
            }
            _ => {}
        }
    }
    blocks
}

/// Returns the texts between backticks on one line, as they are shown. A Rust text may go on in the next line after a
/// backslash.
pub(super) fn spans(text: &str) -> Vec<String> {
    let mut joined = String::new();
    let mut goes_on = false;
    for line in text.lines() {
        let line = if goes_on { line.trim_start() } else { line };
        goes_on = line.ends_with('\\');
        joined.push_str(line.strip_suffix('\\').unwrap_or(line));
        if !goes_on {
            joined.push('\n');
        }
    }
    let lines = joined.lines().filter(|line| !line.trim_start().starts_with("```"));
    lines
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .map(|span| span.replace("\\|", "|"))
        .collect()
}

/// Returns the words after `tcpgw` in a command that runs it.
fn of_tcpgw(words: &[String]) -> Option<Vec<String>> {
    const ALONE: [&str; 15] = [
        "sudo", "quietly", "time", "exec", "command", "if", "then", "else", "elif", "while", "until", "do", "!", "{",
        "-",
    ];
    const WITH_ONE: [&str; 4] = ["ssh", "as", "await", "timeout"];
    let mut words = words;
    while let [first, rest @ ..] = words {
        let is_assignment = first
            .split_once('=')
            .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
        if is_assignment || ALONE.contains(&&**first) {
            words = rest;
        } else if first == "tcpgw" || first.ends_with("/tcpgw") {
            // A wrapper that hands on what it was given.
            let hands_on = rest.first().is_none_or(|word| word.starts_with('$'));
            return (!hands_on).then(|| rest.to_vec());
        } else if WITH_ONE.contains(&&**first) {
            words = rest.get(1..)?;
        } else {
            return None;
        }
    }
    None
}

/// Checks that commands and options of these names exist. Values are not checked.
fn check_names(command: &Command, arguments: &[String]) -> Result<(), String> {
    let mut command = command.clone();
    // Global options belong to all that is below, then.
    command.build();
    let mut arguments = arguments;
    while let [first, rest @ ..] = arguments {
        // Placeholders are not checked.
        if !command.has_subcommands() || first.starts_with('-') || first.contains(['{', '$']) {
            break;
        }
        let names: Vec<&str> = first.split('|').collect();
        let missing = names.iter().find(|name| command.find_subcommand(name).is_none());
        if let Some(missing) = missing {
            return Err(format!("there is no command {missing}"));
        }
        let found = names.first().and_then(|name| command.find_subcommand(name));
        command = found.ok_or("there is no command")?.clone();
        arguments = rest;
    }
    let options = arguments
        .iter()
        .take_while(|word| *word != "--")
        .filter(|word| word.len() > 1);
    for option in options
        .flat_map(|word| word.split('|'))
        .filter(|word| word.starts_with('-'))
    {
        let name = option.split('=').next().unwrap_or(option);
        let is_there = match name.strip_prefix("--") {
            Some("help" | "version") => true,
            Some(long) => command.get_arguments().any(|of| {
                of.get_long() == Some(long) || of.get_all_aliases().is_some_and(|aliases| aliases.contains(&long))
            }),
            None => {
                let short = name.chars().nth(1);
                command.get_arguments().any(|of| of.get_short() == short) || matches!(short, Some('h' | 'V'))
            }
        };
        if !is_there {
            return Err(format!("there is no option {name}"));
        }
    }
    Ok(())
}

/// Returns the simple commands of a shell text, as words without quotes. Redirections, comments and here-documents are left
/// out.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut splitter = Splitter::default();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('\n') | None => splitter.end_word(),
                Some(c) => splitter.word.get_or_insert_default().push(c),
            },
            '\'' => splitter.quoted(chars.by_ref().take_while(|c| *c != '\'')),
            '"' => {
                let mut escaped = false;
                splitter.quoted(chars.by_ref().take_while(|c| {
                    let ends = *c == '"' && !escaped;
                    escaped = *c == '\\' && !escaped;
                    !ends
                }));
            }
            '#' if splitter.word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            '$' if chars.next_if_eq(&'(').is_some() => splitter.end_command(),
            '$' if chars.next_if_eq(&'{').is_some() => {
                splitter.quoted("${".chars().chain(chars.by_ref().take_while(|c| *c != '}')));
            }
            '>' | '<' => {
                let mut signs = 1;
                while chars.next_if(|next| [c, '&'].contains(next)).is_some() {
                    signs += 1;
                }
                splitter.redirect(c == '<' && signs == 2);
            }
            '\n' => {
                splitter.end_command();
                for delimiter in std::mem::take(&mut splitter.delimiters) {
                    skip_until(&mut chars, &delimiter);
                }
            }
            ';' | '|' | '&' | '(' | ')' => splitter.end_command(),
            c if c.is_whitespace() => splitter.end_word(),
            c => splitter.word.get_or_insert_default().push(c),
        }
    }
    splitter.end_command();
    splitter.commands
}

fn skip_until(chars: &mut impl Iterator<Item = char>, delimiter: &str) {
    let mut line = String::new();
    for c in chars {
        if c != '\n' {
            line.push(c);
        } else if line.trim() == delimiter {
            return;
        } else {
            line.clear();
        }
    }
}

#[derive(Default)]
struct Splitter {
    commands: Vec<Vec<String>>,
    words: Vec<String>,
    word: Option<String>,
    /// Whether the next word is a redirection's, and whether it ends a text that follows.
    redirects: Option<bool>,
    /// Delimiters of the here-documents that begin with the next line.
    delimiters: Vec<String>,
}

impl Splitter {
    fn quoted(&mut self, chars: impl Iterator<Item = char>) {
        self.word.get_or_insert_default().extend(chars);
    }

    fn redirect(&mut self, is_text: bool) {
        let is_descriptor = |word: &String| word.chars().all(|c| c.is_ascii_digit());
        self.word = self.word.take().filter(|word| !is_descriptor(word));
        self.end_word();
        self.redirects = Some(is_text);
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        match self.redirects.take() {
            Some(true) => self.delimiters.push(word.trim_start_matches('-').to_owned()),
            Some(false) => {}
            None => self.words.push(word),
        }
    }

    fn end_command(&mut self) {
        self.end_word();
        self.redirects = None;
        if !self.words.is_empty() {
            self.commands.push(std::mem::take(&mut self.words));
        }
    }
}
