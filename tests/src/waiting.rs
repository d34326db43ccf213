//! Waiting for what another server brings: a user syncs until it is there, or the database is asked until it holds it.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Data, Synced, User};

/// Time for something to come from another server, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// The pause before what nobody tells of is looked at again.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks again and again for something that nobody tells of, until it is there; what was found.
///
/// # Panics
/// When it has not come after a long while, with what was seen instead.
pub async fn look_for<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) => assert!(started.elapsed() < PATIENCE, "never: {what}, but {seen}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Data {
    /// Asks the database itself, past the server, until it answers with this number.
    ///
    /// # Panics
    /// When it has not after a long while.
    pub async fn comes_to(&self, expected: i64, sql: &str) {
        look_for(sql, async || {
            let number = self.number(sql).await;
            (number == expected).then_some(()).ok_or(number.to_string())
        })
        .await;
    }
}

impl User {
    /// Syncs from the beginning until `found` finds something.
    ///
    /// # Panics
    /// When it has not come after a long while; `what` says what was waited for.
    pub async fn until<T>(&self, what: &str, mut found: impl FnMut(&Synced) -> Option<T>) -> T {
        let started = Instant::now();
        let mut synced = self.sync(None).await;
        loop {
            if let Some(found) = found(&synced) {
                return found;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{} waits in vain for {what}",
                self.id
            );
            synced = self.wait(&synced.next()).await;
        }
    }

    /// Waits until a room shows a text.
    pub async fn hears(&self, room: &str, text: &str) {
        let heard = |synced: &Synced| synced.texts(room).iter().any(|heard| heard == text).then_some(());
        self.until(text, heard).await;
    }

    /// Waits until the newest text of a room is this one, whatever came between.
    pub async fn hears_last(&self, room: &str, text: &str) {
        let heard =
            |synced: &Synced| (synced.texts(room).last().map(String::as_str) == Some(text)).then_some(());
        self.until(text, heard).await;
    }

    /// Waits for an invitation to a room; what is shown of the room.
    pub async fn is_invited(&self, room: &str) -> Vec<Value> {
        self.until("an invitation", |synced| {
            synced.0["rooms"]["invite"][room]["invite_state"]["events"]
                .as_array()
                .cloned()
        })
        .await
    }

    /// Waits until the user is out of a room; how: `leave` or `ban`.
    pub async fn is_out(&self, room: &str) -> String {
        self.until("the end of a stay", |synced| {
            let timeline = synced.0["rooms"]["leave"][room]["timeline"]["events"]
                .as_array()?
                .clone();
            let own = timeline
                .iter()
                .rev()
                .find(|event| event["state_key"] == self.id.as_str())?;
            own["content"]["membership"].as_str().map(str::to_owned)
        })
        .await
    }

    /// Waits until a room's state holds a membership of somebody.
    pub async fn sees_member(&self, room: &str, whom: &User, membership: &str) {
        let path = format!(
            "rooms/{}/state/m.room.member/{}",
            crate::user::encode(room),
            crate::user::encode(&whom.id)
        );
        let what = format!("{} sees {} as {membership}", self.id, whom.id);
        look_for(&what, async || {
            let reply = self.get(&path).await;
            let is_seen = reply.json["membership"] == membership;
            is_seen.then_some(()).ok_or(reply.json.to_string())
        })
        .await;
    }

    /// Joins a room through a server, and waits for nothing.
    pub async fn join_via(&self, room: &str, server_name: &str) -> crate::Reply {
        let path = format!("join/{}?via={server_name}", crate::user::encode(room));
        self.post(&path, serde_json::json!({})).await
    }
}
