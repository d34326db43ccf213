//! Members as a room's head counts them: how many there are, and on which servers.

use std::sync::Arc;

use maru_protocol::event::Event;
use ruma::UserId;

use crate::store::events::StoredEvent;
use crate::store::interests::{Interest, Interested};
use crate::store::rooms::{Membership, RoomHead};

/// What a membership event says.
pub(super) fn membership_name(event: &Event) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Content {
        membership: String,
    }
    event
        .content_as::<Content>()
        .ok()
        .map(|content| content.membership)
}

/// The membership that an event makes in the current state, if it is a membership event.
pub(super) fn membership_of(stored: &StoredEvent) -> Option<Membership> {
    let event = &stored.event;
    if &*event.event_type != "m.room.member" {
        return None;
    }
    Some(Membership {
        room: stored.room,
        user_id: event.state_key.as_deref()?.try_into().ok()?,
        membership: membership_name(event)?,
        event: stored.nid,
        stripped_state: None,
    })
}

impl RoomHead {
    /// Counts one slot of the state anew, in which `after` takes the place of `before`. Answers which servers' interest
    /// in the room changes; that of this server is among them.
    pub(super) fn count_member(&mut self, before: Option<&Event>, after: Option<&Event>) -> Vec<Interest> {
        let Some(event) = after
            .or(before)
            .filter(|event| &*event.event_type == "m.room.member")
        else {
            return Vec::new();
        };
        let name = |event: Option<&Event>| event.and_then(membership_name);
        let (before, after) = (name(before), name(after));
        let counts = [("join", &mut self.joined), ("invite", &mut self.invited)];
        for (name, count) in counts {
            *count += u64::from(after.as_deref() == Some(name));
            *count = count.saturating_sub(u64::from(before.as_deref() == Some(name)));
        }
        let Some(user_id) = event
            .state_key
            .as_deref()
            .and_then(|key| <&UserId>::try_from(key).ok())
        else {
            return Vec::new();
        };
        let (was_in, is_in) = (
            before.as_deref() == Some("join"),
            after.as_deref() == Some("join"),
        );
        let server_name = user_id.server_name();
        let members = self.servers.get(server_name).copied().unwrap_or(0);
        let change = match (was_in, is_in) {
            (false, true) => {
                Arc::make_mut(&mut self.servers).insert(server_name.to_owned(), members + 1);
                (members == 0).then_some(Interested::From)
            }
            (true, false) if members <= 1 => {
                Arc::make_mut(&mut self.servers).remove(server_name);
                Some(Interested::Until)
            }
            (true, false) => {
                Arc::make_mut(&mut self.servers).insert(server_name.to_owned(), members - 1);
                None
            }
            _ => (members == 0).then_some(Interested::Once),
        };
        let room = self.room;
        change
            .map(|change| Interest {
                room,
                server_name: server_name.to_owned(),
                change,
            })
            .into_iter()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use maru_protocol::RoomVersion;
    use maru_protocol::event::{Draft, Links, build};
    use maru_protocol::key::{KeyId, SecretKey, SigningKey};
    use ruma::OwnedUserId;

    use super::*;
    use crate::rooms::create::empty_head;

    fn member(user_id: &str, membership: &str) -> Event {
        let sender: OwnedUserId = user_id.try_into().unwrap();
        let key = SigningKey {
            id: KeyId::new("1").unwrap(),
            secret: SecretKey::from_seed(&[1; 32]),
        };
        let draft = Draft {
            room_id: Some("!r:a.example".try_into().unwrap()),
            sender: sender.clone(),
            event_type: "m.room.member".into(),
            state_key: Some(user_id.into()),
            content: serde_json::json!({ "membership": membership })
                .try_into()
                .unwrap(),
            redacts: None,
            origin_server_ts: 1,
        };
        let server = sender.server_name();
        build(draft, Links::default(), RoomVersion::V11, 65_536, server, &key).unwrap()
    }

    #[test]
    fn a_server_is_interested_while_one_of_its_users_is_in() {
        let mut head = empty_head(1);
        let (joins, leaves) = (member("@a:b.example", "join"), member("@a:b.example", "leave"));
        let (other, gone) = (member("@c:b.example", "join"), member("@c:b.example", "leave"));
        let invited = member("@a:b.example", "invite");
        let mut count = |before: Option<&Event>, after: &Event| {
            let interests = head.count_member(before, Some(after));
            interests.first().map(|interest| interest.change)
        };
        assert_eq!(count(None, &invited), Some(Interested::Once));
        assert_eq!(count(Some(&invited), &joins), Some(Interested::From));
        assert_eq!(count(None, &other), None);
        assert_eq!(count(Some(&joins), &leaves), None);
        assert_eq!(count(Some(&other), &gone), Some(Interested::Until));
        assert_eq!(count(Some(&leaves), &invited), Some(Interested::Once));
        assert_eq!((head.joined, head.invited), (0, 1));
        assert!(head.servers.is_empty());
    }
}
