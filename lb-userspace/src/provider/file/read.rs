//! Reads the document's bytes.

use std::fs::File;
use std::io::Read;
use std::path::Path;

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
    attempt().unwrap_or_else(|error: std::io::Error| Err(refuse(error.to_string())))
}
