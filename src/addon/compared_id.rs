//! Comparison of platforms' ids: by their letters, or as UUIDs, which are the same in upper and lower case.

use super::id::{Guid, PlatformId};
use super::resource::Dialect;

/// An id in the form in which it is compared: ids of a dialect name the same thing if their forms are equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ComparedId(Box<str>);

impl ComparedId {
    /// Returns the form of an id of that dialect.
    pub(super) fn new(dialect: Dialect, id: &PlatformId) -> Self {
        Self::of_uuid(dialect, id).unwrap_or_else(|| Self(id.as_str().into()))
    }

    /// Returns the form of an id that is a UUID in that dialect; `None`: the id is compared by its letters.
    pub(super) fn of_uuid(dialect: Dialect, id: &PlatformId) -> Option<Self> {
        is_uuid(dialect, id).then(|| Self(id.as_str().to_ascii_lowercase().into()))
    }

    /// Returns whether two ids of that dialect name the same thing.
    pub(super) fn are_same(dialect: Dialect, one: &PlatformId, other: &PlatformId) -> bool {
        one == other || one.as_str().eq_ignore_ascii_case(other.as_str()) && is_uuid(dialect, one)
    }
}

/// Returns whether an id is a UUID, which is compared without regard to case (RFC 9562, section 4). The ids of Open Service Broker and
/// Clever Cloud are texts without a meaning, also those that look like a UUID.
fn is_uuid(dialect: Dialect, id: &PlatformId) -> bool {
    let has_uuids = match dialect {
        Dialect::Heroku | Dialect::Scalingo => true,
        Dialect::Osb | Dialect::CleverCloud | Dialect::Local => false,
    };
    has_uuids && id.as_str().parse::<Guid>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcpgw_core::model::Word as _;

    #[test]
    fn uuids_are_the_same_in_upper_and_lower_case() {
        let id = |text: &str| text.parse::<PlatformId>().unwrap();
        let lower = id("5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c11");
        let (upper, mixed) = (
            id("5F0E3BD2-8F0C-4A5E-9F6F-0D2F6A4A1C11"),
            id("5f0e3bd2-8F0C-4a5e-9F6F-0d2f6a4a1C11"),
        );
        for (word, dialect) in Dialect::WORDS {
            let has_uuids = ["heroku", "scalingo"].contains(word);
            for other in [&upper, &mixed] {
                assert_eq!(ComparedId::are_same(*dialect, &lower, other), has_uuids, "{word}");
                let is_equal = ComparedId::new(*dialect, &lower) == ComparedId::new(*dialect, other);
                assert_eq!(is_equal, has_uuids, "{word}");
            }
            assert_eq!(ComparedId::of_uuid(*dialect, &upper).is_some(), has_uuids, "{word}");
            // Other texts are compared by their letters in every dialect.
            for (one, other) in [("my-app", "My-App"), ("5f0e3bd2-8f0c", "5F0E3BD2-8F0C")] {
                let (one, other) = (id(one), id(other));
                assert!(!ComparedId::are_same(*dialect, &one, &other), "{word}");
                assert_ne!(
                    ComparedId::new(*dialect, &one),
                    ComparedId::new(*dialect, &other),
                    "{word}"
                );
                assert!(ComparedId::are_same(*dialect, &one, &one), "{word}");
            }
        }
    }
}
