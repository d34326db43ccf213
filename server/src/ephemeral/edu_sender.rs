//! What of typing and presence other servers are to hear: told to whoever speaks with them, who may be slow or not there.

use std::collections::BTreeSet;
use std::sync::Arc;

use ruma::{OwnedServerName, OwnedUserId, UserId};
use tokio::sync::broadcast;

use crate::identity::Identity;
use crate::rooms::Room;

/// Pieces of news that wait to be told. When there are more the oldest are lost: what goes on is told again before long.
const WAITING: usize = 1_024;

/// What has just changed about a user of this server.
#[derive(Clone, Debug)]
pub enum News {
    /// The user has begun to type in a room, or has stopped.
    Typing(Arc<Room>, OwnedUserId),
    /// The user's presence, for servers that share a room which is not too large.
    Presence(OwnedUserId, BTreeSet<OwnedServerName>),
}

/// The way for news. Of several nodes one speaks with other servers: on the others nobody listens, and nothing is kept.
#[derive(Clone, Debug)]
pub struct EduSender {
    identity: Arc<Identity>,
    news: broadcast::Sender<News>,
}

impl EduSender {
    /// A way for news of this server's users.
    #[must_use]
    pub fn new(identity: Arc<Identity>) -> Self {
        let (news, _) = broadcast::channel(WAITING);
        Self { identity, news }
    }

    /// The news from now on.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    /// Whether anybody listens.
    pub(super) fn is_heard(&self) -> bool {
        self.news.receiver_count() > 0
    }

    /// Whether a user is of this server.
    pub(super) fn is_own(&self, user_id: &UserId) -> bool {
        self.identity.is_local(user_id)
    }

    /// A user has begun to type or has stopped.
    pub(super) fn typing(&self, room: &Arc<Room>, user_id: &UserId) {
        if self.is_heard() && self.is_own(user_id) && room.head().servers.len() > 1 {
            let _ = self.news.send(News::Typing(Arc::clone(room), user_id.to_owned()));
        }
    }

    /// A user's presence has changed; `servers` are to hear of it.
    pub(super) fn presence(&self, user_id: &UserId, mut servers: BTreeSet<OwnedServerName>) {
        servers.remove(self.identity.name());
        if !servers.is_empty() {
            let _ = self.news.send(News::Presence(user_id.to_owned(), servers));
        }
    }
}
