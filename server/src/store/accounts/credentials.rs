//! The version of an account's credentials. It moves on when the password changes, when all sessions are ended and when
//! the account is closed; whoever proved something at an earlier version has proved nothing, and the transaction that
//! acts on the proof confirms it.

use std::fmt;

use ruma::UserId;

use crate::store::StoreError;
use crate::store::engine::{Connection, Row, query};

/// The version at which somebody proved to be an account's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials(i64);

impl Credentials {
    /// Those of an account that has just been made.
    pub const FIRST: Self = Self(0);

    pub(in crate::store) fn version(self) -> i64 {
        self.0
    }

    pub(in crate::store) fn read(row: &Row, index: usize) -> Result<Self, StoreError> {
        row.get(index).map(Self)
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether an account is open and its credentials are still those; true where nobody had to prove anything.
pub(in crate::store) async fn hold(
    connection: &mut Connection,
    user_id: &UserId,
    proved: Option<Credentials>,
) -> Result<bool, StoreError> {
    let Some(Credentials(version)) = proved else {
        return Ok(true);
    };
    let open = query("SELECT 1 FROM users WHERE user_id = $1 AND credentials = $2 AND deactivated = 0");
    let open = open.bind(user_id.as_str()).bind(version);
    Ok(open.optional(connection).await?.is_some())
}

/// Ends what was proved until now and has not become a session yet: logins under way, and login tokens.
pub(in crate::store) async fn renew(connection: &mut Connection, user_id: &UserId) -> Result<(), StoreError> {
    for statement in [
        "UPDATE users SET credentials = credentials + 1 WHERE user_id = $1",
        "DELETE FROM login_tokens WHERE user_id = $1",
    ] {
        query(statement)
            .bind(user_id.as_str())
            .run(&mut *connection)
            .await?;
    }
    Ok(())
}
