//! The inputs that fuzzing has found still pass: `tests/fuzz` without cargo-fuzz.

use std::fs;
use std::path::Path;

#[path = "fuzz/src/lib.rs"]
pub mod fuzz;

#[test]
fn every_kept_input_is_taken() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    for (name, check) in fuzz::TARGETS {
        let mut inputs = 0;
        for entry in fs::read_dir(corpus.join(name)).unwrap_or_else(|e| panic!("{name}: {e}")) {
            let path = entry.expect("the corpus can be listed").path();
            let bytes = fs::read(&path).expect("an input can be read");
            eprintln!("{}", path.to_string_lossy());
            check(&bytes);
            inputs += 1;
        }
        assert!(inputs >= 10, "{name}: only {inputs} inputs");
    }
    let known: Vec<_> = fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
    for entry in fs::read_dir(&corpus).expect("the corpus can be listed") {
        let name = entry.expect("the corpus can be listed").file_name();
        assert!(known.iter().any(|known| name == *known), "{name:?} is no target's");
    }
}
