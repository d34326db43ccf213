//! Reading HTTP/1.1 answers out of a buffer: as little work as the framing allows, since the driver shares its
//! cores with the server it measures.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::LoadError;

/// A complete answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// The body, chunks joined.
    pub(crate) body: Bytes,
    /// Whether the connection may carry another request.
    pub(crate) keep_alive: bool,
}

/// Takes one answer at a time out of a growing buffer.
#[derive(Debug, Default)]
pub(crate) struct AnswerReader {
    head: Option<Head>,
    /// Chunks decoded so far.
    joined: BytesMut,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    status: u16,
    keep_alive: bool,
    framing: Framing,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// Larger answers are refused: nothing a server says makes the driver run out of memory.
const LARGEST_BODY: usize = 512 * 1024 * 1024;
const LARGEST_HEAD: usize = 64 * 1024;

impl AnswerReader {
    /// Takes an answer if `buffer` holds a whole one; otherwise says by `None` that more bytes are needed.
    pub(crate) fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<Answer>, LoadError> {
        let head = match self.head {
            Some(head) => head,
            None => match take_head(buffer)? {
                Some(head) => *self.head.insert(head),
                None => return Ok(None),
            },
        };
        let body = match head.framing {
            Framing::Length(length) if buffer.len() >= length => buffer.split_to(length).freeze(),
            Framing::Chunked if self.take_chunks(buffer)? => self.joined.split().freeze(),
            _ => return Ok(None),
        };
        self.head = None;
        Ok(Some(Answer {
            status: head.status,
            body,
            keep_alive: head.keep_alive,
        }))
    }

    /// What the end of the stream means: the end of an answer without a length, else a break.
    pub(crate) fn end(&mut self, buffer: &mut BytesMut) -> Result<Answer, LoadError> {
        match self.head.take() {
            Some(Head {
                status,
                framing: Framing::UntilClose,
                ..
            }) => Ok(Answer {
                status,
                body: buffer.split().freeze(),
                keep_alive: false,
            }),
            _ => Err(LoadError::Protocol(
                "the server closed the connection in the middle of an answer".into(),
            )),
        }
    }

    /// How many bytes are known to be missing: a hint for the size of the next read.
    pub(crate) fn missing(&self, buffer: &BytesMut) -> usize {
        match self.head.map(|head| head.framing) {
            Some(Framing::Length(length)) => length.saturating_sub(buffer.len()),
            Some(Framing::Chunked | Framing::UntilClose) => self.joined.len(),
            None => 0,
        }
    }

    /// Moves complete chunks out of `buffer`; true once the last one is there.
    fn take_chunks(&mut self, buffer: &mut BytesMut) -> Result<bool, LoadError> {
        loop {
            let (start, size) = match httparse::parse_chunk_size(buffer) {
                Ok(httparse::Status::Complete((start, size))) => {
                    (start, usize::try_from(size).unwrap_or(usize::MAX))
                }
                Ok(httparse::Status::Partial) => return Ok(false),
                Err(_) => return Err(LoadError::Protocol("a chunk without a size".into())),
            };
            if size > LARGEST_BODY || self.joined.len() + size > LARGEST_BODY {
                return Err(LoadError::Protocol("a body beyond every bound".into()));
            }
            // Data, then CR LF. Trailers are not used by homeservers: the last chunk is empty and so is its end.
            let Some(chunk) = buffer.get(start..start + size + 2) else {
                return Ok(false);
            };
            let (data, end) = chunk.split_at(size);
            if end != b"\r\n" {
                return Err(LoadError::Protocol("a chunk longer than its size".into()));
            }
            self.joined.extend_from_slice(data);
            buffer.advance(start + size + 2);
            if size == 0 {
                return Ok(true);
            }
        }
    }
}

/// Takes a head off the buffer if a whole one is there, stepping over `100 Continue` and its kind. The head of an
/// upgrade (101) is a whole answer; what follows it is not HTTP.
fn take_head(buffer: &mut BytesMut) -> Result<Option<Head>, LoadError> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(buffer) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if buffer.len() > LARGEST_HEAD => {
                return Err(LoadError::Protocol("a head without an end".into()));
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(LoadError::Protocol(format!("not an HTTP answer: {error}"))),
        };
        let head = read_head(&response)?;
        buffer.advance(length);
        if !(100..200).contains(&head.status) || head.status == 101 {
            return Ok(Some(head));
        }
    }
}

fn read_head(response: &httparse::Response<'_, '_>) -> Result<Head, LoadError> {
    let status = response.code.unwrap_or(0);
    let mut keep_alive = response.version == Some(1);
    let mut framing = Framing::UntilClose;
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") && framing != Framing::Chunked {
            framing = Framing::Length(content_length(header.value)?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Framing::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection")
            && header.value.eq_ignore_ascii_case(b"close")
        {
            keep_alive = false;
        }
    }
    if matches!(status, 100..200 | 204 | 304) {
        framing = Framing::Length(0);
    }
    Ok(Head {
        status,
        keep_alive,
        framing,
    })
}

fn content_length(value: &[u8]) -> Result<usize, LoadError> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|digits| digits.trim().parse().ok())
        .filter(|length| *length <= LARGEST_BODY)
        .ok_or_else(|| LoadError::Protocol("a Content-Length that is no length".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the bytes in pieces of every size and returns the answers; all ways must agree.
    fn read(bytes: &[u8]) -> Vec<Answer> {
        let mut agreed: Option<Vec<Answer>> = None;
        for step in 1..=bytes.len() {
            let (mut reader, mut buffer, mut answers) =
                (AnswerReader::default(), BytesMut::new(), Vec::new());
            for piece in bytes.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(answer) = reader.take(&mut buffer).unwrap() {
                    answers.push(answer);
                }
            }
            if reader.head.is_some() {
                answers.push(reader.end(&mut buffer).unwrap());
            }
            assert_eq!(
                *agreed.get_or_insert_with(|| answers.iter().map(copy).collect()),
                answers,
                "pieces of {step}"
            );
        }
        agreed.unwrap()
    }

    fn copy(answer: &Answer) -> Answer {
        Answer {
            body: answer.body.clone(),
            ..*answer
        }
    }

    fn answer(status: u16, body: &'static str, keep_alive: bool) -> Answer {
        Answer {
            status,
            body: Bytes::from_static(body.as_bytes()),
            keep_alive,
        }
    }

    #[test]
    fn two_answers_with_lengths_follow_each_other() {
        let read = read(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 404 No\r\nContent-Length:3\r\n\r\nabc",
        );
        assert_eq!(read, [answer(200, "{}", true), answer(404, "abc", true)]);
    }

    #[test]
    fn chunks_are_joined() {
        let read = read(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
        );
        assert_eq!(read, [answer(200, "abc0123456789", true)]);
    }

    #[test]
    fn an_answer_without_a_length_ends_with_the_stream() {
        assert_eq!(
            read(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"),
            [answer(200, "abc", false)]
        );
    }

    #[test]
    fn preliminary_answers_are_stepped_over_and_empty_ones_have_no_body() {
        let read = read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(read, [answer(204, "", true), answer(200, "", true)]);
    }

    #[test]
    fn a_break_and_nonsense_are_errors() {
        let mut reader = AnswerReader::default();
        let mut buffer = BytesMut::from(&b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"[..]);
        assert!(reader.take(&mut buffer).unwrap().is_none());
        assert!(reader.end(&mut buffer).is_err());
        for nonsense in [
            &b"SMTP ready\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        ] {
            assert!(
                AnswerReader::default()
                    .take(&mut BytesMut::from(nonsense))
                    .is_err(),
                "{nonsense:?}"
            );
        }
    }
}
