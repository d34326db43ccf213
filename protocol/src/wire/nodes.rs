//! What the nodes of one homeserver say to each other (`spec/nodes.md`, "What one node does for all"): a node that does not
//! speak with other homeservers has the one do it that does, which leads. All nodes run one version, so nothing here has to
//! be understood by another.
//!
//! What is asked has a bidirectional stream of its own, whose first frame is [`ToLeader`], and is answered with
//! [`FromLeader`] before anything else. What nobody waits for is a [`Note`] on the one stream of notes.

use ruma::{OwnedRoomId, OwnedServerName};
use serde::{Deserialize, Serialize};

use super::message::RoomExtremities;
use super::named::named;
use super::request::Nothing;
use crate::cursor::Position;

/// Largest frame of this page, in bytes after its length.
pub const MAX_NODE_FRAME_BYTES: usize = 64 * 1024;

named! {
    /// What a node asks of the one that leads.
    pub enum ToLeader {
        /// To send a request to a peer: it is the next frame, as it would go there. The frames of the answer follow
        /// [`FromLeader::Taken`] as they come.
        "ask" => Ask(Ask),
        /// To let nobody else into a room until [`ToLeader::Joined`] or the end of the stream.
        "join" => Join(Join),
        /// What was done in the room is in the log: the end of a stream that began with [`ToLeader::Join`].
        "joined" => Joined(Joined),
    }
}

/// A request for a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Whom to send it to.
    pub peer: OwnedServerName,
}

/// Somebody is on the way into a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Which.
    pub room_id: OwnedRoomId,
}

/// The way into a room has come to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Up to here the log says all of it.
    pub at: Position,
}

named! {
    /// The first frame of an answer.
    pub enum FromLeader {
        /// It is being done.
        "taken" => Taken(Nothing),
        /// Nothing is done: another node leads, or none.
        "not_leading" => NotLeading(Nothing),
    }
}

named! {
    /// Something that the node that leads is to look after, once it knows the log up to a position. A lost one costs time: the
    /// peers' comparison of replicas, and whoever leads next, find the same.
    pub enum Note {
        /// A peer is to be sent the forward extremities of the rooms in common.
        "announce" => Announce(Announce),
        /// What a peer has of a room is to be fetched.
        "compare" => Compare(Compare),
        /// The past of a room is to be fetched.
        "backfill" => Backfill(Backfill),
    }
}

impl Note {
    /// Where the log of the homeserver stood when it was written.
    #[must_use]
    pub fn at(&self) -> Position {
        match self {
            Self::Announce(note) => note.at,
            Self::Compare(note) => note.at,
            Self::Backfill(note) => note.at,
        }
    }
}

/// To whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announce {
    /// The peer.
    pub peer: OwnedServerName,
    /// Up to here the log is to be known.
    pub at: Position,
}

/// What a peer has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// The peer.
    pub peer: OwnedServerName,
    /// Where its replica of a room ends.
    pub room: RoomExtremities,
    /// Up to here the log is to be known.
    pub at: Position,
}

/// Which room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backfill {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Up to here the log is to be known.
    pub at: Position,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{decode, encode};

    #[test]
    fn what_nodes_say_comes_back_from_its_frame() {
        let at = Position(7);
        let room_id: OwnedRoomId = "!room:b.example".try_into().unwrap();
        let peer: OwnedServerName = "b.example".try_into().unwrap();
        let room = RoomExtremities {
            room_id: room_id.clone(),
            extremities: vec!["$event".try_into().unwrap()],
        };
        let notes = [
            Note::Announce(Announce {
                peer: peer.clone(),
                at,
            }),
            Note::Compare(Compare {
                peer: peer.clone(),
                room,
                at,
            }),
            Note::Backfill(Backfill {
                room_id: room_id.clone(),
                at,
            }),
        ];
        for note in notes {
            assert_eq!(decode::<Note>(&encode(&note).unwrap()[4..]).unwrap(), note);
            assert_eq!(note.at(), at);
        }
        let asked = [
            ToLeader::Ask(Ask { peer }),
            ToLeader::Join(Join { room_id }),
            ToLeader::Joined(Joined { at }),
        ];
        for asked in asked {
            assert_eq!(decode::<ToLeader>(&encode(&asked).unwrap()[4..]).unwrap(), asked);
        }
        for answer in [FromLeader::Taken(Nothing {}), FromLeader::NotLeading(Nothing {})] {
            assert_eq!(
                decode::<FromLeader>(&encode(&answer).unwrap()[4..]).unwrap(),
                answer
            );
        }
    }
}
