//! Single values: numbers, strings, words, durations.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::model::duration;
use crate::model::json::Json;
use crate::model::problem::{InputProblems, JsonPath};
use crate::model::word::Word;

/// Reads a whole number in a range.
pub(super) fn number(
    range: RangeInclusive<u32>,
) -> impl FnOnce(&Json, &JsonPath<'_>, &mut InputProblems) -> Option<u32> {
    move |json, place, problems| {
        let number = match json {
            Json::Unsigned(value) => u32::try_from(*value).ok().filter(|value| range.contains(value)),
            _ => None,
        };
        if number.is_none() {
            let whole = if matches!(json, Json::Float(_)) { "whole " } else { "" };
            let (least, most) = range.into_inner();
            problems.add(
                place,
                format_args!("must be a {whole}number from {least} to {most}, not {json}"),
            );
        }
        number
    }
}

/// Reads a whole number from 1 up to `most`.
pub(super) fn positive<T: TryFrom<std::num::NonZeroU16>>(
    most: u16,
) -> impl FnOnce(&Json, &JsonPath<'_>, &mut InputProblems) -> Option<T> {
    move |json, place, problems| {
        let value = number(1..=u32::from(most))(json, place, problems)?;
        u16::try_from(value)
            .ok()
            .and_then(std::num::NonZeroU16::new)
            .and_then(|value| value.try_into().ok())
    }
}

/// Returns a string, or reports that the value is not `what`.
pub(super) fn string<'j>(
    json: &'j Json,
    what: &str,
    place: &JsonPath<'_>,
    problems: &mut InputProblems,
) -> Option<&'j str> {
    if let Json::String(text) = json {
        return Some(text);
    }
    problems.add(place, format_args!("must be {what}, not {json}"));
    None
}

/// Returns the items of a list, or reports that the value is not a list of `what`.
pub(super) fn list<'j>(
    json: &'j Json,
    what: &str,
    place: &JsonPath<'_>,
    problems: &mut InputProblems,
) -> Option<&'j [Json]> {
    if let Json::List(items) = json {
        return Some(items);
    }
    problems.add(place, format_args!("must be a list of {what}, not {json}"));
    None
}

/// Reads one of the words of an enum.
pub(super) fn word<W: Word>(json: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) -> Option<W> {
    let found = match json {
        Json::String(text) => W::WORDS
            .iter()
            .find(|(word, _)| word == text)
            .map(|(_, choice)| *choice),
        _ => None,
    };
    if found.is_none() {
        let words: Vec<&str> = W::WORDS.iter().map(|(word, _)| *word).collect();
        problems.add(place, format_args!("must be {}, not {json}", words.join(" or ")));
    }
    found
}

/// Reads a duration in a range.
pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl FnOnce(&Json, &JsonPath<'_>, &mut InputProblems) -> Option<Duration> {
    move |json, place, problems| {
        let text = string(json, "a duration like \"500ms\", \"30s\" or \"5m\"", place, problems)?;
        match duration::parse(text) {
            Ok(value) if range.contains(&value) => return Some(value),
            Ok(_) => {
                let (least, most) = (duration::show(*range.start()), duration::show(*range.end()));
                problems.add(
                    place,
                    format_args!("must be a duration from {least} to {most}, not {json}"),
                );
            }
            Err(error) => problems.add(place, format_args!("{error}, not {json}")),
        }
        None
    }
}
