//! What is left of devices that are gone: what another node stored for a device in the moment it went is nobody's. Whoever
//! removes devices makes a job of looking again.

use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};

use crate::store::StoreError;
use crate::store::accounts::AccountTables;
use crate::store::engine::{Connection, query};
use crate::store::jobs::NewJob;
use crate::store::jobs::enqueue::enqueue;

/// The kind of the job.
pub const KIND: &str = "gone_devices";

/// Devices that were removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoneDevices {
    /// Whose.
    pub user_id: OwnedUserId,
    /// Which.
    pub device_ids: Vec<String>,
}

/// What may be left of a device.
const LEFT: [&str; 4] = [
    "DELETE FROM to_device WHERE user_id = $1 AND device_id = ANY($2)",
    "DELETE FROM to_device_waiting WHERE user_id = $1 AND device_id = ANY($2)",
    "DELETE FROM one_time_keys WHERE user_id = $1 AND device_id = ANY($2)",
    "DELETE FROM fallback_keys WHERE user_id = $1 AND device_id = ANY($2)",
];

/// Has somebody look again, in the transaction that removes the devices.
pub(super) async fn look_again(connection: &mut Connection, gone: &GoneDevices) -> Result<(), StoreError> {
    let job = NewJob {
        kind: KIND,
        key: None,
        destination: String::new(),
        due_at: 0,
        repeatable: true,
        payload: serde_json::to_string(gone).map_err(StoreError::encoding)?,
        created_at: 0,
    };
    enqueue(connection, vec![job]).await
}

impl AccountTables {
    /// Removes what is left of devices, but for those that are there again.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn drop_of_gone_devices(&self, gone: GoneDevices) -> Result<(), StoreError> {
        let dropped = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let GoneDevices { user_id, device_ids } = gone;
                let there = query("SELECT device_id FROM devices WHERE user_id = $1 AND device_id = ANY($2)");
                let there = there.bind(user_id.as_str()).bind(device_ids.clone());
                let there: Result<Vec<String>, _> = there
                    .all(&mut tx.connection)
                    .await?
                    .iter()
                    .map(|row| row.get(0))
                    .collect();
                let there = there?;
                let gone: Vec<_> = device_ids.into_iter().filter(|id| !there.contains(id)).collect();
                for statement in LEFT {
                    let statement = query(statement).bind(user_id.as_str()).bind(gone.clone());
                    statement.run(&mut tx.connection).await?;
                }
                Ok(())
            })
        });
        dropped.await
    }
}
