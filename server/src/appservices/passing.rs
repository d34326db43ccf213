//! Who types and who is present, for services that want to know. No log holds it: it is told once, as it is now, and what a
//! service misses while it is away or the server restarts it is told with the next change.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ruma::OwnedUserId;
use serde_json::{Value, json};

use super::reader::{ServiceReader, Turn};
use super::{Sources, transaction};
use crate::nodes::HeldLease;
use crate::readers::Reader;
use crate::refusal::Refusal;

/// How long changes gather before they are told.
const GATHERED: Duration = Duration::from_millis(200);

/// Changes that are told at once; of more, the others are left out.
const MOST: usize = 200;

/// What tells one service.
pub(super) struct Passing {
    reader: Arc<ServiceReader>,
    sources: Sources,
}

impl Passing {
    pub(super) fn new(reader: Arc<ServiceReader>, sources: Sources) -> Self {
        Self { reader, sources }
    }

    /// Tells the service of every change, while this node leads its reader.
    pub(super) async fn tell(self, mut lease: HeldLease) {
        let notifier = Arc::clone(&self.sources.notifier);
        loop {
            while lease.borrow_and_update().is_none() {
                if lease.changed().await.is_err() {
                    return;
                }
            }
            let mut told = notifier.ephemeral();
            while lease.borrow().is_some() {
                tokio::select! {
                    () = notifier.passed(told) => {}
                    changed = lease.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return,
                    },
                }
                tokio::time::sleep(GATHERED).await;
                let newest = notifier.ephemeral();
                if let Err(refusal) = self.tell_after(told).await {
                    let reader = self.reader.name();
                    tracing::debug!(reader, %refusal, "what passes is not told");
                }
                told = newest;
            }
        }
    }

    async fn tell_after(&self, told: u64) -> Result<(), Refusal> {
        let passing = self.sources.notifier.passing_after(told);
        let mut turn = self.reader.turn().lock().await;
        let mut ephemeral = self.typing(&turn, passing.typing);
        ephemeral.extend(self.presence(&turn, passing.presence).await?);
        if !ephemeral.is_empty() {
            let body = transaction::passing(&self.reader.service().registration, ephemeral);
            turn.outbox.send_once(body).await;
        }
        Ok(())
    }

    fn typing(&self, turn: &Turn, rooms: Vec<i64>) -> Vec<Value> {
        let cache = self.sources.rooms.repository.cache();
        let rooms = rooms.into_iter().filter_map(|nid| cache.get(nid));
        let rooms = rooms.filter(|room| turn.interest.has_now(room)).take(MOST);
        let event = |room: Arc<crate::rooms::Room>| {
            let users = self.sources.typing.typing_users(room.nid);
            json!({ "type": "m.typing", "room_id": room.room_id, "content": { "user_ids": users } })
        };
        rooms.map(event).collect()
    }

    /// The presence of the service's users, and of those who are in a room with one: one query for all of them.
    async fn presence(&self, turn: &Turn, users: HashSet<OwnedUserId>) -> Result<Vec<Value>, Refusal> {
        let users: Vec<OwnedUserId> = users.into_iter().take(MOST).collect();
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let registration = &self.reader.service().registration;
        let names = users.iter().map(ToString::to_string).collect();
        let joined = self.sources.store.rooms.rooms_joined_by(names).await?;
        let cache = self.sources.rooms.repository.cache();
        let is_met = |room: i64| cache.get(room).is_some_and(|room| turn.interest.has_now(&room));
        let met: HashSet<&OwnedUserId> = joined
            .iter()
            .filter(|(_, room)| is_met(*room))
            .map(|(user_id, _)| user_id)
            .collect();
        let told = users
            .iter()
            .filter(|user_id| met.contains(user_id) || registration.is_for_user(user_id));
        let known = self.sources.presence.presence_of(told.map(|user_id| &**user_id));
        let event = |(sender, content): (OwnedUserId, Value)| json!({ "type": "m.presence", "sender": sender, "content": content });
        Ok(known.into_iter().map(event).collect())
    }
}
