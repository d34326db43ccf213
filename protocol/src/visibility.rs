//! Who may see an event: the history visibility rules (client-server specification, "Room history
//! visibility"). Every path on which anybody reads an event ends in [`may_see`].

use std::str::FromStr;

use serde::Deserialize;

use crate::event::Event;

/// The history visibility of a room at some point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HistoryVisibility {
    /// Members see what was sent while they were joined.
    Joined,
    /// Members see what was sent since they were invited.
    Invited,
    /// Members see everything, once they have joined. The default of the specification.
    #[default]
    Shared,
    /// Everybody sees everything.
    WorldReadable,
}

/// What a user is to a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Membership {
    /// In the room.
    Join,
    /// Invited.
    Invite,
    /// Has asked to be invited.
    Knock,
    /// Was there, was never there, or was kicked.
    Leave,
    /// Banned.
    Ban,
}

/// A name that is no membership or no history visibility.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown name")]
pub struct UnknownName;

impl HistoryVisibility {
    /// The name in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Invited => "invited",
            Self::Shared => "shared",
            Self::WorldReadable => "world_readable",
        }
    }

    /// What an event of type `m.room.history_visibility` says; an unknown value means the default.
    pub fn of(event: &Event) -> Self {
        #[derive(Deserialize)]
        struct Field {
            history_visibility: String,
        }
        event
            .content_as::<Field>()
            .ok()
            .and_then(|content| content.history_visibility.parse().ok())
            .unwrap_or_default()
    }
}

impl FromStr for HistoryVisibility {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        [Self::Joined, Self::Invited, Self::Shared, Self::WorldReadable]
            .into_iter()
            .find(|visibility| visibility.as_str() == text)
            .ok_or(UnknownName)
    }
}

impl Membership {
    /// The name in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Invite => "invite",
            Self::Knock => "knock",
            Self::Leave => "leave",
            Self::Ban => "ban",
        }
    }

    /// What an event of type `m.room.member` says, if it says anything known.
    pub fn of(event: &Event) -> Option<Self> {
        #[derive(Deserialize)]
        struct Field {
            membership: String,
        }
        event.content_as::<Field>().ok()?.membership.parse().ok()
    }
}

impl FromStr for Membership {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        [Self::Join, Self::Invite, Self::Knock, Self::Leave, Self::Ban]
            .into_iter()
            .find(|membership| membership.as_str() == text)
            .ok_or(UnknownName)
    }
}

/// A value just before and just after an event. The two differ only if the event itself changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Around<T> {
    /// In the state before the event.
    pub before: T,
    /// In the state after the event.
    pub after: T,
}

impl<T: Copy> Around<T> {
    /// A value that the event does not change.
    pub fn unchanged(value: T) -> Self {
        Self {
            before: value,
            after: value,
        }
    }

    fn each(self) -> [T; 2] {
        [self.before, self.after]
    }
}

/// What the decision about one event and one user reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// The history visibility of the room.
    pub visibility: Around<HistoryVisibility>,
    /// The user's membership; [`Membership::Leave`] if there was none.
    pub membership: Around<Membership>,
    /// Whether the user joined the room at any point after the event, even if they left again.
    pub joined_later: bool,
}

/// Whether a user may see an event.
///
/// An event that changes the visibility, or this user's own membership, may be seen if either side of
/// the change would allow it: people see their own joining and their own leaving.
pub fn may_see(sight: Sight) -> bool {
    sight.visibility.each().into_iter().any(|visibility| {
        sight
            .membership
            .each()
            .into_iter()
            .any(|membership| match (visibility, membership) {
                (HistoryVisibility::WorldReadable, _) | (_, Membership::Join) => true,
                (HistoryVisibility::Shared, _) => sight.joined_later,
                (HistoryVisibility::Invited, Membership::Invite) => true,
                _ => false,
            })
    })
}

#[cfg(test)]
mod tests {
    use super::{HistoryVisibility::*, Membership::*, *};

    fn steady(visibility: HistoryVisibility, membership: Membership, joined_later: bool) -> Sight {
        Sight {
            visibility: Around::unchanged(visibility),
            membership: Around::unchanged(membership),
            joined_later,
        }
    }

    #[test]
    fn the_table_of_the_specification() {
        // Columns: join, invite, knock, leave, ban; without and with a join later.
        let table = [
            (WorldReadable, false, [true, true, true, true, true]),
            (WorldReadable, true, [true, true, true, true, true]),
            (Shared, false, [true, false, false, false, false]),
            (Shared, true, [true, true, true, true, true]),
            (Invited, false, [true, true, false, false, false]),
            (Invited, true, [true, true, false, false, false]),
            (Joined, false, [true, false, false, false, false]),
            (Joined, true, [true, false, false, false, false]),
        ];
        for (visibility, joined_later, row) in table {
            for (membership, expected) in [Join, Invite, Knock, Leave, Ban].into_iter().zip(row) {
                let seen = may_see(steady(visibility, membership, joined_later));
                assert_eq!(
                    seen, expected,
                    "{visibility:?} {membership:?} joined later: {joined_later}"
                );
            }
        }
    }

    #[test]
    fn a_change_may_be_seen_from_either_side() {
        let left = Sight {
            membership: Around {
                before: Join,
                after: Leave,
            },
            ..steady(Joined, Leave, false)
        };
        assert!(may_see(left));
        let joined = Sight {
            membership: Around {
                before: Leave,
                after: Join,
            },
            ..steady(Joined, Leave, false)
        };
        assert!(may_see(joined));
        let kicked_invite = Sight {
            membership: Around {
                before: Invite,
                after: Leave,
            },
            ..left
        };
        assert!(!may_see(kicked_invite));
        for visibility in [
            Around {
                before: WorldReadable,
                after: Joined,
            },
            Around {
                before: Joined,
                after: WorldReadable,
            },
        ] {
            assert!(may_see(Sight {
                visibility,
                ..steady(Joined, Leave, false)
            }));
        }
        // Shared is not simply more than invited: it shows nothing to somebody who is only invited.
        let closing = Around {
            before: Invited,
            after: Shared,
        };
        assert!(may_see(Sight {
            visibility: closing,
            ..steady(Shared, Invite, false)
        }));
    }

    #[test]
    fn names_are_those_of_events() {
        for visibility in [Joined, Invited, Shared, WorldReadable] {
            assert_eq!(visibility.as_str().parse(), Ok(visibility));
        }
        for membership in [Join, Invite, Knock, Leave, Ban] {
            assert_eq!(membership.as_str().parse(), Ok(membership));
        }
        assert_eq!("JOIN".parse::<Membership>(), Err(UnknownName));
        assert_eq!("".parse::<HistoryVisibility>(), Err(UnknownName));
    }
}
