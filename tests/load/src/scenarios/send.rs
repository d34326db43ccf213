//! Concurrent senders, nobody listening: what one commit path carries.

use std::time::{Duration, Instant};

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

/// How long a node may take to show what was acknowledged by another.
const CATCHING_UP: Duration = Duration::from_secs(5);

/// Users stand in a circle, and the rooms evenly around it; a room has the `members` users from its place on.
#[derive(Debug, Clone, Copy)]
struct Circle {
    users: usize,
    rooms: usize,
    members: usize,
}

impl Circle {
    fn place(self, room: usize) -> usize {
        room * self.users / self.rooms.max(1)
    }

    fn members_of(self, room: usize) -> impl Iterator<Item = usize> {
        (0..self.members).map(move |offset| (self.place(room) + offset) % self.users)
    }
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
    let circle = Circle {
        users: sessions.len(),
        rooms,
        members,
    };
    let rooms = make_rooms(context, &mut sessions, circle).await?;
    let rooms_of = rooms_of_users(&rooms, circle);
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

    let deadline = Instant::now() + CATCHING_UP;
    loop {
        let pages = read_all(&mut sessions, &rooms, circle).await?;
        let verdict = traffic::verify_history(&pages, &marker, &acknowledged);
        // Who reads at another node than was written to, and shows no cursor, may be some milliseconds too early.
        if verdict.is_ok() || context.further_nodes.is_empty() || Instant::now() > deadline {
            return verdict;
        }
    }
}

async fn make_rooms(
    context: &Context,
    sessions: &mut [Session],
    circle: Circle,
) -> Result<Vec<Room>, LoadError> {
    let mut made = Vec::with_capacity(circle.rooms);
    for room in 0..circle.rooms {
        // Turning the circle puts the members in front.
        sessions.rotate_left(circle.place(room));
        let mut present: Vec<&mut Session> = sessions.iter_mut().take(circle.members).collect();
        let room_made = context.room(&mut present).await;
        sessions.rotate_right(circle.place(room));
        made.push(room_made?);
    }
    Ok(made)
}

fn rooms_of_users(rooms: &[Room], circle: Circle) -> Vec<Vec<&Room>> {
    let mut rooms_of = vec![Vec::new(); circle.users];
    for (index, room) in rooms.iter().enumerate() {
        for user in circle.members_of(index) {
            if let Some(own) = rooms_of.get_mut(user) {
                own.push(room);
            }
        }
    }
    rooms_of
}

/// The histories of all rooms, each read by its creator.
async fn read_all(sessions: &mut [Session], rooms: &[Room], circle: Circle) -> Result<Vec<Page>, LoadError> {
    let reading = sessions.iter_mut().enumerate().map(async |(user, session)| {
        let mut pages = Vec::new();
        for (_, room) in rooms
            .iter()
            .enumerate()
            .filter(|(index, _)| circle.place(*index) == user)
        {
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
        let ids: Vec<Vec<&str>> = rooms_of_users(
            &rooms,
            Circle {
                users: 3,
                rooms: 3,
                members: 2,
            },
        )
        .into_iter()
        .map(|own| own.into_iter().map(|room| room.id.as_str()).collect())
        .collect();
        assert_eq!(ids, [["!0", "!2"], ["!0", "!1"], ["!1", "!2"]]);
    }

    #[test]
    fn everybody_is_in_a_room_if_there_are_places_enough() {
        for (users, rooms, members) in [(64, 16, 10), (64, 64, 10), (100, 1, 100), (10, 25, 2)] {
            let rooms_made: Vec<Room> = (0..rooms).map(|room| Room::new(format!("!{room}"))).collect();
            let rooms_of = rooms_of_users(
                &rooms_made,
                Circle {
                    users,
                    rooms,
                    members,
                },
            );
            assert!(
                rooms_of.iter().all(|own| !own.is_empty()),
                "{users} users, {rooms} rooms of {members}"
            );
        }
    }
}
