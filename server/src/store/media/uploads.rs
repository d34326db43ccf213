//! Media that users of this server uploaded: table `media`.

use ruma::{OwnedUserId, UserId};

use crate::store::StoreError;
use crate::store::engine::query;
use crate::store::media::{MediaTables, arrivals};

/// The size of media whose content has not been uploaded yet.
const NOT_YET: i64 = -1;

/// An upload that is complete.
#[derive(Clone, Debug)]
pub struct NewMedia {
    /// Unique on this server.
    pub media_id: String,
    /// Who uploaded it.
    pub user_id: OwnedUserId,
    /// As the client said.
    pub content_type: Option<String>,
    /// As the client said.
    pub file_name: Option<String>,
    /// In bytes.
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: [u8; 32],
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// What became of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is noted.
    Stored,
    /// The media have content already.
    HasContent,
    /// The user has uploaded too much.
    OverQuota,
}

/// Media as they are read back.
#[derive(Clone, Debug)]
pub struct StoredMedia {
    /// Who made it.
    pub user_id: Option<OwnedUserId>,
    /// As the client said.
    pub content_type: Option<String>,
    /// As the client said.
    pub file_name: Option<String>,
    /// In bytes; none while the content is not there.
    pub size: Option<u64>,
    /// SHA-256 of the content; empty while it is not there.
    pub sha256: Vec<u8>,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

impl MediaTables {
    /// Notes an upload whose content has arrived as an object, new media or the content of media that were created before
    /// and have none, if all uploads of its user together have at most `quota` bytes then.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn put_media(
        &self,
        server_name: &str,
        media: NewMedia,
        object: &str,
        quota: u64,
    ) -> Result<Put, StoreError> {
        let (server_name, object) = (server_name.to_owned(), object.to_owned());
        let size = i64::try_from(media.size).unwrap_or(i64::MAX);
        let room = i64::try_from(quota).unwrap_or(i64::MAX).saturating_sub(size);
        self.log.transact(move |tx| {
            Box::pin(async move {
                let used = query("SELECT bytes FROM media_usage WHERE user_id = $1")
                    .bind(media.user_id.as_str())
                    .optional(&mut tx.connection)
                    .await?;
                if used.map_or(Ok(0), |row| row.get::<i64>(0))? > room {
                    return Ok(Put::OverQuota);
                }
                let stored = query(
                    "INSERT INTO media \
                     (media_id, server_name, user_id, content_type, file_name, size, sha256, created_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (server_name, media_id) DO UPDATE SET \
                     content_type = excluded.content_type, file_name = excluded.file_name, \
                     size = excluded.size, sha256 = excluded.sha256 \
                     WHERE media.sha256 IS NULL AND media.user_id = excluded.user_id",
                )
                .bind(&media.media_id)
                .bind(server_name)
                .bind(media.user_id.as_str())
                .bind(media.content_type)
                .bind(media.file_name)
                .bind(size)
                .bind(&media.sha256[..])
                .bind(media.created_at)
                .execute(&mut tx.connection)
                .await?;
                if stored == 0 {
                    return Ok(Put::HasContent);
                }
                query(
                    "INSERT INTO media_usage (user_id, bytes) VALUES ($1, $2) \
                     ON CONFLICT (user_id) DO UPDATE SET bytes = media_usage.bytes + excluded.bytes",
                )
                .bind(media.user_id.as_str())
                .bind(size)
                .run(&mut tx.connection)
                .await?;
                arrivals::end(&mut tx.connection, &object).await?;
                Ok(Put::Stored)
            })
        })
        .await
    }

    /// Bytes of all uploads of a user.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn media_bytes(&self, user_id: &UserId) -> Result<u64, StoreError> {
        let row = query("SELECT bytes FROM media_usage WHERE user_id = $1").bind(user_id.as_str());
        let row = row.optional(&self.readers).await?;
        let bytes = row.map_or(Ok(0), |row| row.get::<i64>(0))?;
        Ok(u64::try_from(bytes).unwrap_or(0))
    }

    /// Notes media whose content will be uploaded later; false when the user has `most` such that were made after a
    /// time. Older ones are forgotten.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn create_media(
        &self,
        server_name: &str,
        media_id: &str,
        user_id: &UserId,
        created_at: i64,
        forgotten_before: i64,
        most: i64,
    ) -> Result<bool, StoreError> {
        let (server_name, media_id) = (server_name.to_owned(), media_id.to_owned());
        let user_id = user_id.to_owned();
        self.log
            .transact(move |tx| {
                Box::pin(async move {
                    query("DELETE FROM media WHERE user_id = $1 AND sha256 IS NULL AND created_at < $2")
                        .bind(user_id.as_str())
                        .bind(forgotten_before)
                        .run(&mut tx.connection)
                        .await?;
                    let waiting = query("SELECT COUNT(*) FROM media WHERE user_id = $1 AND sha256 IS NULL")
                        .bind(user_id.as_str())
                        .optional(&mut tx.connection)
                        .await?;
                    if waiting.map_or(Ok(0), |row| row.get::<i64>(0))? >= most {
                        return Ok(false);
                    }
                    query(
                        "INSERT INTO media (media_id, server_name, user_id, size, created_at) \
                     VALUES ($1, $2, $3, $4, $5)",
                    )
                    .bind(media_id)
                    .bind(server_name)
                    .bind(user_id.as_str())
                    .bind(NOT_YET)
                    .bind(created_at)
                    .run(&mut tx.connection)
                    .await?;
                    Ok(true)
                })
            })
            .await
    }

    /// What is known of media.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn media(&self, server_name: &str, media_id: &str) -> Result<Option<StoredMedia>, StoreError> {
        let row = query(
            "SELECT user_id, content_type, file_name, size, created_at, sha256 FROM media \
             WHERE server_name = $1 AND media_id = $2",
        );
        let row = row
            .bind(server_name)
            .bind(media_id)
            .optional(&self.readers)
            .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let user_id = row.get::<Option<String>>(0)?.map(OwnedUserId::try_from);
        Ok(Some(StoredMedia {
            user_id: user_id
                .transpose()
                .map_err(|error| StoreError::corrupt("media", error))?,
            content_type: row.get(1)?,
            file_name: row.get(2)?,
            size: u64::try_from(row.get::<i64>(3)?).ok(),
            created_at: row.get(4)?,
            sha256: row.get::<Option<Vec<u8>>>(5)?.unwrap_or_default(),
        }))
    }
}
