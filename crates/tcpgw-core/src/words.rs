//! Words for people that messages of the whole program share: numbers with their nouns, and lists that end in time.

use std::fmt::Display;

/// Returns a number with its noun, in the plural unless the number is 1: `1 backend`, `2 addresses`.
pub fn count<N: Copy + Display + PartialEq + From<u8>>(number: N, what: &str) -> String {
    if number == N::from(1) {
        format!("{number} {what}")
    } else {
        format!("{number} {}", plural(what))
    }
}

/// Returns the first items, and the number of further ones: `a, b, c and 7 more`.
pub fn first_and_more<T: Display>(items: impl IntoIterator<Item = T>, most: usize) -> String {
    let mut items = items.into_iter();
    let first: Vec<String> = items.by_ref().take(most).map(|item| item.to_string()).collect();
    let first = first.join(", ");
    match items.count() {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn plural(what: &str) -> String {
    let is_vowel = |c: char| "aeiou".contains(c);
    match what.strip_suffix('y') {
        Some(stem) if !stem.ends_with(is_vowel) => format!("{stem}ies"),
        _ if ["s", "x", "z", "ch", "sh"].iter().any(|end| what.ends_with(end)) => format!("{what}es"),
        _ => format!("{what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_follow_their_number() {
        assert_eq!(count(1, "backend"), "1 backend");
        assert_eq!(count(2, "address"), "2 addresses");
        assert_eq!(count(0_u64, "reply"), "0 replies");
        assert_eq!(count(3, "day"), "3 days");
    }

    #[test]
    fn a_list_names_the_first_and_counts_the_others() {
        assert_eq!(first_and_more(["a"; 0], 2), "");
        assert_eq!(first_and_more(["a", "b"], 2), "a, b");
        assert_eq!(first_and_more([1, 2, 3, 4], 2), "1, 2 and 2 more");
    }
}
