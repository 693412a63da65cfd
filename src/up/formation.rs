//! Number of instances of each process type: `tcp=2,web=1`, `all=1`.

use std::collections::BTreeMap;

use thiserror::Error;

use super::procfile::TypeName;

/// Maximum number of instances of one type.
pub const MAX_INSTANCES: u32 = 32;
/// Maximum number of instances of all types. While they are restarted there are twice as many, in a network of 253 addresses.
pub const MAX_TOTAL: u32 = 100;

/// Reason why a text is no formation.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormationError {
    /// The text is not `NAME=NUMBER`.
    #[error("{0:?} is not TYPE=NUMBER, such as tcp=2 or all=1")]
    Form(String),
    /// The number is invalid, or too large.
    #[error("{0:?}: the number must be 0 to {MAX_INSTANCES}")]
    Number(String),
    /// The Procfile has no such type.
    #[error("the Procfile has no process type {name:?}; it has {known}")]
    Unknown {
        /// Name in the formation.
        name: String,
        /// Names of the process types that exist.
        known: String,
    },
    /// The total number of instances is too large.
    #[error("{0} processes in total are too many: at most {MAX_TOTAL} are allowed")]
    Total(u32),
}

/// The number of instances by type.
pub type Formation = BTreeMap<TypeName, u32>;

/// Reads the numbers of instances of types; `all` stands for each type that is not named. Types without a number keep
/// that of `before`, or 0.
///
/// # Errors
/// Fails with [`FormationError`] when a text is not `NAME=NUMBER`, names an unknown type, or a number is too large.
pub fn parse<'t>(
    words: impl IntoIterator<Item = &'t str>,
    types: &[TypeName],
    before: &Formation,
) -> Result<Formation, FormationError> {
    let mut named = Formation::new();
    let mut all = None;
    let pairs = words.into_iter().flat_map(|word| word.split(','));
    for pair in pairs.map(str::trim).filter(|pair| !pair.is_empty()) {
        let excerpt = || pair.chars().take(80).collect::<String>();
        let (name, number) = pair.split_once('=').ok_or_else(|| FormationError::Form(excerpt()))?;
        let number: u32 = number.trim().parse().map_err(|_| FormationError::Number(excerpt()))?;
        if number > MAX_INSTANCES {
            return Err(FormationError::Number(excerpt()));
        }
        match types.iter().find(|known| known.as_str() == name.trim()) {
            Some(name) => drop(named.insert(name.clone(), number)),
            None if name.trim() == "all" => all = Some(number),
            None => {
                let known: Vec<&str> = types.iter().map(TypeName::as_str).collect();
                return Err(FormationError::Unknown {
                    name: name.trim().chars().take(80).collect(),
                    known: known.join(", "),
                });
            }
        }
    }
    let number = |name: &TypeName| {
        let named = named.get(name).copied().or(all);
        named.unwrap_or_else(|| before.get(name).copied().unwrap_or_default())
    };
    let formation: Formation = types.iter().map(|name| (name.clone(), number(name))).collect();
    match formation.values().sum() {
        total if total > MAX_TOTAL => Err(FormationError::Total(total)),
        _ => Ok(formation),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types() -> Vec<TypeName> {
        ["web", "tcp"].map(|name| TypeName::new(name).unwrap()).to_vec()
    }

    fn read(text: &str) -> Result<Vec<u32>, String> {
        let formation = parse([text], &types(), &Formation::new()).map_err(|error| error.to_string())?;
        Ok(types().iter().map(|name| formation[name]).collect())
    }

    #[test]
    fn numbers_are_by_type() {
        assert_eq!(read("all=1"), Ok(vec![1, 1]));
        assert_eq!(read("tcp=2"), Ok(vec![0, 2]), "as foreman has it");
        assert_eq!(read(" all=3 , web = 0"), Ok(vec![0, 3]));
        let before = parse(["all=1"], &types(), &Formation::new()).unwrap();
        let after = parse(["tcp=2"], &types(), &before).unwrap();
        assert_eq!(after.into_values().collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, message) in [
            ("tcp", "is not TYPE=NUMBER"),
            ("tcp=x", "must be 0 to 32"),
            ("tcp=-1", "must be 0 to 32"),
            ("tcp=33", "must be 0 to 32"),
            ("udp=1", "no process type \"udp\"; it has web, tcp"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
        let many: Vec<TypeName> = (0..4).map(|at| TypeName::new(&format!("p{at}")).unwrap()).collect();
        assert_eq!(
            parse(["all=32"], &many, &Formation::new()),
            Err(FormationError::Total(128))
        );
    }
}
