//! What is known of media of other servers that are kept here for a while.

use ruma::{OwnedServerName, ServerName};

use crate::store::StoreError;
use crate::store::engine::query;
use crate::store::media::MediaTables;

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

    /// Bytes of all kept files. Costs grow with their number.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn cached_media_bytes(&self) -> Result<u64, StoreError> {
        let row = query("SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM cached_media");
        let row = row.optional(&self.readers).await?;
        Ok(row.map_or(Ok(0), |row| row.get::<i64>(0))?.unsigned_abs())
    }

    /// Notes a file as kept.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn keep_cached_media(
        &self,
        server: &ServerName,
        media_id: &str,
        media: CachedMedia,
    ) -> Result<(), StoreError> {
        let (server, media_id) = (server.to_string(), media_id.to_owned());
        self.log.transact(move |tx| {
            Box::pin(async move {
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
                .bind(i64::try_from(media.size).unwrap_or(i64::MAX))
                .bind(media.used_at)
                .run(&mut tx.connection)
                .await
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

    /// Forgets the longest unused files until the others have at most so many bytes; which. Costs grow with the number
    /// of kept files.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn drop_cached_media(&self, bytes: u64) -> Result<Vec<(OwnedServerName, String)>, StoreError> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    let rows = query(
                        "DELETE FROM cached_media WHERE (server_name, media_id) IN ( \
                     SELECT server_name, media_id FROM ( \
                     SELECT server_name, media_id, SUM(size) OVER ( \
                     ORDER BY used_at DESC, server_name, media_id ROWS UNBOUNDED PRECEDING) AS newer \
                     FROM cached_media) AS ranked WHERE newer > $1) RETURNING server_name, media_id",
                    );
                    let rows = rows.bind(bytes).all(&mut tx.connection).await?;
                    rows.iter()
                        .map(|row| {
                            let name = row.get::<String>(0)?.try_into();
                            let name = name.map_err(|error| StoreError::corrupt("cached_media", error))?;
                            Ok((name, row.get(1)?))
                        })
                        .collect()
                })
            })
            .await
    }
}
