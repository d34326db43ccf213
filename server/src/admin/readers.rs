//! What the admin asks of readers of the log, and is told.

use maru_protocol::cursor::Position;
use serde::{Deserialize, Serialize};

use super::AdminReply;
use crate::refusal::Refusal;
use crate::server::Server;
use crate::store::readers::{SetAside, StoredReader};

/// What to do with readers of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum ReadersCommand {
    /// List all that ever ran.
    List,
    /// Have one stop where it stands.
    Pause {
        /// Its name.
        name: String,
    },
    /// Have one go on.
    Resume {
        /// Its name.
        name: String,
    },
    /// Have one read again what stands after a position.
    Rewind {
        /// Its name.
        name: String,
        /// The position.
        position: i64,
        /// Whether it may go forward, past what it has not read.
        skip: bool,
    },
    /// List what one went past.
    SetAside {
        /// Its name.
        name: String,
    },
}

/// One reader in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderLine {
    /// Name and shard.
    pub reader: String,
    /// Everything up to this position is dealt with.
    pub position: i64,
    /// Positions that it is behind.
    pub lag: u64,
    /// Of a reader that reads the stored events first: the number of the last one that it has dealt with.
    pub building: Option<i64>,
    /// Whether it waits to be resumed.
    pub paused: bool,
    /// How often it failed in a row.
    pub failures: u32,
    /// Why it failed last.
    pub last_error: Option<String>,
    /// Records that it has dealt with.
    pub records: u64,
    /// Records that it went past.
    pub set_aside: u64,
}

/// One record in a list of those that were set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAsideLine {
    /// Name and shard of the reader.
    pub reader: String,
    /// Where.
    pub position: i64,
    /// What stands there.
    pub records: String,
    /// Why it could not be dealt with.
    pub why: String,
    /// When, in milliseconds since 1970.
    pub at: i64,
}

/// Does what a command asks for.
pub(super) async fn execute(server: &Server, command: ReadersCommand) -> Result<AdminReply, Refusal> {
    let readers = &server.readers;
    let done = |count: usize, what: &str, name: &str| match count {
        0 => Err(Refusal::not_found(format!(
            "no reader of the name {name} was {what}"
        ))),
        1 => Ok(AdminReply::Done {
            message: format!("{what} {name}"),
        }),
        shards => Ok(AdminReply::Done {
            message: format!("{what} {name}, {shards} shards"),
        }),
    };
    match command {
        ReadersCommand::List => {
            let all = readers.all().await?;
            Ok(AdminReply::Readers {
                readers: all.into_iter().map(|(stored, lag)| line(stored, lag)).collect(),
            })
        }
        ReadersCommand::Pause { name } => done(readers.set_paused(&name, true).await?, "paused", &name),
        ReadersCommand::Resume { name } => done(readers.set_paused(&name, false).await?, "resumed", &name),
        ReadersCommand::Rewind { name, position, skip } => {
            let to = Position(position.max(0));
            done(readers.rewind(&name, to, skip).await?, "rewound", &name)
        }
        ReadersCommand::SetAside { name } => {
            let records = readers.set_aside(&name).await?;
            Ok(AdminReply::SetAside {
                records: records.into_iter().map(set_aside_line).collect(),
            })
        }
    }
}

fn line(stored: StoredReader, lag: u64) -> ReaderLine {
    ReaderLine {
        reader: stored.id.to_string(),
        position: stored.position.0,
        lag,
        building: stored.building.map(|nid| nid.0),
        paused: stored.paused,
        failures: stored.failures,
        last_error: stored.last_error,
        records: stored.records,
        set_aside: stored.set_aside,
    }
}

fn set_aside_line(record: SetAside) -> SetAsideLine {
    SetAsideLine {
        reader: record.id.to_string(),
        position: record.position.0,
        records: record.records,
        why: record.why,
        at: record.at,
    }
}
