//! Questions that a probe asks a backend after the handshake.

use std::fmt;

/// A question after the handshake, and its right answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeQuestion {
    /// A request of HTTP/1.1.
    Http(HttpQuestion),
    /// Bytes in both directions.
    Expect(ProbeExchange),
}

/// A request of HTTP/1.1 with the method GET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpQuestion {
    /// Path and query; starts with `/`.
    pub path: Box<str>,
    /// Value of `Host`; `None`: address and port of the backend.
    pub host: Option<Box<str>>,
    /// Status codes of a right answer.
    pub status: ExpectedStatus,
}

/// Bytes that a probe sends, and bytes that the answer must contain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeExchange {
    /// Bytes to send; empty where the backend speaks first.
    pub send: Box<[u8]>,
    /// Bytes that the first 4,096 bytes of the answer must contain; never empty.
    pub expect: Box<[u8]>,
}

/// Way in which bytes are written in a state file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteEncoding {
    /// The text's own bytes, in UTF-8.
    Text,
    /// Pairs of hexadecimal digits.
    Hex,
}

/// Range of status codes, 100 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedStatus {
    /// First code of the range.
    pub first: u16,
    /// Last code of the range; not less than the first.
    pub last: u16,
}

impl ExpectedStatus {
    /// Default: success or redirection, which is not followed.
    pub const DEFAULT: Self = Self { first: 200, last: 399 };

    /// Returns whether a status is in the range.
    pub const fn contains(self, status: u16) -> bool {
        self.first <= status && status <= self.last
    }
}

impl fmt::Display for ExpectedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}
