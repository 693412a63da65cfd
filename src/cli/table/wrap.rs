//! Text in several lines of a terminal.

use unicode_width::UnicodeWidthStr as _;

/// Breaks a text between words, so that its lines have at most `width` columns. The first line begins behind `first` spaces, the others
/// behind `indent`. A word that is longer than a line stands in one of its own, and keeps its length: people copy it.
pub(in crate::cli) fn wrap(text: &str, first: usize, indent: usize, width: usize) -> String {
    let mut lines = " ".repeat(first);
    let (mut used, mut is_begun) = (first, false);
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let needed = word.width();
        if is_begun && used + 1 + needed > width {
            lines.push('\n');
            lines.push_str(&" ".repeat(indent));
            used = indent;
        } else if is_begun {
            lines.push(' ');
            used += 1;
        }
        lines.push_str(word);
        used += needed;
        is_begun = true;
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_break_between_words_only() {
        assert_eq!(wrap("a bc def", 0, 2, 80), "a bc def");
        assert_eq!(wrap("a bc def", 2, 4, 8), "  a bc\n    def");
        assert_eq!(wrap("a much-too-long-word b", 0, 2, 10), "a\n  much-too-long-word\n  b");
        assert_eq!(wrap("", 3, 3, 10), "   ");
    }

    proptest! {
        #[test]
        fn no_word_is_lost_and_lines_are_no_longer_than_a_word_makes_them(text in "[a-z ]{0,80}", indent in 0..6_usize, width in 0..40_usize) {
            let wrapped = wrap(&text, indent, indent, width);
            prop_assert_eq!(wrapped.split_whitespace().collect::<Vec<_>>(), text.split_whitespace().collect::<Vec<_>>());
            for line in wrapped.lines() {
                prop_assert!(line.width() <= width || line.split_whitespace().count() <= 1, "{:?}", line);
            }
        }
    }
}
