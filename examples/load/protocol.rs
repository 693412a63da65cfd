//! Request of a client to the server: the first 16 bytes of a connection, and of every request on it.

/// Bytes of a request.
pub(crate) const LEN: usize = 16;

const MAGIC: [u8; 7] = *b"load 1 ";

/// Action of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoadRequest {
    /// Answer with so many bytes, and wait for the next request.
    Answer(u64),
    /// Answer with so many bytes, and close.
    AnswerAndClose(u64),
    /// Send until the client closes.
    Send,
    /// Take all bytes until the client ends its side, then answer with their number, 8 bytes, and close.
    Take,
}

impl LoadRequest {
    /// Returns the bytes to send.
    pub(crate) fn to_bytes(self) -> [u8; LEN] {
        let (letter, number) = match self {
            Self::Answer(number) => (b'a', number),
            Self::AnswerAndClose(number) => (b'c', number),
            Self::Send => (b's', 0),
            Self::Take => (b't', 0),
        };
        let mut bytes = [0; LEN];
        bytes[..7].copy_from_slice(&MAGIC);
        bytes[7] = letter;
        bytes[8..].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    /// Returns the request in these bytes; `None`: they are no request.
    pub(crate) fn from_bytes(bytes: [u8; LEN]) -> Option<Self> {
        let (head, number) = bytes.split_at(8);
        let number = u64::from_be_bytes(number.try_into().ok()?);
        match head.strip_prefix(&MAGIC)? {
            b"a" => Some(Self::Answer(number)),
            b"c" => Some(Self::AnswerAndClose(number)),
            b"s" => Some(Self::Send),
            b"t" => Some(Self::Take),
            _ => None,
        }
    }
}
