//! Events that this server made.

use std::collections::HashMap;

use crate::store::StoreError;
use crate::store::engine::query;
use crate::store::federation::FederationTables;

impl FederationTables {
    /// When the newest event was made that this server made in each of some rooms, by its own account, in milliseconds
    /// since 1970.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn last_made(&self, rooms: Vec<i64>) -> Result<HashMap<i64, u64>, StoreError> {
        let rows = query(
            "SELECT nid, ( \
               SELECT origin_server_ts FROM events WHERE room = rooms.nid AND own = 1 ORDER BY position DESC LIMIT 1 \
             ) FROM rooms WHERE nid = ANY($1)",
        );
        let rows = rows.bind(rooms).all(&self.readers).await?;
        let mut made = HashMap::with_capacity(rows.len());
        for row in &rows {
            if let Some(last) = row.get::<Option<i64>>(1)? {
                made.insert(row.get(0)?, u64::try_from(last).unwrap_or(0));
            }
        }
        Ok(made)
    }
}
