//! What the admin asks of application services, and is told.

use serde::{Deserialize, Serialize};

use super::AdminReply;
use crate::refusal::Refusal;
use crate::server::Server;

/// What to do with application services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum AppserviceCommand {
    /// List all that are registered.
    List,
}

/// One application service in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppserviceLine {
    /// Its id.
    pub id: String,
    /// The user as whom it acts by itself.
    pub sender: String,
    /// Where it listens; none for one that is sent nothing.
    pub url: Option<String>,
    /// Transactions that were begun for it so far.
    pub transactions: i64,
    /// Whether the last of them is not accepted yet.
    pub under_way: bool,
    /// Positions of the log that it is behind.
    pub lag: u64,
    /// Whether it waits to be resumed (`maru readers resume appservice/<id>`).
    pub paused: bool,
    /// How often it failed in a row.
    pub failures: u32,
    /// Why it failed last.
    pub last_error: Option<String>,
}

/// Does what a command asks for.
pub(super) async fn execute(server: &Server, command: AppserviceCommand) -> Result<AdminReply, Refusal> {
    let AppserviceCommand::List = command;
    let readers = server.readers.all().await?;
    let transactions = server.store.appservices.all().await?;
    let line = |(registration, reader): (&std::sync::Arc<_>, Option<String>)| {
        let registration: &crate::appservice_registrations::Registration = registration;
        let mut readers = readers.iter();
        let reader = reader.and_then(|name| readers.find(|(stored, _)| *stored.id.name == *name));
        let transaction = transactions.get(&registration.id);
        AppserviceLine {
            id: registration.id.clone(),
            sender: registration.sender.to_string(),
            url: registration.url.clone(),
            transactions: transaction.map_or(0, |(sequence, _)| *sequence),
            under_way: transaction.is_some_and(|(_, is_under_way)| *is_under_way),
            lag: reader.map_or(0, |(_, lag)| *lag),
            paused: reader.is_some_and(|(stored, _)| stored.paused),
            failures: reader.map_or(0, |(stored, _)| stored.failures),
            last_error: reader.and_then(|(stored, _)| stored.last_error.clone()),
        }
    };
    Ok(AdminReply::Appservices {
        services: server.appservices.all().map(line).collect(),
    })
}
