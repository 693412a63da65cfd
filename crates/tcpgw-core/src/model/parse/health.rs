//! Settings of probes.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::fields::Fields;
use super::value;
use crate::hex;
use crate::model::json::Json;
use crate::model::problem::{InputProblems, JsonPath};
use crate::model::{ByteEncoding, ExpectedStatus, HealthSettings, HttpQuestion, ProbeExchange, ProbeQuestion};

const MAX_STREAK: u16 = 1000;
const PROBE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);
/// Largest length of a path, in bytes.
const MAX_PATH: usize = 1024;
/// Largest length of a host name with a port, in bytes.
const MAX_HOST: usize = 261;
/// Largest number of bytes that a probe sends or expects.
const MAX_BYTES: usize = 1024;
const STATUS: RangeInclusive<u32> = 100..=599;

pub(super) fn read(json: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) -> Option<HealthSettings> {
    let known = &["interval", "timeout", "rise", "fall", "http", "expect"];
    let fields = Fields::of(json, place, known, problems)?;
    let default = HealthSettings::default();
    let interval = fields.or("interval", default.interval, problems, |json, place, problems| {
        value::duration(PROBE)(json, place, problems).map(Some)
    });
    let timeout = fields.or("timeout", default.timeout, problems, value::duration(PROBE));
    let rise = fields.or("rise", default.rise, problems, value::positive(MAX_STREAK));
    let fall = fields.or("fall", default.fall, problems, value::positive(MAX_STREAK));
    let http = fields.or("http", None, problems, |json, place, problems| {
        http(json, place, problems).map(Some)
    });
    let expect = fields.or("expect", None, problems, |json, place, problems| {
        exchange(json, place, problems).map(Some)
    });
    let question = match (http?, expect?) {
        (Some(_), Some(_)) => {
            problems.add(
                place,
                "has http and expect: a probe asks one question; remove one of them",
            );
            return None;
        }
        (http, expect) => http.map(ProbeQuestion::Http).or(expect.map(ProbeQuestion::Expect)),
    };
    Some(HealthSettings {
        interval: interval?,
        timeout: timeout?,
        rise: rise?,
        fall: fall?,
        question: question.map(Arc::new),
    })
}

fn http(json: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) -> Option<HttpQuestion> {
    let fields = Fields::of(json, place, &["path", "host", "status"], problems)?;
    let path = fields.required("path", problems, path);
    let host = fields.or("host", None, problems, |json, place, problems| {
        host(json, place, problems).map(Some)
    });
    let status = fields.or("status", ExpectedStatus::DEFAULT, problems, status);
    Some(HttpQuestion {
        path: path?,
        host: host?,
        status: status?,
    })
}

/// Reads a path with a query (RFC 9112, section 3.2.1). Whatever could end the request's line is refused.
fn path(json: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) -> Option<Box<str>> {
    let text = value::string(json, "a path like \"/healthz\"", place, problems)?;
    let is_good = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !is_good || text.len() > MAX_PATH {
        problems.add(
            place,
            format_args!(
                "must be a path that begins with / and has at most {MAX_PATH} printable ASCII characters without spaces and #, not {json}"
            ),
        );
        return None;
    }
    Some(text.into())
}

fn host(json: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) -> Option<Box<str>> {
    let text = value::string(json, "a host name like \"app.example.com\"", place, problems)?;
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if text.is_empty() || text.len() > MAX_HOST || !text.bytes().all(is_good) {
        problems.add(
            place,
            format_args!("must be a host name, or an address, of at most {MAX_HOST} characters, not {json}"),
        );
        return None;
    }
    Some(text.into())
}

/// Reads a status code, or a range like `"200-299"`.
fn status(json: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) -> Option<ExpectedStatus> {
    let code = |code: u32| u16::try_from(code).ok().filter(|_| STATUS.contains(&code));
    let range = match json {
        Json::Unsigned(one) => u32::try_from(*one).ok().and_then(code).map(|one| (one, one)),
        Json::String(text) => text.split_once('-').and_then(|(first, last)| {
            let number = |text: &str| {
                let is_number = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
                text.parse().ok().filter(|_| is_number).and_then(code)
            };
            number(first).zip(number(last))
        }),
        _ => None,
    };
    let Some((first, last)) = range.filter(|(first, last)| first <= last) else {
        const EXPECTED: &str = "must be a status code from 100 to 599, or a range like \"200-299\"";
        match json {
            Json::String(text) if text.parse().ok().and_then(code).is_some() => {
                problems.add(
                    place,
                    format_args!("{EXPECTED}: a single code is a number, without quotes: {text}"),
                );
            }
            _ => problems.add(place, format_args!("{EXPECTED}, not {json}")),
        }
        return None;
    };
    Some(ExpectedStatus { first, last })
}

fn exchange(json: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) -> Option<ProbeExchange> {
    let fields = Fields::of(json, place, &["send", "expect", "encoding"], problems)?;
    let encoding = fields.or("encoding", ByteEncoding::Text, problems, value::word)?;
    let send = fields.or("send", Box::default(), problems, bytes(encoding));
    let expect = fields.required("expect", problems, |json, place, problems| {
        let expect = bytes(encoding)(json, place, problems)?;
        if expect.is_empty() {
            problems.add(place, "must not be empty: any answer would be right");
            return None;
        }
        Some(expect)
    });
    Some(ProbeExchange {
        send: send?,
        expect: expect?,
    })
}

/// Reads bytes that are written as text or as hexadecimal digits.
fn bytes(encoding: ByteEncoding) -> impl FnOnce(&Json, &JsonPath<'_>, &mut InputProblems) -> Option<Box<[u8]>> {
    move |json, place, problems| {
        let text = value::string(json, "a string", place, problems)?;
        let bytes = match encoding {
            ByteEncoding::Text => Some(text.as_bytes().to_vec()),
            ByteEncoding::Hex => of_hex(text),
        };
        let Some(bytes) = bytes else {
            problems.add(
                place,
                format_args!("must be pairs of hexadecimal digits like \"10 0c 00 04\", not {json}"),
            );
            return None;
        };
        if bytes.len() > MAX_BYTES {
            problems.add(
                place,
                format_args!("must be at most {MAX_BYTES} bytes, not {}", bytes.len()),
            );
            return None;
        }
        Some(bytes.into())
    }
}

/// Returns the bytes of hexadecimal digits; spaces may stand between bytes.
fn of_hex(text: &str) -> Option<Vec<u8>> {
    let words = text.split(' ').map(hex::bytes);
    words.collect::<Option<Vec<_>>>().map(|words| words.concat())
}
