//! Text in several lines of a terminal.

use unicode_width::UnicodeWidthStr as _;

/// Breaks a text between words, so that its lines have at most `width` columns. The first line begins behind `first` spaces, the others
/// behind `indent`. A word that is longer than a line, and a command between backticks, stay whole: people copy them.
pub(in crate::cli) fn wrap(text: &str, first: usize, indent: usize, width: usize) -> String {
    let mut lines = " ".repeat(first);
    let (mut used, mut is_begun) = (first, false);
    for word in words(text) {
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

/// Returns the words of a text. What stands between backticks is part of one word.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut is_command = false;
    let is_gap = move |letter: char| {
        is_command ^= letter == '`';
        letter == ' ' && !is_command
    };
    text.split(is_gap).filter(|word| !word.is_empty())
}

/// Returns a text that stands behind a label of `label` columns, broken like [`wrap`] where a terminal is that narrow; its further lines
/// begin behind `indent` spaces.
pub(in crate::cli) fn after(label: usize, text: &str, indent: usize, width: Option<usize>) -> String {
    match width {
        Some(width) => wrap(text, label, indent, width).split_off(label),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands_stay_whole() {
        assert_eq!(
            wrap("say `tcpgw status -o wide` now", 0, 2, 8),
            "say\n  `tcpgw status -o wide`\n  now"
        );
        assert_eq!(wrap("one` two three", 0, 0, 4), "one` two three");
    }

    #[test]
    fn a_text_behind_a_label_is_broken_on_a_terminal_only() {
        assert_eq!(after(7, "one two three", 2, Some(14)), "one two\n  three");
        assert_eq!(after(7, "one  two three", 2, None), "one  two three");
        assert_eq!(after(7, "", 2, Some(3)), "");
    }

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
