//! Questions of probes: the bytes to send after the handshake, and the judgement of the answer.
//!
//! A probe reads at most [`MAX_ANSWER`] bytes and follows no redirect.

use std::net::SocketAddr;

use super::machine::AnswerFault;
use crate::model::{ExpectedStatus, ProbeQuestion};

/// Maximum number of bytes of an answer that are read.
pub const MAX_ANSWER: usize = 4096;
/// Maximum length of a status line's part before its reason: `HTTP/1.1 200`.
const STATUS: usize = 12;

impl ProbeQuestion {
    /// Returns the bytes to send after the handshake; empty if the backend speaks first.
    pub fn request(&self, endpoint: SocketAddr) -> Vec<u8> {
        match self {
            Self::Http(http) => {
                let endpoint = endpoint.to_string();
                let host = http.host.as_deref().unwrap_or(&endpoint);
                format!(
                    "GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tcpgw\r\nAccept: */*\r\nConnection: close\r\n\r\n",
                    http.path
                )
                .into_bytes()
            }
            Self::Expect(exchange) => exchange.send.to_vec(),
        }
    }

    /// Judges an answer by its first bytes, at most [`MAX_ANSWER`]. Returns `None` while more bytes are needed.
    /// `has_ended` tells whether the backend has closed the connection.
    pub fn judge(&self, answer: &[u8], has_ended: bool) -> Option<Result<(), AnswerFault>> {
        let is_over = has_ended || answer.len() >= MAX_ANSWER;
        match self {
            Self::Http(http) => http_verdict(answer, http.status, is_over),
            Self::Expect(exchange) if contains(answer, &exchange.expect) => Some(Ok(())),
            Self::Expect(_) if answer.is_empty() => is_over.then_some(Err(AnswerFault::Closed)),
            Self::Expect(_) => is_over.then_some(Err(AnswerFault::Other)),
        }
    }
}

/// Judges an answer of HTTP/1, or its first bytes if it `is_over`. Interim answers (1xx), which any server may send before its final
/// one (RFC 9110, section 15.2), are skipped unless they are expected; if no other answer follows, the last of them is it.
fn http_verdict(answer: &[u8], expected: ExpectedStatus, is_over: bool) -> Option<Result<(), AnswerFault>> {
    let (mut rest, mut interim) = (answer, None);
    loop {
        let fault = match status_of(rest) {
            Some(Ok(status)) if expected.contains(status) => return Some(Ok(())),
            Some(Ok(status @ 100..=199)) => {
                interim = Some(status);
                match after_head(rest) {
                    Some(next) => {
                        rest = next;
                        continue;
                    }
                    None => AnswerFault::Status(status),
                }
            }
            Some(Ok(status)) => return Some(Err(AnswerFault::Status(status))),
            Some(Err(fault)) => return Some(Err(fault)),
            None if answer.is_empty() => AnswerFault::Closed,
            None => interim.map_or(AnswerFault::NotHttp, AnswerFault::Status),
        };
        return is_over.then_some(Err(fault));
    }
}

/// Returns what follows the empty line at the end of a head; `None` while that has not come.
fn after_head(answer: &[u8]) -> Option<&[u8]> {
    let lines = answer.split_inclusive(|byte| *byte == b'\n');
    let head = lines
        .take_while(|line| **line != *b"\n" && **line != *b"\r\n")
        .map(<[u8]>::len)
        .sum::<usize>();
    let rest = answer.get(head..)?;
    rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n"))
}

/// Returns the status in the beginning of an answer of HTTP/1 (RFC 9112, section 4); `None` while it is too short.
fn status_of(answer: &[u8]) -> Option<Result<u16, AnswerFault>> {
    const PREFIX: &[u8] = b"HTTP/1.";
    let begin = answer.get(..PREFIX.len()).unwrap_or(answer);
    if !PREFIX.starts_with(begin) {
        return Some(Err(AnswerFault::NotHttp));
    }
    let head = answer.get(..STATUS)?;
    let [_, _, _, _, _, _, _, minor, b' ', digits @ ..] = head else {
        return Some(Err(AnswerFault::NotHttp));
    };
    // One more byte tells whether the number has ended.
    let is_number = minor.is_ascii_digit() && digits.iter().all(u8::is_ascii_digit);
    if !is_number || !matches!(answer.get(STATUS)?, b' ' | b'\r' | b'\n') {
        return Some(Err(AnswerFault::NotHttp));
    }
    let status = digits.iter();
    Some(Ok(
        status.fold(0, |number: u16, digit| number * 10 + u16::from(digit - b'0'))
    ))
}

fn contains(answer: &[u8], part: &[u8]) -> bool {
    part.is_empty() || answer.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{HttpQuestion, ProbeExchange};

    fn http(first: u16, last: u16) -> ProbeQuestion {
        ProbeQuestion::Http(HttpQuestion {
            path: "/healthz".into(),
            host: None,
            status: ExpectedStatus { first, last },
        })
    }

    fn expect(send: &[u8], expect: &[u8]) -> ProbeQuestion {
        ProbeQuestion::Expect(ProbeExchange {
            send: send.into(),
            expect: expect.into(),
        })
    }

    #[test]
    fn a_request_names_the_host() {
        let at = "[fd00::1]:80".parse().unwrap();
        let text = String::from_utf8(http(200, 200).request(at)).unwrap();
        assert!(
            text.starts_with("GET /healthz HTTP/1.1\r\nHost: [fd00::1]:80\r\n"),
            "{text}"
        );
        assert!(text.ends_with("\r\n\r\n"), "{text}");
        let named = ProbeQuestion::Http(HttpQuestion {
            path: "/".into(),
            host: Some("app.example.com".into()),
            status: ExpectedStatus { first: 200, last: 200 },
        });
        let text = String::from_utf8(named.request(at)).unwrap();
        assert!(text.contains("\r\nHost: app.example.com\r\n"), "{text}");
        assert_eq!(expect(b"PING\r\n", b"+PONG").request(at), b"PING\r\n");
    }

    #[test]
    fn a_status_is_within_the_range_or_not() {
        let judge = |answer: &str| http(200, 399).judge(answer.as_bytes(), false);
        for good in [
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.0 204\r\n",
            "HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\n\r\n",
        ] {
            assert_eq!(judge(good), Some(Ok(())), "{good}");
        }
        for (bad, status) in [
            ("HTTP/1.1 503 Unavailable\r\n", 503),
            ("HTTP/1.1 400 \r\n", 400),
            ("HTTP/1.1 099 x", 99),
        ] {
            assert_eq!(judge(bad), Some(Err(AnswerFault::Status(status))), "{bad}");
        }
        for other in [
            "SSH-2.0-OpenSSH",
            "HTTP/2 200",
            "HTTP/1.1 2000 OK",
            "HTTP/1.1 20x OK",
            "HTTP/1.1\t200 OK",
            "HTTP/1.x 200 OK",
            "220 mail",
        ] {
            assert_eq!(judge(other), Some(Err(AnswerFault::NotHttp)), "{other}");
        }
        for short in ["", "H", "HTTP/1.1 20", "HTTP/1.1 200"] {
            assert_eq!(judge(short), None, "{short}");
        }
        let ended = |answer: &str| http(200, 399).judge(answer.as_bytes(), true);
        assert_eq!(ended(""), Some(Err(AnswerFault::Closed)));
        assert_eq!(ended("HTTP/1.1 20"), Some(Err(AnswerFault::NotHttp)));
    }

    /// The final answer counts, however many interim ones come before it.
    #[test]
    fn interim_answers_are_skipped() {
        let judge = |answer: &str, has_ended| http(200, 399).judge(answer.as_bytes(), has_ended);
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
        for before in [
            interim,
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 199 x\n\n",
            &interim.repeat(5),
        ] {
            assert_eq!(
                judge(&format!("{before}HTTP/1.1 200 OK\r\n"), false),
                Some(Ok(())),
                "{before}"
            );
            let failing = judge(&format!("{before}HTTP/1.1 503 No\r\n"), false);
            assert_eq!(failing, Some(Err(AnswerFault::Status(503))), "{before}");
            let other = judge(&format!("{before}SSH-2.0-OpenSSH"), false);
            assert_eq!(other, Some(Err(AnswerFault::NotHttp)), "{before}");
            for end in 13..before.len() {
                assert_eq!(judge(&before[..end], false), None, "{before}");
            }
        }
        assert_eq!(judge(interim, true), Some(Err(AnswerFault::Status(103))));
        assert_eq!(judge(&interim[..30], true), Some(Err(AnswerFault::Status(103))));
        let many = interim.repeat(MAX_ANSWER);
        assert_eq!(judge(&many[..MAX_ANSWER], false), Some(Err(AnswerFault::Status(103))));
        // Who expects one gets it.
        assert_eq!(http(100, 299).judge(interim.as_bytes(), false), Some(Ok(())));
    }

    #[test]
    fn what_is_expected_may_come_late_but_within_the_first_bytes() {
        let question = expect(b"", b"ready");
        assert_eq!(question.judge(b"not rea", false), None);
        assert_eq!(question.judge(b"not ready", false), Some(Ok(())));
        assert_eq!(question.judge(b"", true), Some(Err(AnswerFault::Closed)));
        assert_eq!(question.judge(b"no", true), Some(Err(AnswerFault::Other)));
        assert_eq!(
            question.judge(&[b'x'; MAX_ANSWER], false),
            Some(Err(AnswerFault::Other))
        );
    }

    proptest! {
        /// However an answer is cut into pieces, the first verdict stays.
        #[test]
        fn a_verdict_does_not_change_with_what_follows(
            answer in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..64),
                "HTTP/1[.][0-9] [0-9]{1,4}[ \r\na]{0,3}".prop_map(String::into_bytes),
                "(HTTP/1[.]1 1[0-9]{2} \r?\n(a: b\r\n)?\r?\n){1,3}(HTTP/1[.]1 [12]00 )?".prop_map(String::into_bytes),
            ],
            more in proptest::collection::vec(any::<u8>(), 0..16),
        ) {
            for question in [http(200, 399), expect(b"", b"0 2")] {
                let verdict = question.judge(&answer, false);
                let longer: Vec<u8> = answer.iter().chain(&more).copied().collect();
                if verdict.is_some() {
                    prop_assert_eq!(question.judge(&longer, false), verdict);
                }
                prop_assert!(question.judge(&answer, true).is_some());
            }
        }
    }
}
