//! A WebSocket client small enough to listen a hundred times beside the server it measures: text frames are handed
//! out as bytes, unparsed and without checking their UTF-8.

use bytes::{Buf, Bytes, BytesMut};

use crate::answer::AnswerReader;
use crate::error::LoadError;
use crate::stream::Stream;
use crate::target::Target;

/// An upgraded connection.
#[derive(Debug)]
pub(crate) struct WebSocket {
    stream: Stream,
    incoming: BytesMut,
    /// Fragments of a message whose last one has not come.
    message: BytesMut,
}

/// A frame of the server, cut out of the buffer.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    last: bool,
    opcode: u8,
    payload: Bytes,
}

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// Larger frames and messages are refused.
const LARGEST_MESSAGE: usize = 256 * 1024 * 1024;

impl WebSocket {
    /// Asks for an upgrade of `path` with one subprotocol, which the server has to choose.
    ///
    /// The nonce is constant and the server's digest of it is not checked: that guards against caches between the
    /// two, and here there are none.
    pub(crate) async fn connect(
        target: &Target,
        path: &str,
        token: &str,
        subprotocol: &str,
    ) -> Result<Self, LoadError> {
        let mut stream = Stream::connect(target).await?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bWFydS1sb2FkLW5vbmNlLg==\r\n\
             Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n",
            target.authority
        );
        stream.send(request.as_bytes()).await?;
        let (mut reader, mut incoming) = (AnswerReader::default(), BytesMut::new());
        let answer = loop {
            if let Some(answer) = reader.take(&mut incoming)? {
                break answer;
            }
            if stream.receive(&mut incoming, 0).await? == 0 {
                break reader.end(&mut incoming)?;
            }
        };
        if answer.status != 101 {
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            return Err(LoadError::Status {
                request: format!("upgrade of {path}"),
                status: answer.status,
                body,
            });
        }
        Ok(Self {
            stream,
            incoming,
            message: BytesMut::new(),
        })
    }

    /// The next text message. Pings are answered on the way; a close frame is an error with its reason.
    ///
    /// Nothing is lost when the returned future is dropped between two messages.
    pub(crate) async fn next(&mut self) -> Result<Bytes, LoadError> {
        loop {
            let missing = match take_frame(&mut self.incoming)? {
                Ok(frame) => match self.accept(frame).await? {
                    Some(message) => return Ok(message),
                    None => continue,
                },
                Err(missing) => missing,
            };
            if self.stream.receive(&mut self.incoming, missing).await? == 0 {
                return Err(LoadError::Protocol(
                    "the server closed a WebSocket without a word".into(),
                ));
            }
        }
    }

    /// Sends one text frame.
    pub(crate) async fn send(&mut self, text: &str) -> Result<(), LoadError> {
        self.stream.send(&masked(TEXT, text.as_bytes())).await
    }

    async fn accept(&mut self, frame: Frame) -> Result<Option<Bytes>, LoadError> {
        match frame.opcode {
            TEXT | BINARY if frame.last => Ok(Some(frame.payload)),
            TEXT | BINARY | CONTINUATION => {
                if self.message.len() + frame.payload.len() > LARGEST_MESSAGE {
                    return Err(LoadError::Protocol(
                        "a WebSocket message beyond every bound".into(),
                    ));
                }
                self.message.extend_from_slice(&frame.payload);
                Ok(frame.last.then(|| self.message.split().freeze()))
            }
            PING => {
                self.stream.send(&masked(PONG, &frame.payload)).await?;
                Ok(None)
            }
            PONG => Ok(None),
            CLOSE => {
                let code = frame.payload.get(..2).map_or(1005, |mut code| code.get_u16());
                let reason = String::from_utf8_lossy(frame.payload.get(2..).unwrap_or_default()).into_owned();
                Err(LoadError::Protocol(format!(
                    "the server closed a WebSocket: {code} {reason}"
                )))
            }
            opcode => Err(LoadError::Protocol(format!(
                "a WebSocket frame with opcode {opcode}"
            ))),
        }
    }
}

/// Cuts a frame off the buffer; `Err` says how many bytes are known to be missing.
fn take_frame(buffer: &mut BytesMut) -> Result<Result<Frame, usize>, LoadError> {
    let &[first, second, ..] = &buffer[..] else {
        return Ok(Err(2));
    };
    if second & 0x80 != 0 || first & 0x70 != 0 {
        return Err(LoadError::Protocol(
            "a masked or extended frame from the server".into(),
        ));
    }
    let (start, length) = match second & 0x7F {
        126 => (4, buffer.get(2..4).map(|mut bytes| u64::from(bytes.get_u16()))),
        127 => (10, buffer.get(2..10).map(|mut bytes| bytes.get_u64())),
        length => (2, Some(u64::from(length))),
    };
    let Some(length) = length else {
        return Ok(Err(start));
    };
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= LARGEST_MESSAGE)
        .ok_or_else(|| LoadError::Protocol("a WebSocket frame beyond every bound".into()))?;
    if buffer.len() < start + length {
        return Ok(Err(start + length - buffer.len()));
    }
    buffer.advance(start);
    let payload = buffer.split_to(length).freeze();
    Ok(Ok(Frame {
        last: first & 0x80 != 0,
        opcode: first & 0x0F,
        payload,
    }))
}

/// A client's frame. The mask is there because servers insist; a constant one hides nothing here, and nothing needs
/// hiding on loopback.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x6D, 0x61, 0x72, 0x75];
    let mut frame = Vec::with_capacity(payload.len() + 14);
    frame.push(0x80 | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => frame.push(0x80 | length),
        (_, Ok(length)) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(last: bool, opcode: u8, payload: &[u8]) -> Frame {
        Frame {
            last,
            opcode,
            payload: Bytes::copy_from_slice(payload),
        }
    }

    #[test]
    fn frames_of_all_three_lengths_are_cut_out() {
        let (short, medium, long) = (vec![b'a'; 125], vec![b'b'; 126], vec![b'c'; 70_000]);
        let mut buffer = BytesMut::new();
        buffer.extend_from_slice(&[0x81, 125]);
        buffer.extend_from_slice(&short);
        buffer.extend_from_slice(&[0x01, 126, 0, 126]);
        buffer.extend_from_slice(&medium);
        buffer.extend_from_slice(&[0x80, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
        buffer.extend_from_slice(&long[..69_000]);
        assert_eq!(take_frame(&mut buffer).unwrap(), Ok(frame(true, TEXT, &short)));
        assert_eq!(take_frame(&mut buffer).unwrap(), Ok(frame(false, TEXT, &medium)));
        assert_eq!(take_frame(&mut buffer).unwrap(), Err(1_000));
        buffer.extend_from_slice(&long[69_000..]);
        assert_eq!(
            take_frame(&mut buffer).unwrap(),
            Ok(frame(true, CONTINUATION, &long))
        );
        assert_eq!(take_frame(&mut buffer).unwrap(), Err(2));
    }

    #[test]
    fn masked_and_endless_frames_are_refused() {
        assert!(take_frame(&mut BytesMut::from(&[0x81, 0x81, 1, 2, 3, 4, 5][..])).is_err());
        assert!(
            take_frame(&mut BytesMut::from(
                &[0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255][..]
            ))
            .is_err()
        );
    }

    #[test]
    fn what_is_sent_unmasks_to_what_was_meant() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let frame = masked(TEXT, &payload);
            let (mask, data) = frame[frame.len() - length - 4..].split_at(4);
            let unmasked: Vec<u8> = data
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask)
                .collect();
            assert_eq!(unmasked, payload);
            let head = frame.len() - length - 4;
            assert_eq!(
                head,
                if length < 126 {
                    2
                } else if length < 65_536 {
                    4
                } else {
                    10
                }
            );
        }
    }
}
