//! Rooms of which no more than hearsay is here: somebody invited a user into one, or a join did not succeed.

use crate::store::StoreError;
use crate::store::engine::query;
use crate::store::rooms::RoomTables;

impl RoomTables {
    /// Gives a room that has no head another version. Of what was kept of it only memberships stay: the rest was read and
    /// judged by the rules of a version that it does not have. A room that has a head is left as it is.
    ///
    /// Costs grow with the events that were kept.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn change_version(&self, room: i64, version: &'static str) -> Result<(), StoreError> {
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    query(
                        "DELETE FROM events WHERE room = $1 AND place IS NULL \
                     AND nid NOT IN (SELECT event FROM memberships WHERE room = $1) \
                     AND NOT EXISTS (SELECT 1 FROM room_heads WHERE room = $1)",
                    )
                    .bind(room)
                    .execute(&mut tx.connection)
                    .await?;
                    query(
                        "UPDATE rooms SET version = $2 WHERE nid = $1 \
                     AND NOT EXISTS (SELECT 1 FROM room_heads WHERE room = $1)",
                    )
                    .bind(room)
                    .bind(version)
                    .execute(&mut tx.connection)
                    .await
                    .map(drop)
                })
            })
            .await
    }
}
