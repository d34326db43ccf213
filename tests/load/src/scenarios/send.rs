//! Concurrent senders, nobody listening: what one commit path carries.

use clap::Args;
use futures_util::future::try_join_all;
use serde::Serialize;

use crate::context::Context;
use crate::error::LoadError;
use crate::matrix::{Page, Room, Session};
use crate::measure::Stopwatch;
use crate::report::Outcome;
use crate::traffic::{self, PAGE};

/// How much is sent by whom.
#[derive(Debug, Clone, Serialize, Args)]
pub(crate) struct Size {
    /// Senders at once, each on its own connection
    #[arg(long, default_value_t = 64)]
    pub(crate) senders: usize,
    /// Members of each room
    #[arg(long, default_value_t = 100)]
    pub(crate) members: usize,
    /// Rooms that the messages are spread over
    #[arg(long, default_value_t = 1)]
    pub(crate) rooms: usize,
    /// Messages altogether
    #[arg(long, default_value_t = 50_000)]
    pub(crate) messages: usize,
}

/// Users stand in a circle; room r has the `members` users from place r on, so that every room differs.
fn members_of(room: usize, members: usize, users: usize) -> impl Iterator<Item = usize> {
    (0..members).map(move |offset| (room + offset) % users)
}

pub(super) async fn run(size: &Size, context: &Context, outcome: &mut Outcome) -> Result<(), LoadError> {
    let Size {
        senders,
        members,
        rooms,
        messages,
    } = *size;
    if senders == 0 || members == 0 || rooms == 0 {
        return Err(LoadError::Usage("send needs senders, members and rooms".into()));
    }
    let mut sessions = context.sessions(senders.max(members)).await?;
    let rooms = make_rooms(context, &mut sessions, rooms, members).await?;
    let rooms_of = rooms_of_users(&rooms, members, sessions.len());
    let able: Vec<usize> = (0..senders)
        .filter(|sender| rooms_of.get(*sender).is_some_and(|own| !own.is_empty()))
        .collect();
    if able.len() < senders {
        return Err(LoadError::Usage(
            "every sender must be a member of some room: more members or rooms".into(),
        ));
    }
    let (Some(active), Some(active_rooms)) = (sessions.get_mut(..senders), rooms_of.get(..senders)) else {
        return Err(LoadError::Usage("fewer users than senders".into()));
    };

    let marker = context.marker();
    let stopwatch = Stopwatch::start(&context.watched)?;
    let (acknowledged, latencies) = traffic::send_all(active, active_rooms, &marker, messages).await?;
    let usage = stopwatch.usage()?;

    outcome.figure("messages_per_second", messages as f64 / usage.wall.as_secs_f64());
    outcome.latencies("request", &latencies);
    outcome.cpu(&usage, messages, "message");
    outcome.busy(&usage);
    if context.judge && rooms.len() == 1 {
        let on_postgres = context.watched.database.is_watched();
        outcome.at_least("messages_per_second", if on_postgres { 3_000.0 } else { 3_500.0 });
        outcome.at_most("server_cpu_ms_per_message", 0.25);
    }

    let pages = read_all(&mut sessions, &rooms).await?;
    traffic::verify_history(&pages, &marker, &acknowledged)
}

async fn make_rooms(
    context: &Context,
    sessions: &mut [Session],
    rooms: usize,
    members: usize,
) -> Result<Vec<Room>, LoadError> {
    let users = sessions.len();
    let mut made = Vec::with_capacity(rooms);
    for room in 0..rooms {
        // The first member in the circle is at `room`; rotating the slice puts the members in front.
        sessions.rotate_left(room % users);
        let mut present: Vec<&mut Session> = sessions.iter_mut().take(members).collect();
        let room_made = context.room(&mut present).await;
        sessions.rotate_right(room % users);
        made.push(room_made?);
    }
    Ok(made)
}

fn rooms_of_users(rooms: &[Room], members: usize, users: usize) -> Vec<Vec<&Room>> {
    let mut rooms_of = vec![Vec::new(); users];
    for (index, room) in rooms.iter().enumerate() {
        for user in members_of(index, members, users) {
            if let Some(own) = rooms_of.get_mut(user) {
                own.push(room);
            }
        }
    }
    rooms_of
}

/// The histories of all rooms, each read by its creator.
async fn read_all(sessions: &mut [Session], rooms: &[Room]) -> Result<Vec<Page>, LoadError> {
    let users = sessions.len();
    let reading = sessions.iter_mut().enumerate().map(async |(user, session)| {
        let mut pages = Vec::new();
        for room in rooms.iter().skip(user).step_by(users) {
            pages.extend(traffic::parse_pages(
                &traffic::read_history(session, room, PAGE).await?,
            )?);
        }
        Ok::<_, LoadError>(pages)
    });
    Ok(try_join_all(reading).await?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_spread_over_the_circle_of_users() {
        let rooms: Vec<Room> = (0..3).map(|room| Room::new(format!("!{room}"))).collect();
        let ids: Vec<Vec<&str>> = rooms_of_users(&rooms, 2, 3)
            .into_iter()
            .map(|own| own.into_iter().map(|room| room.id.as_str()).collect())
            .collect();
        assert_eq!(ids, [["!0", "!2"], ["!0", "!1"], ["!1", "!2"]]);
    }
}
