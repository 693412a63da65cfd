//! Words that stand for the variants of a state's enums.

use super::{BackendState, Balance, ByteEncoding, LimitDirection, PacketRefusal, SourceMode};

/// An enum whose variants are written as words, in state files and in output.
pub trait Word: Copy + PartialEq + 'static {
    /// Every variant with its word.
    const WORDS: &'static [(&'static str, Self)];

    /// Returns the word of this variant.
    fn word(self) -> &'static str {
        Self::WORDS
            .iter()
            .find(|(_, choice)| *choice == self)
            .map_or("", |(word, _)| word)
    }
}

impl Word for BackendState {
    const WORDS: &'static [(&'static str, Self)] = &[("active", Self::Active), ("draining", Self::Draining)];
}

impl Word for Balance {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("client-hash", Self::ClientHash),
        ("random", Self::Random),
        ("source-hash", Self::SourceHash),
        ("round-robin", Self::RoundRobin),
    ];
}

impl Word for ByteEncoding {
    const WORDS: &'static [(&'static str, Self)] = &[("text", Self::Text), ("hex", Self::Hex)];
}

impl Word for LimitDirection {
    const WORDS: &'static [(&'static str, Self)] = &[("each", Self::Each), ("shared", Self::Shared)];
}

impl Word for PacketRefusal {
    const WORDS: &'static [(&'static str, Self)] = &[("drop", Self::Drop), ("reset", Self::Reset)];
}

impl Word for SourceMode {
    const WORDS: &'static [(&'static str, Self)] = &[("masquerade", Self::Masquerade), ("preserve", Self::Preserve)];
}
