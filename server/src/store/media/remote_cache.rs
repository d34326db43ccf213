//! What is known of media of other servers that are kept here for a while.

use ruma::{OwnedServerName, ServerName};

use crate::store::StoreError;
use crate::store::engine::{Connection, query};
use crate::store::media::{MediaTables, arrivals};

/// A kept file of another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedMedia {
    /// As its server said.
    pub content_type: Option<String>,
    /// As its server said.
    pub file_name: Option<String>,
    /// In bytes.
    pub size: u64,
    /// When it was last used, about; milliseconds since 1970.
    pub used_at: i64,
}

impl MediaTables {
    /// What is known of a file, if it is kept.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn cached_media(
        &self,
        server: &ServerName,
        media_id: &str,
    ) -> Result<Option<CachedMedia>, StoreError> {
        let row = query(
            "SELECT content_type, file_name, size, used_at FROM cached_media \
             WHERE server_name = $1 AND media_id = $2",
        );
        let row = row
            .bind(server.as_str())
            .bind(media_id)
            .optional(&self.readers)
            .await?;
        let read = |row: crate::store::engine::Row| {
            Ok(CachedMedia {
                content_type: row.get(0)?,
                file_name: row.get(1)?,
                size: row.get::<i64>(2)?.unsigned_abs(),
                used_at: row.get(3)?,
            })
        };
        row.map(read).transpose()
    }

    /// Notes a file that has arrived as an object as kept; how many bytes all kept files have then.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn keep_cached_media(
        &self,
        server: &ServerName,
        media_id: &str,
        media: CachedMedia,
        object: &str,
    ) -> Result<u64, StoreError> {
        let (server, media_id, object) = (server.to_string(), media_id.to_owned(), object.to_owned());
        let size = i64::try_from(media.size).unwrap_or(i64::MAX);
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let before = query("SELECT size FROM cached_media WHERE server_name = $1 AND media_id = $2")
                        .bind(&server)
                        .bind(&media_id)
                        .optional(&mut tx.connection)
                        .await?;
                    let before = before.map_or(Ok(0), |row| row.get::<i64>(0))?;
                    query(
                        "INSERT INTO cached_media (server_name, media_id, content_type, file_name, size, used_at) \
                         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (server_name, media_id) DO UPDATE SET \
                         content_type = excluded.content_type, file_name = excluded.file_name, \
                         size = excluded.size, used_at = excluded.used_at",
                    )
                    .bind(server)
                    .bind(media_id)
                    .bind(media.content_type)
                    .bind(media.file_name)
                    .bind(size)
                    .bind(media.used_at)
                    .run(&mut tx.connection)
                    .await?;
                    arrivals::end(&mut tx.connection, &object).await?;
                    count(&mut tx.connection, size.saturating_sub(before)).await
                })
            })
            .await
    }

    /// Notes that a file was used.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn use_cached_media(
        &self,
        server: &ServerName,
        media_id: &str,
        now: i64,
    ) -> Result<(), StoreError> {
        let (server, media_id) = (server.to_string(), media_id.to_owned());
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    query("UPDATE cached_media SET used_at = $1 WHERE server_name = $2 AND media_id = $3")
                        .bind(now)
                        .bind(server)
                        .bind(media_id)
                        .run(&mut tx.connection)
                        .await
                })
            })
            .await
    }

    /// Forgets the longest unused files until the others have at most so many bytes; which. Their objects, which are named
    /// by `object_of`, are leaving then. Costs grow with the number of kept files.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn drop_cached_media(
        &self,
        bytes: u64,
        object_of: fn(&ServerName, &str) -> String,
        now: i64,
    ) -> Result<Vec<(OwnedServerName, String)>, StoreError> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let rows = query(
                        "DELETE FROM cached_media WHERE (server_name, media_id) IN ( \
                     SELECT server_name, media_id FROM ( \
                     SELECT server_name, media_id, SUM(size) OVER ( \
                     ORDER BY used_at DESC, server_name, media_id ROWS UNBOUNDED PRECEDING) AS newer \
                     FROM cached_media) AS ranked WHERE newer > $1) RETURNING server_name, media_id, size",
                    );
                    let rows = rows.bind(bytes).all(&mut tx.connection).await?;
                    let mut gone = Vec::with_capacity(rows.len());
                    let mut freed = 0;
                    for row in &rows {
                        let name: Result<OwnedServerName, _> = row.get::<String>(0)?.try_into();
                        let name = name.map_err(|error| StoreError::corrupt("cached_media", error))?;
                        gone.push((name, row.get::<String>(1)?));
                        freed += row.get::<i64>(2)?;
                    }
                    let objects = gone.iter().map(|(name, media_id)| object_of(name, media_id));
                    arrivals::leave(&mut tx.connection, objects, now).await?;
                    count(&mut tx.connection, -freed).await?;
                    Ok(gone)
                })
            })
            .await
    }
}

/// Counts more or fewer bytes of kept files; how many there are then. They count as the uploads of nobody.
async fn count(connection: &mut Connection, more: i64) -> Result<u64, StoreError> {
    let row = query(
        "INSERT INTO media_usage (user_id, bytes) VALUES ('', $1) \
         ON CONFLICT (user_id) DO UPDATE SET bytes = media_usage.bytes + excluded.bytes RETURNING bytes",
    );
    let row = row.bind(more).optional(connection).await?;
    let bytes = row.map_or(Ok(0), |row| row.get::<i64>(0))?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}
