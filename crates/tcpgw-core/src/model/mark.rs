//! The ct mark of flows that belong to tcpgw.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Visitor};
use thiserror::Error;

/// Value and mask that identify flows of tcpgw: `mark & mask == value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowMark {
    value: u32,
    mask: u32,
}

/// Reason why a value is not a flow mark.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FlowMarkError {
    /// The text is neither a number nor two numbers with a slash.
    #[error("must be a number like 0x00800000, or value/mask")]
    Malformed,
    /// The value is zero, so that every unmarked flow would match.
    #[error("must not be zero: every unmarked flow would count as one of tcpgw")]
    Zero,
    /// The value has bits outside the mask, so that no mark would match.
    #[error("the value {0:#010x} has bits outside the mask {1:#010x}")]
    OutsideMask(u32, u32),
}

impl FlowMark {
    /// Creates a mark.
    ///
    /// # Errors
    ///
    /// Fails when the value is zero or has bits outside the mask.
    pub fn new(value: u32, mask: u32) -> Result<Self, FlowMarkError> {
        match value {
            0 => Err(FlowMarkError::Zero),
            _ if value & !mask != 0 => Err(FlowMarkError::OutsideMask(value, mask)),
            _ => Ok(Self { value, mask }),
        }
    }

    /// Returns whether a flow with this ct mark belongs to tcpgw.
    pub fn matches(self, mark: u32) -> bool {
        mark & self.mask == self.value
    }

    /// Returns the value of the masked bits of tcpgw's flows; never zero.
    pub fn value(self) -> u32 {
        self.value
    }

    /// Returns the bits that tcpgw may write; it leaves all other bits of a mark as they are.
    pub fn mask(self) -> u32 {
        self.mask
    }
}

impl Default for FlowMark {
    /// Returns bit 23 as value and mask.
    fn default() -> Self {
        Self {
            value: 1 << 23,
            mask: 1 << 23,
        }
    }
}

impl fmt::Display for FlowMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}/{:#010x}", self.value, self.mask)
    }
}

impl FromStr for FlowMark {
    type Err = FlowMarkError;

    /// Reads `value` (which is then its own mask) or `value/mask`, each decimal or hexadecimal after `0x`.
    fn from_str(text: &str) -> Result<Self, FlowMarkError> {
        let (value, mask) = text.split_once('/').unwrap_or((text, text));
        let value = parse_number(value).ok_or(FlowMarkError::Malformed)?;
        let mask = parse_number(mask).ok_or(FlowMarkError::Malformed)?;
        Self::new(value, mask)
    }
}

fn parse_number(text: &str) -> Option<u32> {
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
    digits
        .bytes()
        .all(|b| b.is_ascii_hexdigit())
        .then(|| u32::from_str_radix(digits, radix).ok())
        .flatten()
}

impl<'de> Deserialize<'de> for FlowMark {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MarkVisitor;

        impl Visitor<'_> for MarkVisitor {
            type Value = FlowMark;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number like 0x00800000, or a string \"value/mask\"")
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<FlowMark, E> {
                let value = u32::try_from(value)
                    .map_err(|_| E::custom(format_args!("must be a number of 32 bits, not {value}")))?;
                FlowMark::new(value, value).map_err(E::custom)
            }

            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<FlowMark, E> {
                value.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(MarkVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_masked_bits_of_a_flow_tell() {
        let mark = FlowMark::default();
        assert!(mark.matches(0x80_0001) && !mark.matches(1) && !mark.matches(0));
    }

    #[test]
    fn marks_are_read_and_shown() {
        let cases = [
            ("0x00800000", "0x00800000/0x00800000"),
            ("8388608", "0x00800000/0x00800000"),
            ("0x1/0xff", "0x00000001/0x000000ff"),
            ("0xffffffff", "0xffffffff/0xffffffff"),
        ];
        for (text, shown) in cases {
            assert_eq!(text.parse::<FlowMark>().unwrap().to_string(), shown);
        }
        assert_eq!(FlowMark::default().to_string(), "0x00800000/0x00800000");
    }

    #[test]
    fn wrong_marks_are_refused() {
        for text in [
            "",
            "0x",
            "x",
            "-1",
            "+1",
            "0x100000000",
            "1/",
            "/1",
            "1/2/3",
            "0x+1",
            " 1",
        ] {
            assert_eq!(text.parse::<FlowMark>(), Err(FlowMarkError::Malformed), "{text:?}");
        }
        assert_eq!("0".parse::<FlowMark>(), Err(FlowMarkError::Zero));
        assert_eq!("0x0/0xff".parse::<FlowMark>(), Err(FlowMarkError::Zero));
        assert_eq!(
            "0x100/0xff".parse::<FlowMark>(),
            Err(FlowMarkError::OutsideMask(0x100, 0xff))
        );
    }
}
