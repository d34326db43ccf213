//! One request of sliding sync: looks at what there is, waits while there is nothing, and writes the answer.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use maru_protocol::canonical::write_text;
use maru_protocol::cursor::{Position, SinceToken, SlidingToken};
use tokio::time::Instant;

use super::connections::Remembered;
use super::extensions::{self, ExtensionWriter, Messages};
use super::gather::{Asking, Gathered};
use super::request::SlidingRequest;
use super::room::{JoinedParts, RoomWriter};
use super::room_state::{self, SentState};
use crate::accounts::Caller;
use crate::live::RoomUnread;
use crate::refusal::Refusal;
use crate::rooms::timeline::client_event_format::{Reader, Recency, UnsignedData};
use crate::store::accounts::sync_connections::ConnectionName;
use crate::store::rooms::events::StoredEvent;
use crate::sync::answer::{open, write_comma, write_json, write_name};
use crate::sync::deadline::before;
use crate::sync::lazy_members::GivenMembers;
use crate::sync::session::Session;
use crate::sync::{Sync, stripped, unread};

/// A device that asks for what there is after its `pos`.
#[derive(Debug)]
pub struct SlidingSession<'s> {
    sync: &'s Sync,
    session: Session<'s>,
    name: ConnectionName,
    request: Arc<SlidingRequest>,
    remembered: Remembered,
    given: GivenMembers,
    /// The device's `pos`.
    pos: Option<SlidingToken>,
    /// What has been looked at: nothing after the `pos` up to here is for the device.
    looked_at: Option<SinceToken>,
    /// Whether the request has been looked at: after that only news is an answer.
    has_looked: bool,
}

/// What rooms are written from.
struct Parts {
    states: HashMap<i64, SentState>,
    unread: HashMap<i64, RoomUnread>,
    bump_stamps: HashMap<i64, Position>,
    view: UnsignedData,
}

impl<'s> SlidingSession<'s> {
    pub(super) fn new(
        sync: &'s Sync,
        session: Session<'s>,
        name: ConnectionName,
        request: SlidingRequest,
        (pos, remembered): (Option<SlidingToken>, Remembered),
    ) -> Self {
        // A device may have several connections, each of which is given its own.
        let device_id = format!("{}\0{}", name.device_id, name.conn_id);
        let connection = Caller::on_device(name.user_id.clone(), device_id);
        let given = sync.sliding_members.of(&connection);
        Self {
            sync,
            session,
            name,
            request: Arc::new(request),
            remembered,
            given,
            pos,
            looked_at: pos.map(|pos| pos.since),
            has_looked: false,
        }
    }

    /// To be called right before the device's token is looked at: a recall after this ends the next wait at once.
    pub fn heed_recalls(&mut self) {
        self.session.heed_recalls();
    }

    /// Answers what there is, as the text of a JSON object, or waits for something, at most until `deadline`; an answer
    /// without news then. None when the wait ended before: look at the device's token and ask again. A new connection is
    /// answered at once.
    ///
    /// # Errors
    /// [`Refusal::UnknownPos`] when the connection must begin anew, or when the database does not answer.
    pub async fn next(&mut self, deadline: Instant) -> Result<Option<String>, Refusal> {
        // Boxed, since a waiting device must not hold the memory of an answer being written.
        if let Some(answer) = Box::pin(self.look(false)).await? {
            return Ok(Some(answer));
        }
        if before(deadline, self.session.wait()).await {
            return Ok(None);
        }
        Box::pin(self.look(true)).await
    }

    /// What there is for the device now. With `anyway` an answer although there is no news.
    async fn look(&mut self, anyway: bool) -> Result<Option<String>, Refusal> {
        let is_first = !std::mem::replace(&mut self.has_looked, true);
        if !is_first && !anyway && !self.session.has_news() {
            return Ok(None);
        }
        let mut now = self.session.now();
        let ignored = self.session.refresh_ignored_users().await?;
        let caller = self.session.caller().clone();
        let request = Arc::clone(&self.request);
        let asking = Asking {
            sync: self.sync,
            caller: &caller,
            session: &self.session,
            request: &request,
            connection: &self.remembered.connection,
            ignored: &ignored,
            since: self.looked_at,
        };
        let gathered = asking.gather(self.remembered.list.as_deref(), now).await?;
        if gathered.window.until > now.position {
            self.session.answered_before(gathered.window.until).await;
        }
        now.position = gathered.window.until;
        self.given
            .answering(self.pos.map(|pos| pos.since.position), now.position);
        let mut out = String::with_capacity(1_024 + gathered.window.expected_bytes());
        out.push('{');
        let has_rooms = self.write_rooms(&mut out, &gathered).await?;
        let has_extensions = self.write_extensions(&mut out, &gathered, now).await?;
        let is_answer = anyway || self.pos.is_none() || has_rooms || has_extensions;
        if !is_answer {
            self.look_on_from(gathered, now);
            return Ok(None);
        }
        write_lists(&mut out, &gathered);
        let pos = self.keep(gathered, now).await?;
        write_name(&mut out, "pos");
        write_json(&mut out, &pos.to_string());
        out.push('}');
        Ok(Some(out))
    }

    /// Goes on after a look at what is no news for the device.
    fn look_on_from(&mut self, gathered: Gathered<'_>, now: SinceToken) {
        self.session.looked_up_to(now);
        // Of a room that is not asked for now the device has nothing that was looked at, and it may be asked for later.
        let connection = &self.remembered.connection;
        if connection.keeps_only_current(|room| gathered.choice.rooms.contains_key(&room)) {
            self.looked_at = Some(now);
        }
        self.remembered.list = Some(Arc::new(gathered.list));
    }

    /// Keeps what the device will have after an answer; its next `pos`.
    async fn keep(&mut self, gathered: Gathered<'_>, now: SinceToken) -> Result<SlidingToken, Refusal> {
        let connection = Arc::clone(&self.remembered.connection);
        let since = self.pos.map_or(Position::START, |pos| pos.since.position);
        let sent = gathered
            .choice
            .rooms
            .iter()
            .map(|(nid, asked)| (*nid, &asked.config));
        let left: Vec<i64> = gathered.window.left.iter().map(|left| left.leave.room).collect();
        let random = || rand::random::<i64>() & i64::MAX;
        let after = connection.after(sent, &left, since, (random(), random()));
        let after = after.map_err(|_| Refusal::UnknownPos)?;
        let connections = &self.sync.connections;
        let connection = match after {
            None => connection,
            Some(changed) => {
                let now_ms = self.sync.clock.now_ms();
                let (store, name) = (&self.sync.store, &self.name);
                connections
                    .keep(store, name, connection.point, changed, now_ms)
                    .await?
            }
        };
        let pos = SlidingToken {
            since: now,
            point: connection.point,
        };
        let list = Some(Arc::new(gathered.list));
        connections.remember(&self.name, Remembered { connection, list });
        Ok(pos)
    }

    /// Appends the rooms with news; whether there are any.
    async fn write_rooms(&self, out: &mut String, gathered: &Gathered<'_>) -> Result<bool, Refusal> {
        let parts = self.parts(gathered).await?;
        let writer = RoomWriter {
            dialect: self.request.dialect,
            view: &parts.view,
            since: self.pos.map(|pos| pos.since.position),
        };
        let before = out.len();
        let rooms = open(out, "rooms");
        let none = SentState::default();
        for (nid, joined) in &gathered.window.joined {
            let Some(asked) = gathered.choice.rooms.get(nid) else {
                continue;
            };
            let room_id = &joined.room.room_id;
            let is_direct = gathered.list.is_direct(room_id);
            let sends_direct = gathered.direct_changed.contains(room_id) || (joined.entire && is_direct);
            let parts = JoinedParts {
                asked,
                joined,
                expanded: gathered.expanded.get(nid),
                state: parts.states.get(nid).unwrap_or(&none),
                unread: parts.unread.get(nid),
                is_direct: sends_direct.then_some(is_direct),
                bump_stamp: parts.bump_stamps.get(nid).copied(),
            };
            if parts.is_news() {
                writer.write_joined(out, &parts);
            }
        }
        for left in &gathered.window.left {
            writer.write_left(out, left);
        }
        for outside in &gathered.window.outside {
            let asked = gathered.choice.rooms.get(&outside.membership.room);
            let is_direct = gathered.list.is_direct(&outside.room_id);
            let stripped = stripped::events(self.sync, outside).await?;
            writer.write_outside(out, outside, asked, is_direct, &stripped);
        }
        rooms.close(out);
        Ok(out.len() > before)
    }

    /// What rooms are written from, in a constant number of queries.
    async fn parts(&self, gathered: &Gathered<'_>) -> Result<Parts, Refusal> {
        let (sync, window) = (self.sync, &gathered.window);
        let connection = &self.remembered.connection;
        let caller = self.session.caller();
        let states = room_state::of_rooms(sync, caller, connection, gathered, &self.given).await?;
        let counted = window
            .joined
            .values()
            .filter(|joined| joined.unread || joined.entire);
        let unread = unread::counts(sync, &caller.user_id, self.session.inbox(), counted).await?;
        let unsaid = window
            .joined
            .iter()
            .filter(|(_, joined)| joined.entire || joined.limited);
        let unsaid: Vec<i64> = unsaid.map(|(nid, _)| *nid).collect();
        let bump_stamps = match unsaid[..] {
            [] => HashMap::new(),
            _ => sync.store.rooms.bump_stamps(unsaid).await?,
        };
        let view = self.view(gathered, &states).await?;
        Ok(Parts {
            states,
            unread,
            bump_stamps,
            view,
        })
    }

    async fn view(
        &self,
        gathered: &Gathered<'_>,
        states: &HashMap<i64, SentState>,
    ) -> Result<UnsignedData, Refusal> {
        let (rooms, window) = (&self.sync.rooms, &gathered.window);
        let caller = self.session.caller();
        let reader = Reader {
            user_id: &caller.user_id,
            device_id: Some(&caller.device_id),
        };
        let followed = window.gathered || !gathered.expanded.is_empty();
        let recency = if followed {
            Recency::Followed
        } else {
            Recency::Live
        };
        let joined = window.joined.values();
        let partial = joined.clone().filter(|joined| joined.limited || joined.entire);
        let partial = partial.chain(gathered.expanded.values());
        let partial = partial.flat_map(|joined| &joined.timeline);
        let partial = partial.chain(window.left.iter().flat_map(|left| left.timeline()));
        let partial: Vec<&Arc<StoredEvent>> = partial.collect();
        let live = joined.filter(|joined| !joined.limited && !joined.entire);
        let live = live.flat_map(|joined| &joined.timeline);
        let state = states.values().flat_map(|state| &state.required);
        let leaves = window.left.iter().map(|left| &left.leave);
        let all: Vec<_> = partial
            .iter()
            .copied()
            .chain(live)
            .chain(state)
            .chain(leaves)
            .collect();
        let mut view = rooms.client_events.unsigned_data(reader, all, recency).await?;
        // What relates to an event stands after it, so a client that follows the room has it all unless something is left
        // out (client-server API, "Server behaviour" of aggregations).
        rooms.aggregations.bundle(&mut view, reader, &partial).await?;
        for (event_id, transaction_id) in &window.sent {
            view.sent_as(event_id, transaction_id);
        }
        Ok(view)
    }

    /// Appends what is wanted besides rooms; whether any of it is news.
    async fn write_extensions(
        &self,
        out: &mut String,
        gathered: &Gathered<'_>,
        now: SinceToken,
    ) -> Result<bool, Refusal> {
        let (sync, caller) = (self.sync, self.session.caller());
        let wanted = &self.request.extensions;
        let writer = ExtensionWriter {
            sync,
            caller,
            request: &self.request,
            gathered,
        };
        let opened = open(out, "extensions");
        let mut is_news = false;
        // Messages to the device stand before all that they decrypt.
        if let Some(wanted) = &wanted.to_device {
            let messages = match gathered.has_messages {
                true => extensions::to_device(sync, caller, wanted, now).await?,
                false => Messages::none(now),
            };
            is_news |= extensions::write_to_device(out, &messages);
        }
        if wanted.e2ee {
            let counts = sync.keys.counts(&caller.user_id, &caller.device_id).await?;
            is_news |= writer.write_e2ee(out, &counts);
        }
        is_news |= writer.write_account_data(out);
        is_news |= writer.write_receipts(out);
        is_news |= writer.write_typing(out);
        opened.close(out);
        Ok(is_news)
    }
}

/// Appends how many rooms each list has.
fn write_lists(out: &mut String, gathered: &Gathered<'_>) {
    let lists = open(out, "lists");
    for (name, count) in &gathered.choice.counts {
        write_comma(out);
        write_text(out, name);
        let _ = write!(out, ":{{\"count\":{count}}}");
    }
    lists.close(out);
}
