//! Leases: what one run holds alone until it gives it back, or is dead and another takes it.
//!
//! Each taking raises the lease's fencing number. Whoever may take a lease is for the caller to know (`server/src/nodes/`);
//! here it is taken only as it was when the caller looked, so that of two who want it one gets it, and a run that was
//! thought dead and has come back in the meantime keeps what it took again.

use std::collections::HashMap;
use std::sync::Arc;

use super::{NodeTables, RunId};
use crate::store::StoreError;
use crate::store::engine::{Connection, Insert, Kind, query};

/// A lease that was taken: what its holder's effects are checked by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What is held.
    pub name: Arc<str>,
    /// Who holds it.
    pub run: RunId,
    /// The number of this taking; higher than that of every one before.
    pub fencing: i64,
}

/// A lease as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLease {
    /// What can be held.
    pub name: Arc<str>,
    /// Who has taken it; nobody where it was given back.
    pub run: Option<RunId>,
    /// How often it was taken.
    pub fencing: i64,
}

/// A lease to be taken as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What to hold.
    pub name: Arc<str>,
    /// The fencing number that was seen; 0 where nobody ever took it.
    pub seen: i64,
}

/// Takes leases that nobody has taken since they were seen.
const TAKE: Insert = Insert {
    table: "leases",
    columns: &[("name", Kind::Text), ("run", Kind::Int), ("fencing", Kind::Int)],
    on_conflict: "ON CONFLICT (name) DO UPDATE SET run = excluded.run, fencing = excluded.fencing \
                  WHERE leases.fencing = excluded.fencing - 1",
};

impl NodeTables {
    /// Takes leases for a run, each if its fencing number is still the one that was seen; those that the run has by that.
    /// To ask again with the same claims changes nothing.
    ///
    /// # Errors
    /// When nothing was stored, or it is not known whether it was.
    pub async fn take(&self, run: RunId, mut claims: Vec<Claim>) -> Result<Vec<Lease>, StoreError> {
        // In one order everywhere: those who want the same never wait for each other in a circle.
        claims.sort_by(|one, other| one.name.cmp(&other.name));
        claims.dedup_by(|one, other| one.name == other.name);
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let work = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let row = |claim: &Claim| vec![(&*claim.name).into(), run.0.into(), (claim.seen + 1).into()];
                TAKE.rows(&mut tx.connection, claims.iter().map(row).collect())
                    .await?;
                let names: Vec<String> = claims.iter().map(|claim| claim.name.to_string()).collect();
                let held = query("SELECT name, fencing FROM leases WHERE run = $1 AND name = ANY($2)");
                let held = held.bind(run.0).bind(names).all(&mut tx.connection).await?;
                let held: Result<HashMap<String, i64>, StoreError> =
                    held.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect();
                let held = held?;
                let is_taken = |claim: &Claim| held.get(&*claim.name) == Some(&(claim.seen + 1));
                let taken = claims.into_iter().filter(is_taken).map(|claim| Lease {
                    name: claim.name,
                    run,
                    fencing: claim.seen + 1,
                });
                Ok(taken.collect())
            })
        });
        work.await
    }

    /// Gives leases of a run back. Those that it does not hold any more stay with whoever does.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn give_back(&self, run: RunId, names: Vec<Arc<str>>) -> Result<(), StoreError> {
        if names.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let work = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let update = query("UPDATE leases SET run = NULL WHERE run = $1 AND name = ANY($2)");
                update.bind(run.0).bind(names).run(&mut tx.connection).await
            })
        });
        work.await
    }

    /// All leases, by name. Costs grow with their number.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn leases(&self) -> Result<Vec<StoredLease>, StoreError> {
        let rows = query("SELECT name, run, fencing FROM leases ORDER BY name");
        let read = |row: &crate::store::engine::Row| {
            Ok(StoredLease {
                name: row.get::<String>(0)?.into(),
                run: row.get::<Option<i64>>(1)?.map(RunId),
                fencing: row.get(2)?,
            })
        };
        rows.all(&self.readers).await?.iter().map(read).collect()
    }
}

/// Fails unless the lease is still held as it was taken, and has whoever would take it wait until the transaction ends.
///
/// # Errors
/// [`StoreError::LeaseLost`], or what the database says.
pub(in crate::store) async fn check_lease(
    connection: &mut Connection,
    lease: &Lease,
) -> Result<(), StoreError> {
    // Whoever writes to SQLite is alone.
    let held = match connection.is_sqlite() {
        true => query("SELECT fencing FROM leases WHERE name = $1 AND run = $2 AND fencing = $3"),
        false => query("SELECT fencing FROM leases WHERE name = $1 AND run = $2 AND fencing = $3 FOR SHARE"),
    };
    let held = held.bind(&*lease.name).bind(lease.run.0).bind(lease.fencing);
    match held.optional(connection).await? {
        Some(_) => Ok(()),
        None => Err(StoreError::LeaseLost(lease.name.to_string())),
    }
}
