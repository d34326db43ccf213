//! Device grants: devices without a browser that ask to be signed in, and what was answered in a browser (RFC 8628).

use ruma::OwnedUserId;

use super::OAuthTables;
use super::counts::{self, Kind};
use crate::store::StoreError;
use crate::store::accounts::credentials::Credentials;
use crate::store::accounts::users::user_id;
use crate::store::engine::{Connection, Row, query};
use crate::token_hash::TokenHash;

const NOT_YET: i64 = 0;
const ALLOWED: i64 = 1;
const DENIED: i64 = 2;

/// What a device asks for.
#[derive(Clone, Debug)]
pub struct DeviceGrant {
    /// The client on it.
    pub client_id: String,
    /// What it wants to be allowed.
    pub scope: String,
    /// The device id that it chose.
    pub device_id: String,
    /// Until when it asks, in milliseconds since 1970.
    pub expires_at: i64,
}

/// What was answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Nothing yet.
    None,
    /// A user allows it.
    Allowed {
        /// The user.
        user_id: OwnedUserId,
        /// What the user had proved.
        proved: Credentials,
    },
    /// A user does not allow it.
    Denied,
}

/// A device that asks again.
#[derive(Clone, Debug)]
pub struct PolledGrant {
    /// What it asks for.
    pub grant: DeviceGrant,
    /// What was answered.
    pub answer: Answer,
    /// Whether it asks sooner than it may.
    pub is_too_soon: bool,
}

/// Uses a device grant up that was allowed; false when it was used already.
pub(super) async fn use_up(connection: &mut Connection, device_code: TokenHash) -> Result<bool, StoreError> {
    let used = query("DELETE FROM device_grants WHERE device_code_hash = $1 AND answer = $2");
    let used = used.bind(&device_code.0[..]).bind(ALLOWED);
    let gone = used.execute(connection).await?;
    counts::take_away(connection, Kind::DeviceGrants, gone).await?;
    Ok(gone > 0)
}

fn read(row: &Row) -> Result<DeviceGrant, StoreError> {
    Ok(DeviceGrant {
        client_id: row.get(0)?,
        scope: row.get(1)?,
        device_id: row.get(2)?,
        expires_at: row.get(3)?,
    })
}

impl OAuthTables {
    /// Stores what a device asks for; false when `most` others do, or the user code is taken.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn put_device_grant(
        &self,
        device_code: TokenHash,
        user_code: TokenHash,
        grant: DeviceGrant,
        pace_ms: i64,
        most: i64,
    ) -> Result<bool, StoreError> {
        let put = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let connection = &mut tx.connection;
                if !counts::add_one(connection, Kind::DeviceGrants, most).await? {
                    return Ok(false);
                }
                let insert = query(
                    "INSERT INTO device_grants (device_code_hash, user_code_hash, client_id, scope, device_id, \
                     expires_at, pace_ms, answer) VALUES ($1, $2, $3, $4, $5, $6, $7, 0) ON CONFLICT DO NOTHING",
                );
                let insert = insert
                    .bind(&device_code.0[..])
                    .bind(&user_code.0[..])
                    .bind(grant.client_id)
                    .bind(grant.scope)
                    .bind(grant.device_id)
                    .bind(grant.expires_at)
                    .bind(pace_ms);
                let is_stored = insert.execute(connection).await? > 0;
                if !is_stored {
                    counts::take_away(connection, Kind::DeviceGrants, 1).await?;
                }
                Ok(is_stored)
            })
        });
        put.await
    }

    /// What the device with this user code asks for, if it still does and has no answer.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn device_grant(
        &self,
        user_code: TokenHash,
        now: i64,
    ) -> Result<Option<DeviceGrant>, StoreError> {
        let row = query(
            "SELECT client_id, scope, device_id, expires_at FROM device_grants \
             WHERE user_code_hash = $1 AND answer = $2 AND expires_at > $3",
        );
        let row = row.bind(&user_code.0[..]).bind(NOT_YET).bind(now);
        row.optional(&self.readers).await?.as_ref().map(read).transpose()
    }

    /// Answers the device with this user code; false when it has an answer already, or does not ask any more.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn answer_device_grant(
        &self,
        user_code: TokenHash,
        answer: Answer,
        now: i64,
    ) -> Result<bool, StoreError> {
        let (number, user_id, version) = match answer {
            Answer::None => return Ok(false),
            Answer::Allowed { user_id, proved } => {
                (ALLOWED, Some(user_id.to_string()), Some(proved.version()))
            }
            Answer::Denied => (DENIED, None, None),
        };
        let update = query(
            "UPDATE device_grants SET answer = $1, user_id = $2, credentials = $3 \
             WHERE user_code_hash = $4 AND answer = 0 AND expires_at > $5",
        );
        let update = update
            .bind(number)
            .bind(user_id)
            .bind(version)
            .bind(&user_code.0[..])
            .bind(now);
        let answered = self
            .log
            .transact_unlogged(move |tx| Box::pin(async move { update.execute(&mut tx.connection).await }));
        Ok(answered.await? > 0)
    }

    /// What has become of the device with this code, which asks for that. One that asks too soon has to wait `slower_ms`
    /// longer each time.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn poll_device_grant(
        &self,
        device_code: TokenHash,
        now: i64,
        slower_ms: i64,
    ) -> Result<Option<PolledGrant>, StoreError> {
        let row = query(
            "SELECT client_id, scope, device_id, expires_at, polled_at, pace_ms, answer, user_id, credentials \
             FROM device_grants WHERE device_code_hash = $1",
        );
        let Some(row) = row.bind(&device_code.0[..]).optional(&self.readers).await? else {
            return Ok(None);
        };
        let (polled_at, pace_ms) = (row.get::<Option<i64>>(4)?, row.get::<i64>(5)?);
        let answer = match row.get::<i64>(6)? {
            ALLOWED => Answer::Allowed {
                user_id: user_id(&row, 7, "device_grants")?,
                proved: Credentials::read(&row, 8)?,
            },
            DENIED => Answer::Denied,
            _ => Answer::None,
        };
        let polled = PolledGrant {
            grant: read(&row)?,
            is_too_soon: polled_at.is_some_and(|at| at.saturating_add(pace_ms) > now),
            answer,
        };
        if matches!(polled.answer, Answer::None) && polled.grant.expires_at > now {
            let slower = if polled.is_too_soon { slower_ms } else { 0 };
            let update = query(
                "UPDATE device_grants SET polled_at = $1, pace_ms = pace_ms + $2 WHERE device_code_hash = $3",
            );
            let update = update.bind(now).bind(slower).bind(&device_code.0[..]);
            let noted = self
                .log
                .transact_unlogged(move |tx| Box::pin(async move { update.run(&mut tx.connection).await }));
            noted.await?;
        }
        Ok(Some(polled))
    }

    /// Drops device grants that have ended by `now`, the oldest, `most` of them. How many.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn expire_device_grants(&self, now: i64, most: usize) -> Result<u64, StoreError> {
        let due = query("SELECT 1 FROM device_grants WHERE expires_at <= $1 LIMIT 1").bind(now);
        if due.optional(&self.readers).await?.is_none() {
            return Ok(0);
        }
        let delete = query(
            "DELETE FROM device_grants WHERE device_code_hash IN (SELECT device_code_hash FROM device_grants \
             WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)",
        );
        let delete = delete.bind(now).bind(i64::try_from(most).unwrap_or(i64::MAX));
        let expired = self.log.transact_unlogged(move |tx| {
            Box::pin(async move {
                let gone = delete.execute(&mut tx.connection).await?;
                counts::take_away(&mut tx.connection, Kind::DeviceGrants, gone).await?;
                Ok(gone)
            })
        });
        expired.await
    }
}
