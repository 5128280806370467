//! [`Patient`]: a connection whose reads and writes fail when nothing moves for too long.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// Bytes, not messages, show that a peer is there: a large message takes its time on a slow path.
pub(super) struct Patient<S> {
    inner: S,
    reading: Deadline,
    writing: Deadline,
}

impl<S> Patient<S> {
    pub(super) fn new(inner: S, silence: Duration) -> Self {
        Self {
            inner,
            reading: Deadline::new(silence, "nothing came from the peer for"),
            writing: Deadline::new(silence, "the peer took nothing for"),
        }
    }
}

struct Deadline {
    silence: Duration,
    complaint: &'static str,
    sleep: Pin<Box<Sleep>>,
    running: bool,
}

impl Deadline {
    fn new(silence: Duration, complaint: &'static str) -> Self {
        Self {
            silence,
            complaint,
            sleep: Box::pin(sleep(silence)),
            running: false,
        }
    }

    /// Passes on what an operation said, unless it has waited for too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.running = false;
            return poll;
        }
        if !self.running {
            self.running = true;
            self.sleep.as_mut().reset(Instant::now() + self.silence);
        }
        ready!(self.sleep.as_mut().poll(cx));
        let message = format!("{} {}", self.complaint, humantime::format_duration(self.silence));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_read(cx, buffer);
        self.reading.watch(cx, poll)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.writing.watch(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(cx);
        self.writing.watch(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.writing.watch(cx, poll)
    }
}
