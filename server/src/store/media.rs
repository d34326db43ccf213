//! What is known of uploaded media. The content itself lies in files.

use ruma::{OwnedUserId, UserId};

use super::engine::query;
use super::{Store, StoreError};

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

impl Store {
    /// Notes an upload: new media, or the content of media that were created before and have none.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the media have content already.
    pub async fn put_media(&self, server_name: &str, media: NewMedia) -> Result<(), StoreError> {
        let server_name = server_name.to_owned();
        self.transact(move |tx| {
            Box::pin(async move {
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
                .bind(i64::try_from(media.size).unwrap_or(i64::MAX))
                .bind(&media.sha256[..])
                .bind(media.created_at)
                .execute(&mut tx.connection)
                .await?;
                if stored == 1 {
                    return Ok(());
                }
                Err(StoreError::Conflict(format!("media {}", media.media_id)))
            })
        })
        .await
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
        self.transact(move |tx| {
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
