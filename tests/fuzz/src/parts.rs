//! Changes the parts of a record as parts: their lengths follow what is in them.

use super::attributes::ChangeBytes;

const MAGIC: usize = 8;
const LENGTH: usize = 8;

/// Mutates one part of a record's content, or any bytes of it.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32, bytes: ChangeBytes) -> usize {
    let parts = read(&data[..size]).filter(|(_, parts)| !parts.is_empty() && !seed.is_multiple_of(8));
    let Some((magic, mut parts)) = parts else {
        return bytes(data, size, max_size);
    };
    let at = (seed / 64) as usize % parts.len();
    match seed / 8 % 8 {
        0 => parts.insert(at, parts[at].clone()),
        1 => drop(parts.remove(at)),
        _ => {
            let part = &mut parts[at];
            let size = part.len();
            part.resize(size + 32, 0);
            let size = bytes(part, size, size + 32);
            part.truncate(size);
        }
    }
    let mut out = magic;
    for part in parts {
        out.extend((part.len() as u64).to_le_bytes());
        out.extend(part);
    }
    out.truncate(max_size.min(data.len()));
    data[..out.len()].copy_from_slice(&out);
    out.len()
}

fn read(bytes: &[u8]) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
    let (magic, mut rest) = bytes.split_at_checked(MAGIC)?;
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_at_checked(LENGTH)?;
        let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
        let (part, after) = after.split_at_checked(length)?;
        parts.push(part.to_vec());
        rest = after;
    }
    Some((magic.to_vec(), parts))
}
