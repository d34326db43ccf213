//! Who serves this database. A node says that it lives by counting on its beat; nobody compares clocks.

use super::{NodeTables, RunId};
use crate::store::StoreError;
use crate::store::engine::query;

/// What a node says of itself when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNode {
    /// Its name; one process at a time has it.
    pub name: String,
    /// This start of it.
    pub run: RunId,
    /// Where clients reach it, if it says so.
    pub address: Option<String>,
    /// Where it takes links of other nodes, if it does.
    pub link: Option<String>,
    /// Near what it stands, if it says so.
    pub zone: Option<String>,
    /// The program's version.
    pub version: String,
}

/// A node as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredNode {
    /// Its name.
    pub name: String,
    /// Its newest start.
    pub run: RunId,
    /// Counts on while the run lives.
    pub beat: i64,
    /// Where clients reach it.
    pub address: Option<String>,
    /// Where it takes links of other nodes.
    pub link: Option<String>,
    /// Near what it stands.
    pub zone: Option<String>,
    /// How much it has to do, in connections of clients.
    pub load: i64,
    /// The program's version.
    pub version: String,
    /// Whether it is about to stop.
    pub draining: bool,
}

impl NodeTables {
    /// Registers a run under the node's name, in the place of the run before. Where one process has the database to
    /// itself, all other nodes go.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn register(&self, node: NewNode) -> Result<(), StoreError> {
        let is_alone = self.is_alone();
        let work = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                if is_alone {
                    let others = query("DELETE FROM nodes WHERE name <> $1").bind(&node.name);
                    others.run(&mut tx.connection).await?;
                }
                query(
                    "INSERT INTO nodes (name, run, beat, address, link, zone, load, version, draining) \
                     VALUES ($1, $2, 1, $3, $4, $5, 0, $6, 0) ON CONFLICT (name) DO UPDATE SET run = excluded.run, \
                     beat = nodes.beat + 1, address = excluded.address, link = excluded.link, zone = excluded.zone, \
                     load = 0, version = excluded.version, draining = 0",
                )
                .bind(node.name)
                .bind(node.run.0)
                .bind(node.address)
                .bind(node.link)
                .bind(node.zone)
                .bind(node.version)
                .run(&mut tx.connection)
                .await
            })
        });
        work.await
    }

    /// Counts the run's beat on and says how much it has to do. False when the run is not registered any more: it was
    /// removed, or another one has its name.
    ///
    /// # Errors
    /// When it was not stored, or it is not known whether it was.
    pub async fn beat(&self, name: &str, run: RunId, load: i64) -> Result<bool, StoreError> {
        let name = name.to_owned();
        let work = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let update =
                    query("UPDATE nodes SET beat = beat + 1, load = $3 WHERE name = $1 AND run = $2");
                let update = update.bind(name).bind(run.0).bind(load);
                Ok(update.execute(&mut tx.connection).await? == 1)
            })
        });
        work.await
    }

    /// Says that a node is about to stop, or is not any more. False where there is none of the name.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn set_draining(&self, name: &str, draining: bool) -> Result<bool, StoreError> {
        let name = name.to_owned();
        let work = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let update = query("UPDATE nodes SET draining = $2 WHERE name = $1");
                let update = update.bind(name).bind(draining);
                Ok(update.execute(&mut tx.connection).await? == 1)
            })
        });
        work.await
    }

    /// Forgets a run, whose leases are free by that. One that lives finds out at its next beat.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn remove(&self, run: RunId) -> Result<(), StoreError> {
        let work = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let delete = query("DELETE FROM nodes WHERE run = $1").bind(run.0);
                delete.run(&mut tx.connection).await
            })
        });
        work.await
    }

    /// All nodes, by name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn all(&self) -> Result<Vec<StoredNode>, StoreError> {
        let rows = query(
            "SELECT name, run, beat, address, link, zone, load, version, draining FROM nodes ORDER BY name",
        );
        let read = |row: &crate::store::engine::Row| {
            Ok(StoredNode {
                name: row.get(0)?,
                run: RunId(row.get(1)?),
                beat: row.get(2)?,
                address: row.get(3)?,
                link: row.get(4)?,
                zone: row.get(5)?,
                load: row.get(6)?,
                version: row.get(7)?,
                draining: row.get(8)?,
            })
        };
        rows.all(&self.readers).await?.iter().map(read).collect()
    }
}
