//! The connections that devices have: in memory, and kept in the database, so that they go on at any node and after a
//! restart.

use std::sync::Arc;

use maru_protocol::cursor::{ConnectionPoint, SlidingToken};

use super::connection::{Changed, Connection};
use super::room_list::RoomList;
use crate::cache::Cache;
use crate::refusal::Refusal;
use crate::store::Store;
use crate::store::accounts::sync_connections::{ConnectionChange, ConnectionName};

/// Bytes of connections and lists of rooms kept in memory, two generations of as many: 32 MiB.
const KEPT_BYTES: usize = 32 * 1024 * 1024;

/// What is remembered of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Remembered {
    /// What the device has been sent, by the last answer.
    pub(super) connection: Arc<Connection>,
    /// The user's rooms as of the last answer.
    pub(super) list: Option<Arc<RoomList>>,
}

/// The connections of devices.
#[derive(Debug)]
pub(in crate::sync) struct Connections(Cache<ConnectionName, Remembered>);

impl Connections {
    pub(in crate::sync) fn new() -> Self {
        let weigh = |remembered: &Remembered| {
            remembered.connection.weight() + remembered.list.as_ref().map_or(0, |list| list.weight())
        };
        Self(Cache::weighing(KEPT_BYTES, weigh))
    }

    /// A connection as the device has it, by its `pos`; a new one without.
    ///
    /// # Errors
    /// [`Refusal::UnknownPos`] when it is not known any more.
    pub(super) async fn open(
        &self,
        store: &Store,
        name: &ConnectionName,
        pos: Option<&SlidingToken>,
    ) -> Result<Remembered, Refusal> {
        let Some(pos) = pos else {
            return Ok(Remembered::default());
        };
        let remembered = self.0.get(name);
        if let Some(remembered) = remembered {
            if remembered.connection.point == pos.point {
                return Ok(remembered);
            }
            let previous = remembered.connection.previous.as_ref();
            if let Some(previous) = previous.filter(|previous| previous.point == pos.point) {
                return Ok(Remembered {
                    connection: Arc::clone(previous),
                    list: None,
                });
            }
        }
        let Some(point) = pos.point else {
            return Ok(Remembered::default());
        };
        let stored = store.accounts.sync_connection(name, point).await?;
        let stored = stored.ok_or(Refusal::UnknownPos)?;
        let connection = Connection::read(point, stored).map_err(Refusal::internal)?;
        Ok(Remembered {
            connection: Arc::new(connection),
            list: None,
        })
    }

    /// Remembers a connection as of an answer.
    pub(super) fn remember(&self, name: &ConnectionName, remembered: Remembered) {
        self.0.insert(name.clone(), remembered);
    }

    /// Keeps what has changed of a connection; the connection after it.
    ///
    /// # Errors
    /// [`Refusal::UnknownPos`] when another answer to the device has changed it, or the device is gone.
    pub(super) async fn keep(
        &self,
        store: &Store,
        name: &ConnectionName,
        acknowledged: Option<ConnectionPoint>,
        changed: Changed,
        now_ms: u64,
    ) -> Result<Arc<Connection>, Refusal> {
        let Changed {
            connection,
            rooms,
            superseded,
        } = changed;
        let Some(point) = connection.point else {
            return Err(Refusal::internal("a connection that changed is at no point"));
        };
        let change = ConnectionChange {
            name: name.clone(),
            acknowledged,
            superseded,
            point,
            configs: connection.configs().map_err(Refusal::internal)?,
            rooms,
            now_ms: i64::try_from(now_ms).unwrap_or(i64::MAX),
        };
        if !store.accounts.change_sync_connection(change).await? {
            return Err(Refusal::UnknownPos);
        }
        Ok(Arc::new(connection))
    }
}
