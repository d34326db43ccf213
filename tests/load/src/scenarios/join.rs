//! Joining a large room of another homeserver: its whole state comes, and every event of it is verified.

use std::time::Instant;

use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::error::LoadError;
use crate::measure::{Stopwatch, millis};
use crate::report::Outcome;

/// How large the room is.
#[derive(Debug, Clone, Serialize, Args)]
pub(crate) struct Size {
    /// Members of the room
    #[arg(long, default_value_t = 10_000)]
    pub(crate) members: usize,
}

pub(super) async fn run(size: &Size, context: &Context, outcome: &mut Outcome) -> Result<(), LoadError> {
    let users = context.users(size.members).await?;
    let mut creator = context.sessions_of(users.get(..1).unwrap_or_default());
    let room = context.room(&mut creator.iter_mut().collect::<Vec<_>>()).await?;
    for share in users.get(1..).unwrap_or_default().chunks(256) {
        // Connections are dropped after each share: ten thousand of them are no part of this.
        let mut sessions = context.sessions_of(share);
        futures_util::future::try_join_all(sessions.iter_mut().map(|session| session.join(&room))).await?;
    }
    let Some(creator) = creator.first_mut() else {
        return Err(LoadError::Usage("join needs members".into()));
    };
    let server_name = creator.server_name().await?;
    let mut readers = context.other()?.sessions(1).await?;
    let mut reader = readers.remove(0);

    let (started, stopwatch) = (Instant::now(), Stopwatch::start(&context.watched)?);
    reader.join_through(&room, &server_name).await?;
    let took = started.elapsed();
    let usage = stopwatch.usage()?;

    outcome.figure("join_ms", millis(took));
    outcome.cpu(&usage, size.members, "member");
    if context.judge {
        outcome.at_most("join_ms", 3_000.0);
    }
    let joined = reader.count_joined(&room).await?;
    if joined != size.members + 1 {
        return Err(LoadError::Verification(format!(
            "the other homeserver knows {joined} members of {}",
            size.members + 1
        )));
    }
    Ok(())
}
