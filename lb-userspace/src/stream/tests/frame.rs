//! Frames: limits, ends in the middle, and bytes that mean nothing.

use proptest::prelude::*;

use super::*;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

fn encoded(kind: Kind, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    block_on(write(&mut bytes, kind, content)).unwrap();
    bytes
}

#[test]
fn what_is_written_is_read() {
    let large = vec![7; 3 * CHUNK + 1];
    let mut bytes = encoded(Kind::Hello, b"{}");
    bytes.extend(encoded(Kind::Snapshot, &large));
    bytes.extend(encoded(Kind::Alive, b""));
    bytes.extend(encoded(Kind::Other(99), b"?"));
    let mut reader = &bytes[..];
    block_on(async {
        for (kind, content) in [
            (Kind::Hello, &b"{}"[..]),
            (Kind::Snapshot, &large),
            (Kind::Alive, b""),
            (Kind::Other(99), b"?"),
        ] {
            let frame = read(&mut reader, large.len()).await.unwrap();
            assert_eq!((frame.kind, &frame.content[..]), (kind, content));
        }
        assert!(matches!(read(&mut reader, 9).await, Err(FrameError::Closed)));
    });
}

#[test]
fn the_layout_is_fixed() {
    assert_eq!(encoded(Kind::Head, b"abc"), [0, 0, 0, 3, 2, b'a', b'b', b'c']);
    for number in 0..=u8::MAX {
        assert_eq!(Kind::from_number(number).number(), number);
    }
}

#[test]
fn a_frame_at_the_limit_passes_and_one_above_does_not() {
    let bytes = encoded(Kind::Report, &[0; 100]);
    assert!(block_on(read(&mut &bytes[..], 100)).is_ok());
    let error = block_on(read(&mut &bytes[..], 99)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the peer announced a message of 100 bytes; 99 are allowed"
    );
}

#[test]
fn an_end_in_the_middle_is_no_end() {
    let bytes = encoded(Kind::Report, b"abc");
    for length in 1..bytes.len() {
        let error = block_on(read(&mut &bytes[..length], 9)).unwrap_err();
        assert!(matches!(error, FrameError::Truncated), "{length}: {error}");
    }
}

#[test]
fn an_announced_length_takes_no_memory() {
    let mut bytes = encoded(Kind::Snapshot, &[1; 10]);
    bytes[..4].copy_from_slice(&(64_u32 << 20).to_be_bytes());
    let mut reader = Watched {
        bytes: &bytes,
        asked: 0,
    };
    let error = block_on(read(&mut reader, 64 << 20)).unwrap_err();
    assert!(matches!(error, FrameError::Truncated));
    assert!(reader.asked <= 2 * CHUNK, "room for {} bytes was made", reader.asked);
}

/// Notes the largest buffer that it was asked to fill.
struct Watched<'a> {
    bytes: &'a [u8],
    asked: usize,
}

impl AsyncRead for Watched<'_> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        self.asked = self.asked.max(buffer.remaining());
        let length = self.bytes.len().min(buffer.remaining());
        let (now, later) = self.bytes.split_at(length);
        buffer.put_slice(now);
        self.bytes = later;
        std::task::Poll::Ready(Ok(()))
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_neither_panic_nor_pass_the_bound(bytes in proptest::collection::vec(any::<u8>(), 0..300), limit in 0_usize..200) {
        block_on(async {
            let mut reader = Watched { bytes: &bytes, asked: 0 };
            while let Ok(frame) = read(&mut reader, limit).await {
                assert!(frame.content.len() <= limit);
                assert!(frame.content.capacity() <= 2 * limit.max(64), "{}", frame.content.capacity());
            }
            assert!(reader.asked <= 2 * limit.max(64), "{}", reader.asked);
        });
    }

    #[test]
    fn what_is_damaged_never_panics(content in proptest::collection::vec(any::<u8>(), 0..100), at in 0_usize..105, value in any::<u8>()) {
        let mut bytes = encoded(Kind::Report, &content);
        let at = at % bytes.len();
        bytes[at] = value;
        let _ = block_on(read(&mut &bytes[..], 1_000));
    }
}
