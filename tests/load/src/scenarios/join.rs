//! Joining a large room of another homeserver: its whole state comes, and every event of it is verified.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::crowd::Crowd;
use crate::error::LoadError;
use crate::matrix::{Room, Session};
use crate::measure::{Stopwatch, millis};
use crate::report::Outcome;

/// How large the room is.
#[derive(Debug, Clone, Serialize, Args)]
pub(crate) struct Size {
    /// Members of the room
    #[arg(long, default_value_t = 10_000)]
    pub(crate) members: usize,
}

/// How often the first homeserver is asked whether it has let everybody in.
const LOOK: Duration = Duration::from_millis(500);

pub(super) async fn run(size: &Size, context: &Context, outcome: &mut Outcome) -> Result<(), LoadError> {
    let begun = Instant::now();
    let mut creator = context.sessions(1).await?.remove(0);
    let room = creator.create_room().await?;
    let server_name = creator.server_name().await?;
    let address = context.federation()?;
    let crowd = Crowd::joined(&server_name, address, &room.id, size.members.saturating_sub(1)).await?;
    let members = everybody(&mut creator, &room, size.members).await?;
    let mut reader = context.other()?.sessions(1).await?.remove(0);
    outcome.figure("setup_ms", millis(begun.elapsed()));

    let (started, stopwatch) = (Instant::now(), Stopwatch::start(&context.watched)?);
    reader.join_through(&room, &server_name).await?;
    let took = started.elapsed();
    let usage = stopwatch.usage()?;

    outcome.figure("join_ms", millis(took));
    outcome.cpu(&usage, size.members, "member");
    if context.judge {
        outcome.at_most("join_ms", 3_000.0);
    }
    let mut known = reader.joined(&room).await?;
    let own = reader.user_id().await?;
    if !known.remove(&own) || known != members {
        return Err(LoadError::Verification(format!(
            "the other homeserver knows {} of the room's {} members, and {own}",
            known.intersection(&members).count(),
            members.len()
        )));
    }
    crowd.leave().await;
    Ok(())
}

/// Waits until a room has so many members, and says who they are.
async fn everybody(
    session: &mut Session,
    room: &Room,
    count: usize,
) -> Result<std::collections::BTreeSet<String>, LoadError> {
    loop {
        let members = session.joined(room).await?;
        if members.len() >= count {
            return Ok(members);
        }
        tokio::time::sleep(LOOK).await;
    }
}
