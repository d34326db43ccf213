//! What of typing and presence other servers are to hear: told to whoever speaks with them, who may be slow or not there.

use std::collections::BTreeSet;
use std::sync::Arc;

use ruma::{OwnedServerName, OwnedUserId, UserId};
use tokio::sync::mpsc;

use crate::identity::Identity;
use crate::rooms::Room;

/// Pieces of news that wait to be told. Further ones are lost: what goes on is told again before long.
const WAITING: usize = 4096;

/// What has just changed about a user of this server.
#[derive(Clone, Debug)]
pub enum News {
    /// The user has begun to type in a room, or has stopped.
    Typing(Arc<Room>, OwnedUserId),
    /// The user's presence, for servers that share a room which is not too large.
    Presence(OwnedUserId, BTreeSet<OwnedServerName>),
}

/// The way for news.
#[derive(Clone, Debug)]
pub struct EduSender {
    identity: Arc<Identity>,
    news: mpsc::Sender<News>,
}

impl EduSender {
    /// A way for news of this server's users, and its other end.
    #[must_use]
    pub fn new(identity: Arc<Identity>) -> (Self, mpsc::Receiver<News>) {
        let (news, told) = mpsc::channel(WAITING);
        (Self { identity, news }, told)
    }

    /// Whether a user is of this server.
    pub(super) fn is_own(&self, user_id: &UserId) -> bool {
        self.identity.is_local(user_id)
    }

    /// A user has begun to type or has stopped.
    pub(super) fn typing(&self, room: &Arc<Room>, user_id: &UserId) {
        if self.is_own(user_id) && room.head().servers.len() > 1 {
            self.tell(News::Typing(Arc::clone(room), user_id.to_owned()));
        }
    }

    /// A user's presence has changed; `servers` are to hear of it.
    pub(super) fn presence(&self, user_id: &UserId, mut servers: BTreeSet<OwnedServerName>) {
        servers.remove(self.identity.name());
        if !servers.is_empty() {
            self.tell(News::Presence(user_id.to_owned(), servers));
        }
    }

    fn tell(&self, news: News) {
        // Where nobody listens, or there is too much, it is lost.
        let _ = self.news.try_send(news);
    }
}
