//! Frames: how messages lie on the wire. Four bytes of length (big endian, of the content alone), one byte that says
//! what the content is, the content.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes before the content.
const HEADER: usize = 5;
/// What is written in one go: between two of them the reader has shown that it lives.
const CHUNK: usize = 64 << 10;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// [`super::message::Hello`], once, first, in both directions.
    Hello,
    /// [`super::message::Head`], manager to node.
    Head,
    /// A snapshot, of the last head before it.
    Snapshot,
    /// [`super::message::Report`], node to manager.
    Report,
    /// Nothing: the sender is there.
    Alive,
    /// From a newer agent; passed over.
    Other(u8),
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Self::Hello => 1,
            Self::Head => 2,
            Self::Snapshot => 3,
            Self::Report => 4,
            Self::Alive => 5,
            Self::Other(number) => number,
        }
    }

    const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Hello,
            2 => Self::Head,
            3 => Self::Snapshot,
            4 => Self::Report,
            5 => Self::Alive,
            other => Self::Other(other),
        }
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) content: Vec<u8>,
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The peer has ended the connection between two frames.
    #[error("the peer closed the connection")]
    Closed,
    /// It ended in the middle of a frame.
    #[error("the connection ended in the middle of a message")]
    Truncated,
    /// A frame that nobody may send.
    #[error("the peer announced a message of {length} bytes; {limit} are allowed")]
    TooLong { length: usize, limit: usize },
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads one frame of at most `limit` bytes. Memory is taken as the bytes come in, whatever the frame announces.
pub(super) async fn read<R: AsyncRead + Unpin>(reader: &mut R, limit: usize) -> Result<Frame, FrameError> {
    let mut header = [0; HEADER];
    let mut filled = 0;
    while filled < HEADER {
        match reader.read(&mut header[filled..]).await {
            Ok(0) if filled == 0 => return Err(FrameError::Closed),
            Ok(0) => return Err(FrameError::Truncated),
            Ok(read) => filled += read,
            // Peers of TLS are supposed to say goodbye, and those that are killed do not.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && filled == 0 => {
                return Err(FrameError::Closed);
            }
            Err(error) => return Err(error.into()),
        }
    }
    let [a, b, c, d, kind] = header;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    let mut content = Vec::with_capacity(length.min(CHUNK));
    (&mut *reader).take(length as u64).read_to_end(&mut content).await?;
    if content.len() < length {
        return Err(FrameError::Truncated);
    }
    Ok(Frame {
        kind: Kind::from_number(kind),
        content,
    })
}

/// Writes one frame.
///
/// # Errors
/// The connection failed, or the content is longer than a frame can say.
pub(super) async fn write<W: AsyncWrite + Unpin>(writer: &mut W, kind: Kind, content: &[u8]) -> io::Result<()> {
    let length = u32::try_from(content.len()).map_err(io::Error::other)?;
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&length.to_be_bytes());
    header[4] = kind.number();
    writer.write_all(&header).await?;
    for chunk in content.chunks(CHUNK) {
        writer.write_all(chunk).await?;
    }
    writer.flush().await
}

#[cfg(test)]
#[path = "tests/frame.rs"]
mod tests;
