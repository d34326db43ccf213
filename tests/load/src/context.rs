//! What all scenarios share: the target, who is watched, and the set-up that each of them needs.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::try_join_all;

use crate::client::Connection;
use crate::error::LoadError;
use crate::exactly_once::Marker;
use crate::matrix::{self, Room, Session, User};
use crate::measure::Watched;
use crate::target::Target;

/// One run against one server.
#[derive(Debug)]
pub(crate) struct Context {
    /// The server, or its first node.
    pub(crate) target: Arc<Target>,
    /// Its other nodes: clients are spread over all of them.
    pub(crate) further_nodes: Vec<Arc<Target>>,
    /// Whose processor time and memory is counted.
    pub(crate) watched: Watched,
    /// For servers that register only who has one.
    pub(crate) registration_token: Option<String>,
    /// The homeserver that the first one shares rooms with, for the scenarios with two.
    pub(crate) other: Option<Box<Context>>,
    /// The address of [`Context::federation`], if it is given.
    pub(crate) federation: Option<SocketAddr>,
    /// Whether figures are held against the targets; not for sizes that are too small to mean anything.
    pub(crate) judge: bool,
    run: String,
    used: Cell<usize>,
    clients: Cell<usize>,
}

/// How many calls set-up has in flight.
pub(crate) const SETUP_CONCURRENCY: usize = 16;

impl Context {
    /// A run with a name that no other run has, so that runs can share a server.
    pub(crate) fn new(
        target: Target,
        watched: Watched,
        registration_token: Option<String>,
        judge: bool,
    ) -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let run = format!("{:x}x{:x}", now.as_micros(), std::process::id());
        Self {
            target: Arc::new(target),
            further_nodes: Vec::new(),
            watched,
            registration_token,
            other: None,
            federation: None,
            judge,
            run,
            used: Cell::new(0),
            clients: Cell::new(0),
        }
    }

    /// The node that the next client uses: they take turns.
    pub(crate) fn node(&self) -> Arc<Target> {
        let turn = self.clients.get() % (1 + self.further_nodes.len());
        self.clients.set(self.clients.get() + 1);
        let further = turn
            .checked_sub(1)
            .and_then(|index| self.further_nodes.get(index));
        Arc::clone(further.unwrap_or(&self.target))
    }

    /// The second homeserver.
    pub(crate) fn other(&self) -> Result<&Self, LoadError> {
        let other = self.other.as_deref();
        other.ok_or_else(|| LoadError::Usage("this scenario needs a second homeserver: --other URL".into()))
    }

    /// Where the homeserver listens for others.
    pub(crate) fn federation(&self) -> Result<SocketAddr, LoadError> {
        let address = self.federation;
        let address =
            address.ok_or_else(|| LoadError::Usage("this scenario needs --federation ADDRESS".into()))?;
        if !address.ip().is_loopback() {
            return Err(LoadError::NotLoopback(address.to_string()));
        }
        Ok(address)
    }

    fn unique(&self) -> String {
        self.used.set(self.used.get() + 1);
        format!("{}n{}", self.run, self.used.get())
    }

    /// A marker that nothing else carries.
    pub(crate) fn marker(&self) -> Marker {
        Marker::new(&self.unique())
    }

    /// Registers new accounts.
    pub(crate) async fn users(&self, count: usize) -> Result<Vec<User>, LoadError> {
        let names: Vec<String> = (0..count).map(|_| format!("load-{}", self.unique())).collect();
        let workers = SETUP_CONCURRENCY.min(count);
        let shares = try_join_all((0..workers).map(async |worker| {
            let mut connection = Connection::new(self.node());
            let mut users = Vec::new();
            for name in names.iter().skip(worker).step_by(workers) {
                users
                    .push(matrix::register(&mut connection, name, self.registration_token.as_deref()).await?);
            }
            Ok::<_, LoadError>(users)
        }));
        Ok(shares.await?.into_iter().flatten().collect())
    }

    /// Sessions of new accounts, connected.
    pub(crate) async fn sessions(&self, count: usize) -> Result<Vec<Session>, LoadError> {
        let mut sessions = self.sessions_of(&self.users(count).await?);
        try_join_all(sessions.iter_mut().map(Session::whoami)).await?;
        Ok(sessions)
    }

    /// One session for each user, not connected yet.
    pub(crate) fn sessions_of(&self, users: &[User]) -> Vec<Session> {
        users
            .iter()
            .map(|user| Session::new(self.node(), user.clone()))
            .collect()
    }

    /// A public room made by the first of the members and joined by the others.
    pub(crate) async fn room(&self, members: &mut [&mut Session]) -> Result<Room, LoadError> {
        let Some((creator, others)) = members.split_first_mut() else {
            return Err(LoadError::Usage("a room needs a member".into()));
        };
        let room = creator.create_room().await?;
        for joining in others.chunks_mut(SETUP_CONCURRENCY) {
            try_join_all(joining.iter_mut().map(|member| member.join(&room))).await?;
        }
        Ok(room)
    }
}
