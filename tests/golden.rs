//! The renderer prints exactly what stands in `rules/`. That nft accepts it and that `apply` makes the same of the kernel
//! is shown by the namespace tests (`table`).
//!
//! `TCPGW_BLESS=1 cargo test --test golden` writes the files anew: look at the difference before you keep it.

use std::fs;
use std::process::Command;

mod cases;

#[test]
fn the_rulesets_are_those_of_the_files() {
    let empty = render(&state("empty"));
    bless(&cases::skeleton_file(), &empty);
    assert_eq!(cases::read(&cases::skeleton_file()), empty, "rules/skeleton.nft");
    for case in cases::all() {
        let rendered = render(&case.state());
        bless(&case.ruleset_file(), &difference(&empty, &rendered));
        assert!(
            case.ruleset() == rendered,
            "{}: the files give\n{}but the renderer prints\n{}",
            case.name,
            cases::read(&case.ruleset_file()),
            difference(&empty, &rendered)
        );
        let own = cases::read(&case.ruleset_file());
        assert_eq!(own, difference(&empty, &rendered), "{}", case.name);
    }
}

fn state(name: &str) -> std::path::PathBuf {
    let case = cases::all().into_iter().find(|case| case.name == name);
    case.unwrap_or_else(|| panic!("no case {name}")).state()
}

fn render(state: &std::path::Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tcpgw"))
        .args(["--config", "/dev/null", "render"])
        .arg(state)
        .output()
        .expect("the program runs");
    let trouble = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {trouble}", state.to_string_lossy());
    String::from_utf8(output.stdout).expect("a ruleset is text")
}

/// Returns the blocks of a whole ruleset that are not in the skeleton.
fn difference(skeleton: &str, whole: &str) -> String {
    let (_, common) = cases::split(skeleton);
    let (_, blocks) = cases::split(whole);
    let own = blocks.iter().filter(|block| !common.contains(block)).copied();
    "table inet tcpgw {\n".to_owned() + &own.collect::<String>() + cases::CLOSING
}

fn bless(path: &std::path::Path, text: &str) {
    if std::env::var_os("TCPGW_BLESS").is_some_and(|value| value == "1") {
        fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.to_string_lossy()));
    }
}
