//! Whose devices or keys changed when: tables `device_lists` and `key_changes`.

use maru_protocol::cursor::Position;
use ruma::{OwnedUserId, UserId};

use crate::store::StoreError;
use crate::store::encryption::EncryptionTables;
use crate::store::engine::query;
use crate::store::rooms::stream_reads::read_users;

impl EncryptionTables {
    /// Users who share a joined room with the caller, or are the caller, and whose devices changed after a position; and
    /// those whose keys look different to the caller alone. Who changed again meanwhile is among them, since only the
    /// newest change of each user is kept.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn device_lists_since(
        &self,
        user_id: &UserId,
        since: Position,
    ) -> Result<Vec<OwnedUserId>, StoreError> {
        // Ordered outside: SQLite would go through all users in that order to merge the two.
        let rows = query(
            "SELECT user_id FROM (SELECT d.user_id FROM device_lists AS d WHERE d.position > $2 AND (d.user_id = $1 \
             OR EXISTS (SELECT 1 FROM memberships AS theirs JOIN memberships AS mine ON mine.room = theirs.room \
               WHERE theirs.user_id = d.user_id AND theirs.membership = 'join' \
               AND mine.user_id = $1 AND mine.membership = 'join')) \
             UNION SELECT k.user_id FROM key_changes AS k WHERE k.reader = $1 AND k.position > $2) AS changed \
             ORDER BY user_id",
        );
        let rows = rows
            .bind(user_id.as_str())
            .bind(since.0)
            .all(&self.readers)
            .await?;
        read_users(&rows)
    }
}
