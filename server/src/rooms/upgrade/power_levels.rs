//! The power levels of a room that replaces another, and of the room that it replaces (client-server API, "Room
//! Upgrades"). Pure.

use std::collections::BTreeSet;

use maru_protocol::version::RoomVersion;
use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value, json};

/// The power of those who were above all levels, in a room whose version knows no such people.
const ADMIN: i64 = 100;

/// What tombstones need in rooms whose creators stand above all levels: more than other admins have.
const TOMBSTONE: i64 = 150;

/// The levels of a replacement.
#[derive(Debug, PartialEq)]
pub(in crate::rooms) struct Levels {
    /// What they are at first, so that whoever upgrades can set all state.
    pub(in crate::rooms) first: Map<String, Value>,
    /// What they are in the end, where that differs.
    pub(in crate::rooms) last: Option<Map<String, Value>>,
}

/// Carries levels over into a room of `version` with these `creators`, made by `upgrader`. `former` are the creators
/// of the old room, where they stood above its levels.
pub(in crate::rooms) fn carried_over(
    mut levels: Map<String, Value>,
    former: &BTreeSet<OwnedUserId>,
    version: RoomVersion,
    creators: &BTreeSet<OwnedUserId>,
    upgrader: &UserId,
) -> Levels {
    let highest = highest_needed(&levels);
    change(&mut levels, "users", |users| {
        let admins = former
            .iter()
            .map(|creator| (creator.to_string(), json!(highest.max(ADMIN))));
        users.extend(admins);
        if version.creators_are_privileged() {
            users.retain(|user_id, _| !creators.iter().any(|creator| creator.as_str() == user_id));
        }
    });
    if version.creators_are_privileged() {
        change(&mut levels, "events", |events| {
            events.insert("m.room.tombstone".into(), json!(TOMBSTONE.max(highest)));
        });
        return Levels {
            first: levels,
            last: None,
        };
    }
    let users = levels.get("users").and_then(Value::as_object);
    let own = users.and_then(|users| users.get(upgrader.as_str())?.as_i64());
    let own = own.unwrap_or_else(|| number(&levels, "users_default", 0));
    if own >= highest {
        return Levels {
            first: levels,
            last: None,
        };
    }
    let mut first = levels.clone();
    change(&mut first, "users", |users| {
        users.insert(upgrader.to_string(), json!(highest));
    });
    Levels {
        first,
        last: Some(levels),
    }
}

/// The levels of a room that has been replaced: ordinary members neither speak nor invite. `None` when that is so
/// already.
pub(in crate::rooms) fn silenced(levels: &Map<String, Value>) -> Option<Map<String, Value>> {
    let quiet = number(levels, "users_default", 0).saturating_add(1).max(50);
    let mut silenced = levels.clone();
    for (key, default) in [("events_default", 0), ("invite", 0)] {
        let level = number(levels, key, default).max(quiet);
        silenced.insert(key.into(), json!(level));
    }
    (silenced != *levels).then_some(silenced)
}

/// The most power that any kind of state needs.
fn highest_needed(levels: &Map<String, Value>) -> i64 {
    let named = ["ban", "kick", "state_default"].map(|key| number(levels, key, 50));
    let events = levels.get("events").and_then(Value::as_object);
    let events = events.into_iter().flat_map(Map::values).filter_map(Value::as_i64);
    named.into_iter().chain(events).max().unwrap_or(50)
}

fn number(levels: &Map<String, Value>, key: &str, default: i64) -> i64 {
    levels.get(key).and_then(Value::as_i64).unwrap_or(default)
}

/// Changes the object under a key, made when it is missing.
fn change(levels: &mut Map<String, Value>, key: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    let mut object = match levels.remove(key) {
        Some(Value::Object(object)) => object,
        _ => Map::new(),
    };
    change(&mut object);
    levels.insert(key.into(), Value::Object(object));
}

#[cfg(test)]
mod tests {
    use crate::rooms::upgrade::power_levels::*;

    fn levels(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    fn users(ids: &[&str]) -> BTreeSet<OwnedUserId> {
        ids.iter().map(|id| OwnedUserId::try_from(*id).unwrap()).collect()
    }

    fn carry(old: Value, former: &[&str], version: RoomVersion) -> Levels {
        let alice = users(&["@alice:x"]);
        let upgrader = <&UserId>::try_from("@alice:x").unwrap();
        carried_over(levels(old), &users(former), version, &alice, upgrader)
    }

    #[test]
    fn creators_are_not_listed_from_version_12_on() {
        let old = json!({ "users": { "@alice:x": 100, "@bob:x": 50 }, "events": {} });
        let carried = carry(old, &[], RoomVersion::V12);
        assert_eq!(
            Value::Object(carried.first),
            json!({ "users": { "@bob:x": 50 }, "events": { "m.room.tombstone": 150 } })
        );
        assert_eq!(carried.last, None);
    }

    #[test]
    fn former_creators_become_admins() {
        let old = json!({ "users": {}, "events": { "m.room.tombstone": 150 } });
        let carried = carry(old.clone(), &["@alice:x", "@bob:x"], RoomVersion::V11);
        assert_eq!(carried.first["users"], json!({ "@alice:x": 150, "@bob:x": 150 }));
        let carried = carry(old, &["@alice:x", "@bob:x"], RoomVersion::V12);
        assert_eq!(carried.first["users"], json!({ "@bob:x": 150 }));
    }

    #[test]
    fn a_moderator_who_upgrades_has_more_power_for_a_moment() {
        let old = json!({ "users": { "@alice:x": 50 }, "events": { "m.room.encryption": 100, "m.room.tombstone": 50 } });
        let carried = carry(old.clone(), &[], RoomVersion::V11);
        assert_eq!(carried.first["users"]["@alice:x"], 100);
        assert_eq!(carried.last.map(Value::Object), Some(old));
    }

    #[test]
    fn a_replaced_room_is_silent() {
        let silent = silenced(&levels(json!({ "users_default": 60, "invite": 70 }))).unwrap();
        assert_eq!(
            Value::Object(silent.clone()),
            json!({ "users_default": 60, "invite": 70, "events_default": 61 })
        );
        assert_eq!(silenced(&silent), None);
    }
}
