//! The shared secret: read from a file that is nobody else's, and the key pair that is made of it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ring::hkdf;
use ring::signature::{Ed25519KeyPair, KeyPair};

/// A secret has at least so many bytes.
pub const SECRET_MIN: usize = 32;
/// Anything longer is a mistaken path.
const FILE_MAX: u64 = 64 << 10;
/// A text with fewer different characters is no secret.
const DISTINCT_MIN: usize = 8;
/// Domain separation of the derivation; part of the protocol.
const SALT: &[u8] = b"lb stream";
const INFO: &[&[u8]] = &[b"lb stream ed25519 v1"];

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the secret file {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read it.
    #[error(
        "the secret file {} can be read by others (mode {mode:04o}): `chmod 600 {}`, or mode 0400 where an orchestrator \
         mounts it; make a new secret if somebody may have read it",
        .path.display(), .path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to somebody who is neither root nor the agent's user.
    #[error("the secret file {} belongs to user {owner}: `chown root {}`", .path.display(), .path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// It holds no usable secret.
    #[error("the secret file {}: {problem}; `openssl rand -hex 32` makes a good one", .path.display())]
    Weak {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// The key pairs that a secret file stands for.
///
/// One secret on each line: the first is this agent's, each is accepted from others. To change a secret while all
/// goes on: add the new one as a second line everywhere, make it the first everywhere, remove the old one everywhere.
#[derive(Debug)]
pub(super) struct Keys {
    /// Private key of this agent, PKCS#8.
    pub(super) own: Vec<u8>,
    /// Public keys that are accepted, each a SubjectPublicKeyInfo.
    pub(super) accepted: Vec<Vec<u8>>,
}

/// Reads a secret file.
///
/// # Errors
/// It cannot be read, is not private, or holds something that is no good secret.
pub(super) fn read(path: &Path) -> Result<Keys, SecretError> {
    let failed = |source| SecretError::Read {
        path: path.into(),
        source,
    };
    // Asked before it is opened: opening a FIFO would wait for a writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("not a regular file")));
    }
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Exposed {
            path: path.into(),
            mode,
        });
    }
    if metadata.uid() != 0 && metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(SecretError::Owner {
            path: path.into(),
            owner: metadata.uid(),
        });
    }
    let mut text = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    let weak = |problem: String| SecretError::Weak {
        path: path.into(),
        problem,
    };
    if text.len() as u64 > FILE_MAX {
        return Err(weak(format!("larger than {} KiB", FILE_MAX >> 10)));
    }
    keys(&text).map_err(weak)
}

/// The keys of a secret file's content.
fn keys(text: &[u8]) -> Result<Keys, String> {
    let secrets: Vec<(usize, &[u8])> = text
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .collect();
    for (index, secret) in &secrets {
        let line = index + 1;
        if secret.len() < SECRET_MIN {
            return Err(format!(
                "the secret on line {line} has {} bytes, and needs {SECRET_MIN}",
                secret.len()
            ));
        }
        let mut seen = [false; 256];
        secret.iter().for_each(|byte| seen[usize::from(*byte)] = true);
        if seen.iter().filter(|seen| **seen).count() < DISTINCT_MIN {
            return Err(format!("the secret on line {line} can be guessed"));
        }
    }
    let Some((_, own)) = secrets.first() else {
        return Err("it is empty".into());
    };
    Ok(Keys {
        own: private_key(&seed(own)),
        accepted: secrets.iter().map(|(_, secret)| public_key(&seed(secret))).collect(),
    })
}

/// HKDF-SHA256 (RFC 5869) of a secret: an Ed25519 seed.
fn seed(secret: &[u8]) -> [u8; 32] {
    let mut seed = [0; 32];
    let key = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(secret);
    key.expand(INFO, hkdf::HKDF_SHA256)
        .and_then(|material| material.fill(&mut seed))
        .expect("one block is always available");
    seed
}

/// PKCS#8 of an Ed25519 seed (RFC 8410, 7).
fn private_key(seed: &[u8; 32]) -> Vec<u8> {
    const PREFIX: [u8; 16] = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
    ];
    [&PREFIX[..], seed].concat()
}

/// SubjectPublicKeyInfo of the public key to a seed (RFC 8410, 4).
fn public_key(seed: &[u8; 32]) -> Vec<u8> {
    const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("every 32 bytes are a seed");
    [&PREFIX[..], pair.public_key().as_ref()].concat()
}

#[cfg(test)]
#[path = "tests/secret.rs"]
mod tests;
