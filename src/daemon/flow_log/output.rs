//! Outputs of the flow log: a file that ends with a whole line whenever it can, or journald.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

/// Mode of a new file: its group may read it, as that of other logs.
const MODE: u32 = 0o640;
/// Socket of journald (`sd_journal_send(3)`, "Native Journal Protocol").
pub(super) const JOURNALD: &str = "/run/systemd/journal/socket";

/// A file that lines are appended to, and whose end can be cut off.
pub(super) trait LineFile: Write {
    /// Removes that many bytes from the end.
    fn cut(&mut self, bytes: usize) -> io::Result<()>;
}

impl LineFile for File {
    fn cut(&mut self, bytes: usize) -> io::Result<()> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.set_len(self.metadata()?.len().saturating_sub(bytes))
    }
}

/// Appends lines, each with a line feed at its end. Returns the length of the whole lines that the file has then, and the reason
/// if these are not all. A part of a line is cut off; if that fails, [`open_file`] ends the line.
pub(super) fn append(file: &mut impl LineFile, lines: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    let result = loop {
        let rest = lines.get(written..).unwrap_or_default();
        if rest.is_empty() {
            return (written, Ok(()));
        }
        match file.write(rest) {
            Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => written += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    let there = lines.get(..written).unwrap_or_default();
    let whole = there.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole < written {
        let _ = file.cut(written - whole);
    }
    (whole, result)
}

/// Sends lines, each as a message of its own. Returns the length of those that journald took, and the reason if these are not all:
/// [`io::ErrorKind::WouldBlock`] when it has no room for more.
pub(super) fn send(socket: &UnixDatagram, lines: &[u8]) -> (usize, io::Result<()>) {
    let mut sent = 0;
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let mut message = b"PRIORITY=6\nSYSLOG_IDENTIFIER=tcpgw-flows\nMESSAGE=".to_vec();
        // The line ends with a line feed, and JSON contains no other.
        message.extend_from_slice(line);
        match socket.send(&message) {
            Ok(_) => sent += line.len(),
            Err(error) => return (sent, Err(error)),
        }
    }
    (sent, Ok(()))
}

/// Opens a file to append to it, and creates it if it is missing. If it ends within a line, it gets a line feed first. Anything but
/// a regular file with one name is refused: who may put a link or a FIFO there must not decide what root writes to, or
/// make it wait.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(MODE)
        .custom_flags(O_NOFOLLOW | O_NONBLOCK)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(nix::libc::ELOOP) => io::Error::new(error.kind(), "is a symbolic link, which is not followed"),
            Some(nix::libc::ENXIO) => io::Error::new(error.kind(), "is no regular file"),
            _ => error,
        })?;
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    let refused = if kind.is_fifo() || !metadata.is_file() {
        Some("is no regular file")
    } else if metadata.nlink() > 1 {
        Some("has several names (hard links)")
    } else if metadata.mode() & 0o002 != 0 {
        Some("may be written by everybody: chmod o-w")
    } else {
        None
    };
    if let Some(why) = refused {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let mut last = *b"\n";
    if let Some(at) = metadata.len().checked_sub(1) {
        file.read_exact_at(&mut last, at)?;
    }
    if last != *b"\n" {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

pub(super) fn open_journald() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(JOURNALD)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
