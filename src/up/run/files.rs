//! The files that the user wrote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::output::Output;
use crate::up::env_file;
use crate::up::error::UpError;
use crate::up::formation::{self, Formation};
use crate::up::procfile::{Procfile, TypeName};
use crate::up::settings::UpSettings;
use tcpgw_core::words::count;

/// Default port that processes listen on.
const PORT: &str = "5000";

/// Maximum number of ignored or ambiguous lines that are reported one by one.
const MOST_REMARKS: usize = 20;

/// Contents of the files.
pub(super) struct Files {
    pub(super) directory: PathBuf,
    pub(super) procfile: Procfile,
    pub(super) formation: Formation,
    pub(super) variables: BTreeMap<String, String>,
    /// Reports about lines of files of variables that are ignored, or ambiguous.
    remarks: Vec<String>,
    pub(super) port: u16,
}

impl Files {
    /// Prints which lines are ignored or ambiguous.
    pub(super) fn show_remarks(&self, output: &Output) {
        let ignored = self.procfile.ignored.iter();
        let ignored = ignored.map(|line| format!("Procfile, line {line}: ignored, because it is not NAME: COMMAND"));
        for words in ignored.chain(self.remarks.iter().take(MOST_REMARKS).cloned()) {
            output.say("system", &words);
        }
        if self.remarks.len() > MOST_REMARKS {
            let more = self.remarks.len() - MOST_REMARKS;
            let are = if more == 1 { "is" } else { "are" };
            output.say(
                "system",
                &format!("{} {are} ignored or ambiguous", count(more, "more line")),
            );
        }
    }

    pub(super) fn read(settings: &UpSettings<'_>) -> Result<Self, UpError> {
        let file = &settings.procfile;
        let directory = directory_of(file)?;
        let text = read_text(file)?;
        let procfile = Procfile::parse(&text).map_err(|error| UpError::Procfile {
            file: file.clone(),
            error,
        })?;
        let names: Vec<TypeName> = procfile.types.iter().map(|one| one.name.clone()).collect();
        let one_of_each = ["all=1".to_owned()];
        let words = if settings.formation.is_empty() {
            &one_of_each[..]
        } else {
            &settings.formation
        };
        let formation = formation::parse(words.iter().map(String::as_str), &names, &Formation::new())?;
        let (mut variables, mut remarks) = (BTreeMap::new(), Vec::new());
        let beside = directory.join(".env");
        let env_files = match &settings.env_files {
            Some(files) => files.clone(),
            None if beside.exists() => vec![beside],
            None => Vec::new(),
        };
        for file in env_files {
            let found = env_file::parse(&read_text(&file)?).map_err(|error| UpError::EnvFile {
                file: file.clone(),
                error,
            })?;
            let name = tcpgw_core::escape::path(&file);
            let numbered = found.remarks.iter();
            remarks.extend(numbered.map(|(line, what)| format!("{name}, line {line}: {what}")));
            variables.extend(found.variables);
        }
        let port = variables.get("PORT").cloned().or_else(|| std::env::var("PORT").ok());
        let port = port.unwrap_or_else(|| PORT.into());
        let number = port.parse().ok().filter(|port: &u16| *port > 0);
        let number = number.ok_or_else(|| UpError::Usage(format!("PORT is {port:?}, and must be 1 to 65535")))?;
        variables.insert("PORT".into(), port);
        Ok(Self {
            directory,
            procfile,
            formation,
            variables,
            remarks,
            port: number,
        })
    }
}

/// Returns the directory of a Procfile, absolute and without links.
pub(crate) fn directory_of(procfile: &Path) -> Result<PathBuf, UpError> {
    let parent = match procfile.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let name = tcpgw_core::escape::path(parent);
    let directory = std::fs::canonicalize(parent)
        .map_err(|error| UpError::Usage(format!("failed to find the directory {name}: {error}")))?;
    match directory.to_str() {
        Some(_) => Ok(directory),
        None => Err(UpError::Usage(format!(
            "the name of the directory {name} must be UTF-8"
        ))),
    }
}

fn read_text(file: &Path) -> Result<String, UpError> {
    let name = tcpgw_core::escape::path(file);
    let wrong = |why: &dyn std::fmt::Display| UpError::Usage(format!("failed to read {name}: {why}"));
    let size = std::fs::metadata(file).map_err(|error| wrong(&error))?;
    if !size.is_file() {
        return Err(wrong(&"it is no regular file"));
    }
    if size.len() > env_file::MAX_SIZE {
        return Err(wrong(&format!("it has more than {} bytes", env_file::MAX_SIZE)));
    }
    let bytes = std::fs::read(file).map_err(|error| wrong(&error))?;
    String::from_utf8(bytes).map_err(|_| wrong(&"it must be UTF-8"))
}
