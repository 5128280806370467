//! One HTTP request and its answer on a stream.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};

/// One request and its answer: the body, if the status is 200.
pub(crate) fn exchange<S: Read + Write>(stream: &mut BufReader<S>, head: &str, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut message = head.as_bytes().to_vec();
    message.extend_from_slice(body);
    stream.get_mut().write_all(&message)?;
    let Head {
        status,
        length,
        chunked,
    } = Head::read(stream)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    if chunked {
        read_chunks(stream, &mut body)?;
    }
    if status.starts_with("HTTP/1.1 200") {
        Ok(body)
    } else {
        Err(invalid(format!(
            "status {:?}: {}",
            status.trim_end(),
            String::from_utf8_lossy(&body).trim_end()
        )))
    }
}

/// What comes before the body of an answer.
pub(crate) struct Head {
    pub(crate) status: String,
    /// Bytes of the body; 0 if it comes in chunks.
    pub(crate) length: usize,
    chunked: bool,
}

impl Head {
    pub(crate) fn read(stream: &mut impl BufRead) -> io::Result<Self> {
        if stream.fill_buf()?.is_empty() {
            return Err(io::Error::new(
                ErrorKind::BrokenPipe,
                "the server ended the connection instead of answering",
            ));
        }
        let status = read_line(stream)?;
        let mut length = 0;
        let mut chunked = false;
        loop {
            let line = read_line(stream)?;
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value
                    .parse()
                    .map_err(|_| invalid(format!("content-length {value:?}")))?;
            }
            chunked |= name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked");
        }
        Ok(Self {
            status,
            length,
            chunked,
        })
    }
}

/// One line of the head, or of what is between chunks, without its end.
fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

/// A body in chunks, each behind a line with its length; the last is empty.
fn read_chunks(stream: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = read_line(stream)?;
        let length = usize::from_str_radix(&line, 16).map_err(|_| invalid(format!("chunk of length {line:?}")))?;
        let start = body.len();
        body.resize(start + length, 0);
        stream.read_exact(&mut body[start..])?;
        read_line(stream)?;
        if length == 0 {
            return Ok(());
        }
    }
}

pub(crate) fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together() {
        let mut body = Vec::new();
        let mut text: &[u8] = b"4\r\nabcd\r\na\r\n0123456789\r\n0\r\n\r\nrest";
        read_chunks(&mut text, &mut body).unwrap();
        assert_eq!((&body[..], text), (&b"abcd0123456789"[..], &b"rest"[..]));
        assert!(read_chunks(&mut &b"4\r\nab"[..], &mut body).is_err());
        assert!(read_chunks(&mut &b"x\r\n"[..], &mut body).is_err());
    }
}
