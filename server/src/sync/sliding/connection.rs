//! What a device has been sent on a connection: of each room up to where, and by which configuration.
//!
//! A room that the request asks for is kept current: the device has all of it up to its `pos`. One that it does not ask for
//! any more stays behind, and goes on from there when it is asked for again. A device may come back with the `pos` before
//! the last one, because the answer was lost; so the connection before it is kept too.

use std::collections::HashMap;
use std::sync::Arc;

use maru_protocol::cursor::{ConnectionPoint, Position};

use super::request::RoomConfig;
use crate::store::accounts::sync_connections::{SentRoom, StoredConnection};

/// Different configurations of rooms that one connection may use; after that it must begin anew.
const CONFIGS: usize = 64;

/// A connection at a point.
#[derive(Debug, Default)]
pub(super) struct Connection {
    /// The point; none while no room has been sent.
    pub(super) point: Option<ConnectionPoint>,
    rooms: HashMap<i64, Sent>,
    configs: Vec<RoomConfig>,
    /// Rooms with rows in the database beneath those of this point.
    superseded: Vec<i64>,
    /// The connection at the point before.
    pub(super) previous: Option<Arc<Connection>>,
}

/// What of a room has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    until: Option<Position>,
    config: usize,
}

/// From where a room is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The device knows nothing of it.
    Whole,
    /// The device has it up to here.
    After(Position),
    /// The device has it up to its `pos`.
    Current,
}

/// A connection after an answer, and what has changed of it.
#[derive(Debug)]
pub(super) struct Changed {
    /// The connection.
    pub(super) connection: Connection,
    /// Its rooms that changed.
    pub(super) rooms: Vec<SentRoom>,
    /// Rooms whose rows beneath the point before can be dropped.
    pub(super) superseded: Vec<i64>,
}

/// A connection has used too many different configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyConfigs;

impl Connection {
    /// A connection as it was stored.
    ///
    /// # Errors
    /// When its configurations cannot be read.
    pub(super) fn read(point: ConnectionPoint, stored: StoredConnection) -> Result<Self, serde_json::Error> {
        let configs = serde_json::from_str(&stored.configs)?;
        let sent = |sent: SentRoom| {
            let config = usize::try_from(sent.config).unwrap_or(usize::MAX);
            (
                sent.room,
                Sent {
                    until: sent.until,
                    config,
                },
            )
        };
        Ok(Self {
            point: Some(point),
            rooms: stored.rooms.into_iter().map(sent).collect(),
            configs,
            superseded: stored.superseded,
            previous: None,
        })
    }

    /// Its configurations as a JSON array.
    ///
    /// # Errors
    /// None that is known.
    pub(super) fn configs(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&self.configs)
    }

    /// About what it takes in memory, in bytes.
    pub(super) fn weight(&self) -> usize {
        let configs: usize = self.configs.iter().map(RoomConfig::weight).sum();
        let previous = self.previous.as_ref().map_or(0, |previous| previous.weight());
        512 + self.rooms.len() * 48 + configs + previous
    }

    /// From where a room is to be sent that the request asks for.
    pub(super) fn due(&self, room: i64) -> Due {
        match self.rooms.get(&room) {
            None => Due::Whole,
            Some(Sent {
                until: Some(until), ..
            }) => Due::After(*until),
            Some(Sent { until: None, .. }) => Due::Current,
        }
    }

    /// The configuration by which a room was sent last.
    pub(super) fn config(&self, room: i64) -> Option<&RoomConfig> {
        self.configs.get(self.rooms.get(&room)?.config)
    }

    /// Whether all rooms that are kept current are among some.
    pub(super) fn keeps_only_current(&self, among: impl Fn(i64) -> bool) -> bool {
        let mut current = self.rooms.iter().filter(|(_, sent)| sent.until.is_none());
        current.all(|(room, _)| among(*room))
    }

    /// The connection after an answer with all of some rooms; none when nothing has changed. `since` is the position of
    /// the device's `pos`, up to which it has those that are not among them any more; `left` are rooms of which it has been
    /// told that the user is out.
    ///
    /// # Errors
    /// [`TooManyConfigs`].
    pub(super) fn after<'c>(
        self: &Arc<Self>,
        sent: impl IntoIterator<Item = (i64, &'c RoomConfig)>,
        left: &[i64],
        since: Position,
        (new_connection, nonce): (i64, i64),
    ) -> Result<Option<Changed>, TooManyConfigs> {
        let mut configs = self.configs.clone();
        let mut now: HashMap<i64, Sent> = HashMap::new();
        for (room, config) in sent {
            let number = configs.iter().position(|known| known == config);
            let number = number.unwrap_or_else(|| {
                configs.push(config.clone());
                configs.len() - 1
            });
            now.insert(
                room,
                Sent {
                    until: None,
                    config: number,
                },
            );
        }
        if configs.len() > CONFIGS {
            return Err(TooManyConfigs);
        }
        for (room, before) in &self.rooms {
            if left.contains(room) {
                // Whoever comes back to it is sent it whole.
                now.insert(
                    *room,
                    Sent {
                        until: Some(Position::START),
                        ..*before
                    },
                );
            } else if !now.contains_key(room) {
                let until = before.until.unwrap_or(since);
                now.insert(
                    *room,
                    Sent {
                        until: Some(until),
                        ..*before
                    },
                );
            }
        }
        let changed = now
            .iter()
            .filter(|(room, sent)| self.rooms.get(*room) != Some(*sent));
        let rooms: Vec<SentRoom> = changed.map(|(room, sent)| stored(*room, *sent)).collect();
        if rooms.is_empty() {
            return Ok(None);
        }
        let superseded = rooms.iter().map(|sent| sent.room);
        let connection = Self {
            point: Some(ConnectionPoint {
                connection: self.point.map_or(new_connection, |point| point.connection),
                generation: self.point.map_or(0, |point| point.generation) + 1,
                nonce,
            }),
            superseded: superseded.filter(|room| self.rooms.contains_key(room)).collect(),
            rooms: now,
            configs,
            previous: Some(Arc::new(self.without_previous())),
        };
        Ok(Some(Changed {
            connection,
            rooms,
            superseded: self.superseded.clone(),
        }))
    }

    /// The same, without the one before.
    fn without_previous(&self) -> Self {
        Self {
            point: self.point,
            rooms: self.rooms.clone(),
            configs: self.configs.clone(),
            superseded: self.superseded.clone(),
            previous: None,
        }
    }
}

fn stored(room: i64, sent: Sent) -> SentRoom {
    SentRoom {
        room,
        until: sent.until,
        config: i64::try_from(sent.config).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::super::required_state::RequiredState;
    use super::*;

    fn config(timeline_limit: usize) -> RoomConfig {
        RoomConfig::new(timeline_limit, RequiredState::default())
    }

    fn after(connection: &Arc<Connection>, rooms: &[i64], limit: usize, since: i64) -> Arc<Connection> {
        let config = config(limit);
        let sent = rooms.iter().map(|room| (*room, &config));
        match connection.after(sent, &[], Position(since), (1, since)) {
            Ok(Some(changed)) => Arc::new(changed.connection),
            Ok(None) => Arc::clone(connection),
            Err(error) => panic!("{error:?}"),
        }
    }

    #[test]
    fn a_room_that_is_not_asked_for_stays_behind_and_goes_on_from_there() {
        let first = after(&Arc::default(), &[1, 2], 1, 0);
        assert_eq!(first.due(1), Due::Current);
        assert_eq!(first.due(3), Due::Whole);
        let second = after(&first, &[2, 3], 1, 10);
        assert_eq!(second.due(1), Due::After(Position(10)));
        let third = after(&second, &[2, 3], 1, 20);
        assert_eq!(
            third.due(1),
            Due::After(Position(10)),
            "it has not been sent since"
        );
        assert_eq!(third.point, second.point, "nothing has changed");
        let fourth = after(&third, &[1, 2, 3], 1, 30);
        assert_eq!(fourth.due(1), Due::Current);
    }

    #[test]
    fn the_point_before_is_there_for_a_lost_answer() {
        let first = after(&Arc::default(), &[1], 1, 0);
        let second = after(&first, &[1, 2], 1, 10);
        let before = second
            .previous
            .as_ref()
            .map(|previous| (previous.point, previous.due(2)));
        assert_eq!(before, Some((first.point, Due::Whole)));
    }

    #[test]
    fn a_room_that_was_left_is_sent_whole_when_the_user_is_back() {
        let first = after(&Arc::default(), &[1], 1, 0);
        let changed = first.after([], &[1], Position(10), (1, 1));
        let changed = changed.ok().flatten().map(|changed| changed.connection.due(1));
        assert_eq!(changed, Some(Due::After(Position::START)));
    }

    #[test]
    fn a_connection_with_ever_new_configurations_ends() {
        let mut connection = Arc::<Connection>::default();
        for limit in 0..CONFIGS {
            connection = after(&connection, &[1], limit, 0);
        }
        assert_eq!(connection.config(1), Some(&config(CONFIGS - 1)));
        let last = config(CONFIGS);
        let refused = connection.after([(1, &last)], &[], Position(0), (1, 1));
        assert_eq!(refused.err(), Some(TooManyConfigs));
    }
}
