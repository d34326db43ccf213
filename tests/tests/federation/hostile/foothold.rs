//! A liar's user in a room of the victim: joined by the book, so that what it says there afterwards is looked at.

use maru_federation::pool::RequestError;
use maru_protocol::canonical::Content;
use maru_protocol::event::{Draft, Event, Links, build};
use maru_protocol::wire::bounded::Text;
use maru_protocol::wire::log::Event as EventItem;
use maru_protocol::wire::request::membership::{Admission, MakeMembership, Membership, SendMembership};
use maru_protocol::wire::{LogItem, RefusedCode};
use maru_protocol::{RoomVersion, SigningKey};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId};
use serde_json::{Value, json};

use super::liar::{Liar, Victim, now_ms};

/// Most bytes of an event in rooms that Maru makes.
const LARGEST: usize = maru_protocol::limits::LARGE_MAX_EVENT_BYTES;

/// What is needed to build events in a room.
#[derive(Clone)]
pub(super) struct Foothold {
    pub(super) room_id: OwnedRoomId,
    pub(super) version: RoomVersion,
    /// The user, by default of the liar.
    pub(super) user: OwnedUserId,
    /// Whose signature the events bear.
    pub(super) server: OwnedServerName,
    pub(super) key: SigningKey,
    /// What allows a message of the user: power levels and membership.
    pub(super) auth_events: Vec<OwnedEventId>,
    /// What events are built on.
    pub(super) prev_events: Vec<OwnedEventId>,
    pub(super) depth: u64,
}

impl Liar {
    /// Joins a public room of the victim.
    ///
    /// # Panics
    /// When the victim refuses.
    pub(super) async fn join(&self, victim: &Victim, room: &str) -> Foothold {
        self.try_join(victim, room).await.unwrap()
    }

    pub(super) async fn try_join(&self, victim: &Victim, room: &str) -> Result<Foothold, RequestError> {
        let (foothold, join) = self.build_join(victim, room).await?;
        self.hand_in(victim, &join).await?;
        Ok(foothold)
    }

    /// Builds what would bring the liar into a room, and how it would go on from there.
    pub(super) async fn build_join(
        &self,
        victim: &Victim,
        room: &str,
    ) -> Result<(Foothold, Event), RequestError> {
        let room_id = OwnedRoomId::try_from(room).unwrap();
        let user = OwnedUserId::try_from(format!("@liar:{}", self.name)).unwrap();
        let call = MakeMembership {
            room_id: room_id.clone(),
            user_id: user.clone(),
            membership: Membership::Join,
            versions: RoomVersion::ALL
                .iter()
                .map(|version| Text::new(version.as_str()).unwrap())
                .collect(),
        };
        let template = self.pool.request(&victim.name, call).await?.done().await?;
        let version = RoomVersion::from_id(&template.version).unwrap();
        let allowing: Vec<Event> = template
            .auth_events
            .iter()
            .map(|json| Event::parse(json, version, LARGEST, 100).unwrap())
            .collect();
        let levels = allowing
            .iter()
            .find(|event| event.is_state_at("m.room.power_levels", ""));
        let mut foothold = Foothold {
            room_id,
            version,
            user: user.clone(),
            server: self.name.clone(),
            key: self.keys.signing.clone(),
            auth_events: allowing.iter().map(|event| event.id.clone()).collect(),
            prev_events: template.prev_events.clone(),
            depth: template.depth,
        };
        let join = foothold.event(
            "m.room.member",
            Some(user.as_str()),
            json!({ "membership": "join" }),
        );
        foothold.auth_events = levels.map(|event| event.id.clone()).into_iter().collect();
        foothold.auth_events.push(join.id.clone());
        foothold.go_on(&join);
        Ok((foothold, join))
    }

    /// Hands in a membership event.
    pub(super) async fn hand_in(&self, victim: &Victim, event: &Event) -> Result<Admission, RequestError> {
        let call = SendMembership {
            room_id: event.room_id.clone(),
            event: event.json.clone().into(),
        };
        self.pool.request(&victim.name, call).await?.done().await
    }

    /// Why a request is refused.
    ///
    /// # Panics
    /// When it is not.
    pub(super) fn refused<T: std::fmt::Debug>(answer: Result<T, RequestError>) -> RefusedCode {
        match answer {
            Err(RequestError::Refused(refused)) => refused.code,
            other => panic!("not refused: {other:?}"),
        }
    }
}

impl Foothold {
    /// The next events are built on this one.
    pub(super) fn go_on(&mut self, event: &Event) {
        self.prev_events = vec![event.id.clone()];
        self.depth = event.depth + 1;
    }

    /// An event of the user.
    pub(super) fn event(&self, event_type: &str, state_key: Option<&str>, content: Value) -> Event {
        self.build(self.draft(event_type, state_key, content))
    }

    fn build(&self, draft: Draft) -> Event {
        let links = Links {
            prev_events: self.prev_events.clone(),
            auth_events: self.auth_events.clone(),
            depth: self.depth,
        };
        build(draft, links, self.version, LARGEST, &self.server, &self.key).unwrap()
    }

    fn draft(&self, event_type: &str, state_key: Option<&str>, content: Value) -> Draft {
        Draft {
            room_id: Some(self.room_id.clone()),
            sender: self.user.clone(),
            event_type: event_type.into(),
            state_key: state_key.map(Into::into),
            content: Content::of(&content).unwrap(),
            redacts: None,
            origin_server_ts: now_ms(),
        }
    }

    /// The create event of a room, which from version 12 on names the room.
    pub(super) fn create(&self, content: Value) -> Event {
        let mut draft = self.draft("m.room.create", Some(""), content);
        draft.room_id = draft.room_id.filter(|_| !self.version.room_id_is_hash());
        build(
            draft,
            Links {
                depth: 1,
                ..Links::default()
            },
            self.version,
            LARGEST,
            &self.server,
            &self.key,
        )
        .unwrap()
    }

    /// A text message of the user.
    pub(super) fn message(&self, text: &str) -> Event {
        self.message_at(now_ms(), text)
    }

    /// A text message that claims to be of this time.
    pub(super) fn message_at(&self, time_ms: u64, text: &str) -> Event {
        let content = json!({ "msgtype": "m.text", "body": text });
        let mut draft = self.draft("m.room.message", None, content);
        draft.origin_server_ts = time_ms;
        self.build(draft)
    }

    /// An event as an item of the log, for this room.
    pub(super) fn item(&self, json: &str) -> LogItem {
        LogItem::Event(EventItem {
            room_id: self.room_id.clone(),
            json: json.into(),
        })
    }
}
