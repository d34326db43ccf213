//! A view of who may do what in a room (client-server specification, `m.room.power_levels`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use ruma::{OwnedUserId, UserId};
use serde::Deserialize;

use super::Denied;
use crate::{event::Event, version::RoomVersion};

/// How much power a user has. Creators of version 12 rooms stand above every number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PowerLevel {
    /// A number, 0 for ordinary users and 100 for admins by custom.
    Finite(i64),
    /// More than any number.
    Infinite,
}

impl fmt::Display for PowerLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finite(level) => level.fmt(f),
            Self::Infinite => f.write_str("infinite"),
        }
    }
}

/// The content of a power-levels event with the defaults of the specification filled in.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Levels {
    #[serde(default = "fifty")]
    ban: i64,
    #[serde(default = "fifty")]
    kick: i64,
    #[serde(default = "fifty")]
    redact: i64,
    #[serde(default = "fifty")]
    state_default: i64,
    #[serde(default)]
    events_default: i64,
    #[serde(default)]
    invite: i64,
    #[serde(default)]
    users_default: i64,
    #[serde(default)]
    events: BTreeMap<String, i64>,
    #[serde(default)]
    notifications: BTreeMap<String, i64>,
    #[serde(default)]
    users: BTreeMap<OwnedUserId, i64>,
}

fn fifty() -> i64 {
    50
}

impl Levels {
    /// What the rules assume in a room without a power-levels event.
    fn without_event(creators: &BTreeSet<OwnedUserId>) -> Self {
        Self {
            ban: 50,
            kick: 50,
            redact: 50,
            state_default: 50,
            events_default: 0,
            invite: 0,
            users_default: 0,
            events: BTreeMap::new(),
            notifications: BTreeMap::new(),
            users: creators.iter().map(|creator| (creator.clone(), 100)).collect(),
        }
    }
}

/// Who may do what in a room, from its create and power-levels events. Cheap to make again for each
/// message: the parsed levels are kept with their event.
#[derive(Debug, Clone)]
pub struct PowerLevels {
    levels: Arc<Levels>,
    creators: BTreeSet<OwnedUserId>,
    privileged: bool,
}

impl PowerLevels {
    /// The view that these two state events give.
    ///
    /// # Errors
    /// [`Denied`] when either is malformed, which the rules keep out of a room's state.
    pub fn new(version: RoomVersion, create: &Event, power_levels: Option<&Event>) -> Result<Self, Denied> {
        let creators = creators(version, create)?;
        let levels = match power_levels {
            Some(event) => event
                .levels()
                .ok_or_else(|| Denied::because("the room's power levels are malformed"))?,
            None => Arc::new(Levels::without_event(&creators)),
        };
        Ok(Self {
            levels,
            creators,
            privileged: version.creators_are_privileged(),
        })
    }

    /// The power of a user.
    pub fn for_user(&self, user: &UserId) -> PowerLevel {
        if self.privileged && self.creators.contains(user) {
            return PowerLevel::Infinite;
        }
        PowerLevel::Finite(
            self.levels
                .users
                .get(user)
                .copied()
                .unwrap_or(self.levels.users_default),
        )
    }

    /// The power needed to send an event of a type.
    pub fn needed(&self, event_type: &str, is_state: bool) -> PowerLevel {
        let default = if is_state {
            self.levels.state_default
        } else {
            self.levels.events_default
        };
        PowerLevel::Finite(self.levels.events.get(event_type).copied().unwrap_or(default))
    }

    /// The power needed to notify with a key of `notifications`, such as `room`.
    pub fn notifications(&self, key: &str) -> PowerLevel {
        PowerLevel::Finite(self.levels.notifications.get(key).copied().unwrap_or(50))
    }

    /// The power needed to invite.
    pub fn invite(&self) -> PowerLevel {
        PowerLevel::Finite(self.levels.invite)
    }

    /// The power needed to kick.
    pub fn kick(&self) -> PowerLevel {
        PowerLevel::Finite(self.levels.kick)
    }

    /// The power needed to ban.
    pub fn ban(&self) -> PowerLevel {
        PowerLevel::Finite(self.levels.ban)
    }

    /// The power needed to redact other users' events.
    pub fn redact(&self) -> PowerLevel {
        PowerLevel::Finite(self.levels.redact)
    }

    /// Whether a user may send events of a type, by power alone.
    pub fn may_send(&self, user: &UserId, event_type: &str, is_state: bool) -> bool {
        self.for_user(user) >= self.needed(event_type, is_state)
    }

    /// The creators of the room.
    pub fn creators(&self) -> &BTreeSet<OwnedUserId> {
        &self.creators
    }
}

/// The creators of a room: the sender of the create event (the named one before version 11), and from
/// version 12 on those it names beside.
fn creators(version: RoomVersion, create: &Event) -> Result<BTreeSet<OwnedUserId>, Denied> {
    #[derive(Deserialize)]
    struct Named {
        creator: OwnedUserId,
    }
    #[derive(Deserialize)]
    struct Additional {
        #[serde(default)]
        additional_creators: BTreeSet<OwnedUserId>,
    }
    let malformed = |_| Denied::because("the create event does not say who created the room");
    let mut creators = BTreeSet::new();
    if version.rules().authorization.additional_room_creators {
        creators = create
            .content_as::<Additional>()
            .map_err(malformed)?
            .additional_creators;
    }
    creators.insert(if version.create_names_creator() {
        create.content_as::<Named>().map_err(malformed)?.creator
    } else {
        create.sender.clone()
    });
    Ok(creators)
}
