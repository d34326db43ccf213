//! Which servers an event is for (`spec/federation.md`, "The log stream").
//!
//! A server is interested in a room while one of its users is in it, by the current state. The [`Census`] counts those
//! users. Whenever a membership in the current state changes, it says whose interest changes with it, and the replica
//! writes that down at the position of the event that changed it. So the destinations of every event are fixed when it
//! is stored: the servers in the room by the state before it and by the state after it, and that of a membership event's
//! state key.

use std::collections::BTreeMap;

use ruma::{OwnedServerName, ServerName, UserId};
use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::ingest::Outcome;

/// How many joined users of a room each server has.
pub type Census = BTreeMap<OwnedServerName, u64>;

/// How a server's interest in a room changes with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Interested {
    /// From this event on.
    From,
    /// Up to and with this event.
    Until,
    /// In this event alone: an invitation, or its end.
    Once,
}

impl Interested {
    /// Whether a change of the current state brings this about by the event that was taken in. Where a resolution puts another
    /// event into a slot, what was taken in is not about the server, which is interested in nothing else.
    #[must_use]
    pub fn is_by(self, taken: &Event, after: Option<&Event>) -> bool {
        self != Self::Once || after.is_some_and(|after| after.id == taken.id)
    }
}

/// What a membership event says: `join`, `invite`, `leave`, `ban` or `knock`; none where it is no membership event.
#[must_use]
pub fn membership(event: &Event) -> Option<String> {
    #[derive(Deserialize)]
    struct Content {
        membership: String,
    }
    if &*event.event_type != "m.room.member" {
        return None;
    }
    let content = event.content_as::<Content>().ok()?;
    Some(content.membership)
}

/// Whether an event says what a user of a server is to the room.
#[must_use]
pub fn is_membership_of(event: &Event, server_name: &ServerName) -> bool {
    let user_id = event.state_key.as_deref().map(<&UserId>::try_from);
    &*event.event_type == "m.room.member"
        && matches!(user_id, Some(Ok(user_id)) if user_id.server_name() == server_name)
}

/// Counts one slot of the current state anew, in which `after` takes the place of `before`. Answers whose interest
/// changes and how; it may be the replica's own server.
pub fn recount(
    census: &mut Census,
    before: Option<&Event>,
    after: Option<&Event>,
) -> Option<(OwnedServerName, Interested)> {
    let event = after.or(before)?;
    if &*event.event_type != "m.room.member" {
        return None;
    }
    let user_id = <&UserId>::try_from(event.state_key.as_deref()?).ok()?;
    let joined = |event: Option<&Event>| event.and_then(membership).as_deref() == Some("join");
    let server_name = user_id.server_name();
    let members = census.get(server_name).copied().unwrap_or(0);
    let change = match (joined(before), joined(after)) {
        (false, true) => {
            census.insert(server_name.to_owned(), members + 1);
            (members == 0).then_some(Interested::From)
        }
        (true, false) if members <= 1 => {
            census.remove(server_name);
            Some(Interested::Until)
        }
        (true, false) => {
            census.insert(server_name.to_owned(), members - 1);
            None
        }
        _ => (members == 0).then_some(Interested::Once),
    };
    change.map(|change| (server_name.to_owned(), change))
}

/// The servers that are found to be in a room by the census after a change. Each is told soon where the room ends: what was
/// sent while it was not known to be there was not meant for it.
pub fn found<'a>(before: &'a Census, after: &'a Census) -> impl Iterator<Item = &'a OwnedServerName> {
    after.keys().filter(|name| !before.contains_key(*name))
}

/// Whether a server goes on in a room without being in it by this replica's account, as its event shows of which this became;
/// none where the replica's own server has left and takes in nothing. It may not know that it has left: it is told the event
/// with which it did.
#[must_use]
pub fn is_stray(census: &Census, sender: &ServerName, outcome: Option<Outcome>) -> bool {
    outcome != Some(Outcome::Accepted) && !census.contains_key(sender)
}

/// The interests of a room that begins anew on this replica: all its servers', and no others'. `open` are those whose
/// interest has not ended.
#[must_use]
pub fn anew(
    census: &Census,
    open: &[OwnedServerName],
    own: &ruma::ServerName,
) -> Vec<(OwnedServerName, Interested)> {
    let gone = open.iter().filter(|name| !census.contains_key(*name));
    let come = census.keys().filter(|name| !open.contains(name) && **name != own);
    gone.map(|name| (name.clone(), Interested::Until))
        .chain(come.map(|name| (name.clone(), Interested::From)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::destinations::*;
    use crate::event::{Draft, Links, build};
    use crate::test_room;
    use crate::version::RoomVersion;

    fn member(user_id: &str, membership: &str) -> Event {
        let sender: ruma::OwnedUserId = user_id.try_into().unwrap();
        let draft = Draft {
            room_id: Some("!r:a.example".try_into().unwrap()),
            sender: sender.clone(),
            event_type: "m.room.member".into(),
            state_key: Some(user_id.into()),
            content: json!({ "membership": membership }).try_into().unwrap(),
            redacts: None,
            origin_server_ts: 1,
        };
        let (server, key) = (sender.server_name(), test_room::key());
        build(draft, Links::default(), RoomVersion::V11, 65_536, server, &key).unwrap()
    }

    #[test]
    fn a_server_is_interested_while_one_of_its_users_is_in() {
        let mut census = Census::new();
        let (joins, leaves) = (member("@a:b.example", "join"), member("@a:b.example", "leave"));
        let (other, gone) = (member("@c:b.example", "join"), member("@c:b.example", "leave"));
        let invited = member("@a:b.example", "invite");
        let mut count = |before: Option<&Event>, after: Option<&Event>| {
            recount(&mut census, before, after).map(|(_, change)| change)
        };
        assert_eq!(count(None, Some(&invited)), Some(Interested::Once));
        assert_eq!(count(Some(&invited), Some(&joins)), Some(Interested::From));
        assert_eq!(count(None, Some(&other)), None);
        assert_eq!(count(Some(&joins), Some(&leaves)), None);
        assert_eq!(count(Some(&other), Some(&gone)), Some(Interested::Until));
        assert_eq!(count(Some(&leaves), Some(&invited)), Some(Interested::Once));
        assert_eq!(count(Some(&invited), Some(&joins)), Some(Interested::From));
        assert_eq!(
            count(Some(&joins), None),
            Some(Interested::Until),
            "a slot that is emptied"
        );
        assert!(census.is_empty());
    }

    #[test]
    fn who_is_invited_hears_of_that_alone() {
        let (invited, left) = (member("@a:b.example", "invite"), member("@a:b.example", "leave"));
        assert!(Interested::Once.is_by(&invited, Some(&invited)));
        assert!(!Interested::Once.is_by(&left, Some(&invited)), "by a resolution");
        assert!(!Interested::Once.is_by(&left, None), "by a resolution");
        assert!(Interested::Until.is_by(&invited, Some(&left)));
        assert!(Interested::From.is_by(&left, None));
    }

    #[test]
    fn who_is_found_is_told_and_who_strays_is() {
        let name = |name: &str| -> OwnedServerName { name.try_into().unwrap() };
        let (stays, comes) = (name("a.example"), name("b.example"));
        let before: Census = [(stays.clone(), 1)].into();
        let after: Census = [(stays.clone(), 2), (comes.clone(), 1)].into();
        assert!(found(&before, &after).eq([&comes]));
        assert!(found(&after, &before).next().is_none());
        assert!(is_stray(&before, &comes, Some(Outcome::SoftFailed)));
        assert!(is_stray(&before, &comes, None), "to a server that has left");
        assert!(!is_stray(&before, &comes, Some(Outcome::Accepted)));
        assert!(!is_stray(&after, &comes, None));
    }

    #[test]
    fn a_room_that_begins_anew_has_the_interests_of_its_servers() {
        let name = |name: &str| -> OwnedServerName { name.try_into().unwrap() };
        let (own, stays, goes, comes) = (
            name("own.example"),
            name("a.example"),
            name("b.example"),
            name("c.example"),
        );
        let census: Census = [&own, &stays, &comes].map(|name| (name.clone(), 1)).into();
        assert_eq!(
            anew(&census, &[stays, goes.clone()], &own),
            [(goes, Interested::Until), (comes, Interested::From)]
        );
    }
}
