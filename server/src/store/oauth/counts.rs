//! How many rows there are of what strangers can have made: a number that is kept with them, for a bound that costs nothing to
//! hold.

use crate::store::StoreError;
use crate::store::engine::{Connection, query};

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Rows of `oauth_clients`.
    Clients,
    /// Rows of `device_grants`.
    DeviceGrants,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::DeviceGrants => "device_grants",
        }
    }
}

/// Counts one more, in the transaction that stores it; false when there are `most` already.
pub(super) async fn add_one(connection: &mut Connection, kind: Kind, most: i64) -> Result<bool, StoreError> {
    let add = query("UPDATE oauth_counts SET held = held + 1 WHERE kind = $1 AND held < $2");
    let added = add.bind(kind.name()).bind(most).execute(connection).await?;
    Ok(added > 0)
}

/// Counts so many fewer, in the transaction that drops them.
pub(super) async fn take_away(connection: &mut Connection, kind: Kind, gone: u64) -> Result<(), StoreError> {
    let gone = i64::try_from(gone).unwrap_or(i64::MAX);
    let take = query("UPDATE oauth_counts SET held = held - $1 WHERE kind = $2");
    take.bind(gone).bind(kind.name()).run(connection).await
}
