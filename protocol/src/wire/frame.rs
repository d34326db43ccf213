//! Frames as bytes: a `u32` length in network order, then one CBOR array of a name and a body.

use serde::Serialize;
use thiserror::Error;

use super::cbor_validation::{ShapeError, Strictness};
use super::limits::{MAX_DATAGRAM_BYTES, MAX_FRAME_BYTES, MAX_NAME_BYTES, MAX_TEXT_BYTES};
use super::named::Named;
use super::{CloseCode, Text, cbor_validation};

/// Bytes of the length before a frame.
pub const LENGTH_BYTES: usize = 4;

/// Why bytes are no frame, or something is too large to be one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Longer than is allowed here.
    #[error("{length} bytes where {limit} are allowed")]
    TooLong {
        /// The length, claimed or real.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// Not CBOR of the allowed shape.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A well-formed frame of a name that is not known here.
    #[error("unknown frame {0:?}")]
    Unknown(Text<MAX_NAME_BYTES>),
    /// Of a known name, but a field is missing, of another type, or over its limit.
    #[error("malformed: {0}")]
    Malformed(Text<MAX_TEXT_BYTES>),
}

impl FrameError {
    /// What a connection is closed with over such a frame.
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::TooLong { .. } => CloseCode::LimitExceeded,
            Self::Unknown(_) => CloseCode::UnknownMessage,
            Self::Shape(_) | Self::Malformed(_) => CloseCode::ProtocolError,
        }
    }
}

/// The length that a frame's first four bytes announce.
///
/// A reader lets its buffer grow with what arrives; it does not set aside what is announced.
///
/// # Errors
/// [`FrameError::TooLong`] over `limit`, which is at most [`MAX_FRAME_BYTES`].
pub fn frame_length(prefix: [u8; LENGTH_BYTES], limit: usize) -> Result<usize, FrameError> {
    let length = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    let limit = limit.min(MAX_FRAME_BYTES);
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    Ok(length)
}

/// The bytes of a frame, its length first.
///
/// # Errors
/// [`FrameError::TooLong`] over [`MAX_FRAME_BYTES`].
pub fn encode<T: Named>(frame: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; LENGTH_BYTES];
    write(frame, &mut bytes)?;
    let length = bytes.len() - LENGTH_BYTES;
    let prefix = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME_BYTES);
    let Some(prefix) = prefix else {
        return Err(FrameError::TooLong {
            length,
            limit: MAX_FRAME_BYTES,
        });
    };
    bytes[..LENGTH_BYTES].copy_from_slice(&prefix.to_be_bytes());
    Ok(bytes)
}

/// The bytes of a datagram, which is a frame without its length.
///
/// # Errors
/// [`FrameError::TooLong`] over [`MAX_DATAGRAM_BYTES`].
pub fn encode_datagram<T: Named>(frame: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = Vec::new();
    write(frame, &mut bytes)?;
    if bytes.len() > MAX_DATAGRAM_BYTES {
        return Err(FrameError::TooLong {
            length: bytes.len(),
            limit: MAX_DATAGRAM_BYTES,
        });
    }
    Ok(bytes)
}

/// Reads a complete frame, without its length.
///
/// # Errors
/// [`FrameError`]: the sender broke the protocol, or speaks a newer one ([`FrameError::Unknown`]).
pub fn decode<T: Named>(bytes: &[u8]) -> Result<T, FrameError> {
    if bytes.len() > MAX_FRAME_BYTES {
        return Err(FrameError::TooLong {
            length: bytes.len(),
            limit: MAX_FRAME_BYTES,
        });
    }
    cbor_validation::check(bytes, Strictness::Plain)?;
    let name = name(bytes)?;
    if !T::NAMES.contains(&&*name) {
        return Err(FrameError::Unknown(name));
    }
    minicbor_serde::from_slice(bytes).map_err(|error| malformed(&error))
}

fn write<T: Serialize>(value: &T, bytes: &mut Vec<u8>) -> Result<(), FrameError> {
    let mut serializer = minicbor_serde::Serializer::new(bytes);
    value
        .serialize(&mut serializer)
        .map_err(|error| malformed(&error))
}

/// The name of a frame, before its body is read.
fn name(bytes: &[u8]) -> Result<Text<MAX_NAME_BYTES>, FrameError> {
    let mut reader = minicbor_serde::Deserializer::new(bytes);
    let decoder = reader.decoder_mut();
    let fields = decoder.array().map_err(|error| malformed(&error))?;
    if fields != Some(2) {
        return Err(malformed(&"not an array of a name and a body"));
    }
    let name = decoder.str().map_err(|error| malformed(&error))?;
    Text::new(name).ok_or_else(|| malformed(&"the name is too long"))
}

fn malformed(error: &dyn ToString) -> FrameError {
    FrameError::Malformed(Text::cut(&error.to_string()))
}
