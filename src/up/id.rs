//! Names of an app's objects: links, tables, files and the add-on's app are all derived from one short id.

use std::fmt;
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// Maximum number of characters of a directory's name in the name of an app.
const MAX_WORD: usize = 40;

/// Identity of an app: its directory and its network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppId {
    number: u32,
    word: String,
}

impl AppId {
    /// Returns the id of the app of a directory, which is absolute and without links, in the network namespace with that cookie.
    pub fn of(directory: &Path, namespace: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(namespace.to_le_bytes());
        hash.update(directory.as_os_str().as_encoded_bytes());
        let number = hash
            .finalize()
            .first_chunk()
            .map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let word = name
            .chars()
            .map(|c| if is_plain(c) { c } else { '-' })
            .take(MAX_WORD)
            .collect();
        Self { number, word }
    }

    /// Returns the app whose things have this id in their names, in digits. Its directory is not known.
    pub fn of_digits(digits: &str) -> Option<Self> {
        let number = u32::from_str_radix(digits, 16).ok()?;
        let app = Self {
            number,
            word: String::new(),
        };
        (app.to_string() == digits).then_some(app)
    }

    /// Returns the id, in digits, at the end of the name of an add-on's app, if it is a name as [`app`](Self::app) makes it.
    pub fn in_app(app: &str) -> Option<&str> {
        let (word, id) = app.strip_prefix("up-")?.rsplit_once('-')?;
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (!word.is_empty() && id.len() == 8 && id.bytes().all(is_digit)).then_some(id)
    }

    /// Returns the id as a number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Returns the name of the add-on's app: for people, and safe in paths.
    pub fn app(&self) -> String {
        let word = if self.word.is_empty() { "app" } else { &self.word };
        format!("up-{word}-{self}")
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_a_directory_in_a_namespace() {
        let of = |path: &str, namespace| AppId::of(Path::new(path), namespace);
        assert_eq!(of("/a/b", 1), of("/a/b", 1));
        assert_ne!(of("/a/b", 1), of("/a/b", 2));
        assert_ne!(of("/a/b", 1), of("/b/b", 1));
        let id = of("/home/me/my app\n", 1);
        let again = AppId::of_digits(&id.to_string()).unwrap();
        assert_eq!((again.number(), again.to_string()), (id.number(), id.to_string()));
        for other in ["", "0123ABCD", "123abcd", "+123abcd", "0123abcdef"] {
            assert_eq!(AppId::of_digits(other), None, "{other}");
        }
        assert_eq!(id.app(), format!("up-my-app--{id}"));
        assert_eq!(id.to_string().len(), 8);
        assert_eq!(AppId::in_app(&id.app()), Some(&*id.to_string()));
        for other in [
            "up-0123abcd",
            "up--0123abcd",
            "up-a-0123abc",
            "up-a-0123ABCD",
            "a-0123abcd",
            "up-to-date-9",
        ] {
            assert_eq!(AppId::in_app(other), None, "{other}");
        }
        assert!(id.app().parse::<crate::addon::id::PlatformId>().is_ok());
        assert!(of("/", 1).app().starts_with("up-app-"));
    }
}
