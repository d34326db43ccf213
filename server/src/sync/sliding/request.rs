//! What a device asks of sliding sync: lists of rooms, single rooms, and extensions (MSC4186, "Request Body").

use std::collections::{BTreeMap, BTreeSet};

use maru_protocol::cursor::SinceToken;
use ruma::OwnedRoomId;
use serde::{Deserialize, Serialize};

use super::required_state::RequiredState;

/// Most events of a room's timeline in one answer.
const MOST_TIMELINE: usize = 100;

/// The request of a device.
#[derive(Clone, Debug, Default)]
pub struct SlidingRequest {
    /// The device's name for the connection; may be empty.
    pub conn_id: String,
    /// Windows on the user's rooms, by the names that the device gives them.
    pub lists: BTreeMap<String, List>,
    /// Single rooms.
    pub subscriptions: BTreeMap<OwnedRoomId, RoomConfig>,
    /// What is wanted besides rooms.
    pub extensions: Extensions,
    /// The form of the answer.
    pub dialect: Dialect,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// `/v4/sync`, as MSC4186 was accepted.
    #[default]
    V4,
    /// `org.matrix.simplified_msc3575`, by which clients spoke it before.
    Simplified,
}

/// A window on the user's rooms, sorted by activity.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// Places in the list, from 0, first and last included; none for all rooms.
    pub ranges: Option<Vec<(usize, usize)>>,
    /// What is wanted of each room.
    pub config: RoomConfig,
    /// Which rooms are in the list.
    pub filters: Filters,
}

/// What is wanted of a room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomConfig {
    /// Most events of the timeline in one answer.
    pub timeline_limit: usize,
    /// Its state.
    pub required_state: RequiredState,
}

impl RoomConfig {
    /// What is wanted of a room, within the limits of this server.
    #[must_use]
    pub fn new(timeline_limit: usize, required_state: RequiredState) -> Self {
        Self {
            timeline_limit: timeline_limit.min(MOST_TIMELINE),
            required_state,
        }
    }

    /// About what it takes in memory, in bytes.
    pub(super) fn weight(&self) -> usize {
        64 + self.required_state.weight()
    }

    /// Wants what another one wants too.
    pub(super) fn join(&mut self, other: &Self) {
        self.timeline_limit = self.timeline_limit.max(other.timeline_limit);
        self.required_state.join(&other.required_state);
    }
}

/// Which rooms are in a list: those of which all this is true.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    /// Whether it is a direct chat, by the user's `m.direct`.
    pub is_dm: Option<bool>,
    /// Children of these spaces, as far as the user is joined to them.
    pub spaces: Option<BTreeSet<OwnedRoomId>>,
    /// Whether it is encrypted.
    pub is_encrypted: Option<bool>,
    /// Whether the user is invited to it, and not in it.
    pub is_invited: Option<bool>,
    /// Its type; none stands for a room without one.
    pub room_types: Option<BTreeSet<Option<String>>>,
    /// Types that it does not have.
    pub not_room_types: BTreeSet<Option<String>>,
    /// It has one of these tags.
    pub tags: Option<BTreeSet<String>>,
    /// Tags that it does not have.
    pub not_tags: BTreeSet<String>,
}

impl Filters {
    /// Whether something of the room's state must be known.
    pub(super) fn looks_at_state(&self) -> bool {
        self.is_encrypted.is_some() || self.room_types.is_some() || !self.not_room_types.is_empty()
    }

    /// Whether the room's tags must be known.
    pub(super) fn looks_at_tags(&self) -> bool {
        self.tags.is_some() || !self.not_tags.is_empty()
    }
}

/// What is wanted besides rooms.
#[derive(Clone, Debug, Default)]
pub struct Extensions {
    /// Messages to the device (MSC3885).
    pub to_device: Option<ToDevice>,
    /// Device lists and counts of keys (MSC3884).
    pub e2ee: bool,
    /// Account data (MSC3959).
    pub account_data: Option<Scope>,
    /// Receipts (MSC3960).
    pub receipts: Option<Scope>,
    /// Typing (MSC3961).
    pub typing: Option<Scope>,
}

/// Which messages to the device are wanted.
#[derive(Clone, Debug, Default)]
pub struct ToDevice {
    /// Those up to here have arrived.
    pub since: Option<SinceToken>,
    /// Most in one answer.
    pub limit: Option<usize>,
}

/// The rooms that an extension is wanted of, among those that the request asks for.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Rooms of these lists; none for all lists.
    pub lists: Option<BTreeSet<String>>,
    /// These of the single rooms; none for all.
    pub rooms: Option<BTreeSet<OwnedRoomId>>,
}

impl SlidingRequest {
    /// The largest of the limits of timelines.
    pub(super) fn most_timeline(&self) -> usize {
        let lists = self.lists.values().map(|list| list.config.timeline_limit);
        let rooms = self.subscriptions.values().map(|config| config.timeline_limit);
        lists.chain(rooms).max().unwrap_or(0)
    }
}
