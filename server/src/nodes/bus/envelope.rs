//! A message between nodes as bytes: JSON with a version, the run that says it, and what it says.
//!
//! What arrives is read as from a stranger: others may write to the same NATS, and nodes of another version may be there.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Item;
use crate::store::nodes::RunId;

/// Most bytes of a message: what PostgreSQL takes in a notification.
pub(super) const MOST_BYTES: usize = 7_999;

/// Bytes of a message beside the items and the commas between them, at most.
const FRAME_BYTES: usize = 64;

/// Most bytes of an item.
pub(super) const MOST_ITEM_BYTES: usize = MOST_BYTES - FRAME_BYTES;

/// The version that is written. Another one is not understood; new kinds of items need none.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Envelope {
    v: u32,
    from: i64,
    items: Vec<Item>,
}

/// Why something that arrived is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum NoMessage {
    /// It has more bytes than any message.
    #[error("too large")]
    TooLarge,
    /// It is not JSON of the form of a message.
    #[error("malformed")]
    Malformed,
    /// It is of another version.
    #[error("another version")]
    OtherVersion,
}

/// Items that go into one message.
#[derive(Debug, Default)]
pub(super) struct Batch {
    items: Vec<Item>,
    bytes: usize,
}

impl Batch {
    /// Adds an item; gives it back when it does not fit any more.
    pub(super) fn add(&mut self, item: Item) -> Result<(), Item> {
        let bytes = item.get().len() + 1;
        if self.bytes + bytes > MOST_ITEM_BYTES + 1 {
            return Err(item);
        }
        self.bytes += bytes;
        self.items.push(item);
        Ok(())
    }

    /// The message; none without items.
    pub(super) fn seal(self, from: RunId) -> Option<String> {
        if self.items.is_empty() {
            return None;
        }
        let envelope = Envelope {
            v: VERSION,
            from: from.0,
            items: self.items,
        };
        serde_json::to_string(&envelope).ok()
    }
}

/// Reads a message: who says it, and what.
pub(super) fn open(message: &[u8]) -> Result<(RunId, Vec<Item>), NoMessage> {
    /// The version stands before the rest is looked at.
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    if message.len() > MOST_BYTES {
        return Err(NoMessage::TooLarge);
    }
    let version: Version = serde_json::from_slice(message).map_err(|_| NoMessage::Malformed)?;
    if version.v != VERSION {
        return Err(NoMessage::OtherVersion);
    }
    let envelope: Envelope = serde_json::from_slice(message).map_err(|_| NoMessage::Malformed)?;
    Ok((RunId(envelope.from), envelope.items))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn item(text: &str) -> Item {
        serde_json::value::to_raw_value(text).unwrap()
    }

    #[test]
    fn other_versions_and_forms_are_no_messages() {
        let opened = |value: serde_json::Value| open(value.to_string().as_bytes()).map(|(from, _)| from);
        assert_eq!(
            opened(json!({ "v": 1, "from": 7, "items": [], "more": 1 })),
            Ok(RunId(7))
        );
        assert_eq!(
            opened(json!({ "v": 2, "from": "x" })),
            Err(NoMessage::OtherVersion)
        );
        assert_eq!(opened(json!({ "v": 1, "from": 7 })), Err(NoMessage::Malformed));
        assert_eq!(open(b"\xff").map(drop), Err(NoMessage::Malformed));
        assert_eq!(open(&[b' '; MOST_BYTES + 1]).map(drop), Err(NoMessage::TooLarge));
    }

    proptest! {
        #[test]
        fn what_fits_into_messages_is_what_is_read(
            texts in prop::collection::vec("[ -~]{0,3000}", 1..20), from in any::<i64>(),
        ) {
            let (mut batch, mut read) = (Batch::default(), Vec::new());
            let mut seal = |batch: Batch| {
                let sealed = batch.seal(RunId(from)).unwrap();
                assert!(sealed.len() <= MOST_BYTES);
                let (run, items) = open(sealed.as_bytes()).unwrap();
                assert_eq!(run, RunId(from));
                read.extend(items.into_iter().map(|item| item.get().to_owned()));
            };
            let items: Vec<Item> = texts.iter().map(|text| item(text)).collect();
            for one in &items {
                if let Err(left) = batch.add(one.clone()) {
                    seal(std::mem::take(&mut batch));
                    batch.add(left).unwrap();
                }
            }
            seal(batch);
            let said: Vec<String> = items.iter().map(|item| item.get().to_owned()).collect();
            prop_assert_eq!(read, said);
        }

        #[test]
        fn whatever_arrives_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = open(&bytes);
        }
    }
}
