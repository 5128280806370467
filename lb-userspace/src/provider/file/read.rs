//! Reads the document's bytes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::pieces::Edit;
use crate::provider::ProviderError;

/// A cluster at the limits of the tables describes itself in less.
const SIZE_MAX: u64 = 64 << 20;

/// The bytes of a regular file of sensible size.
///
/// # Errors
/// The file cannot be read, or is none that could hold a document.
pub fn read(path: &Path) -> Result<Vec<u8>, ProviderError> {
    let refuse = |message: String| ProviderError::Read {
        source_name: path.display().to_string(),
        message,
    };
    let attempt = || {
        // Asked before it is opened: opening a FIFO would wait for a writer.
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            return Ok(Err(refuse("not a regular file".into())));
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(SIZE_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > SIZE_MAX {
            return Ok(Err(refuse(format!("larger than {} MiB", SIZE_MAX >> 20))));
        }
        Ok(Ok(bytes))
    };
    attempt().unwrap_or_else(|error: io::Error| Err(refuse(error.to_string())))
}

/// How a file looks from outside: device, inode, size, and when content and inode were changed.
pub(super) type Stamp = [i64; 7];

/// That of the file; `None`: it cannot be looked at.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some([
        found.dev().cast_signed(),
        found.ino().cast_signed(),
        found.size().cast_signed(),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ])
}

/// Bytes that are compared at a time; they stay in the processor's cache.
const CHUNK: usize = 64 << 10;

/// How a regular file differs from `last`: from the first byte that does to the last. `None`: not at all.
///
/// # Errors
/// The file cannot be read, or is none that could hold a document.
pub(super) fn edit(path: &Path, last: &[u8]) -> io::Result<Option<Edit>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > SIZE_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let length = length as usize;
    let common = length.min(last.len());
    let mut chunk = vec![0; CHUNK];
    let mut head = 0;
    while head < common {
        let chunk = &mut chunk[..CHUNK.min(common - head)];
        file.read_exact_at(chunk, head as u64)?;
        let there = &last[head..head + chunk.len()];
        if chunk != there {
            head += chunk.iter().zip(there).take_while(|(a, b)| a == b).count();
            break;
        }
        head += chunk.len();
    }
    if head == common && length == last.len() {
        return Ok(None);
    }
    let mut tail = 0;
    while tail < common - head {
        let size = CHUNK.min(common - head - tail);
        let chunk = &mut chunk[..size];
        file.read_exact_at(chunk, (length - tail - size) as u64)?;
        let there = &last[last.len() - tail - size..last.len() - tail];
        if chunk != there {
            tail += chunk
                .iter()
                .rev()
                .zip(there.iter().rev())
                .take_while(|(a, b)| a == b)
                .count();
            break;
        }
        tail += size;
    }
    let mut new = vec![0; length - head - tail];
    file.read_exact_at(&mut new, head as u64)?;
    Ok(Some(Edit {
        at: head,
        old: last.len() - head - tail,
        new,
    }))
}
