//! Fills a window from the database: first syncs, old cursors, and changes of the user's own memberships. A constant
//! number of queries, whatever the number of rooms.

use std::collections::HashSet;
use std::sync::Arc;

use maru_protocol::cursor::{Place, Position};

use super::recent::last_of_each_slot;
use super::window::{JoinedWindow, LeftWindow, Window};
use super::{Sync, Wish, to_device};
use crate::accounts::Caller;
use crate::live::Fresh;
use crate::refusal::Refusal;
use crate::store::account_data::{AccountData, GLOBAL};
use crate::store::events::StoredEvent;
use crate::store::rooms::StoredMembership;

/// The account data that holds push rules.
const PUSH_RULES: &str = "m.push_rules";

/// Gathers what a device has not seen since a position (`None`: anything). `fresh` brings what lives in memory only.
pub(super) async fn window(
    sync: &Sync,
    caller: &Caller,
    since: Option<Position>,
    fresh: Fresh,
    wish: &Wish,
) -> Result<Window, Refusal> {
    let until = fresh.position;
    let mut window = Window {
        since,
        until,
        gathered: true,
        presence: fresh.presence,
        ..Window::default()
    };
    let after = since.unwrap_or(Position::START);
    let memberships = sync.store.memberships_of(&caller.user_id).await?;
    let wanted = |m: &&StoredMembership| m.position <= until && wish.filter.wants_room(m.room_id.as_str());
    let mut left = Vec::new();
    let joined = memberships.iter().filter(wanted).map(|m| &m.membership);
    let joined: Vec<i64> = joined
        .filter(|m| m.membership == "join")
        .map(|m| m.room)
        .collect();
    let rooms = sync.rooms.rooms_by_nid(&joined).await?;
    for membership in memberships.iter().filter(wanted) {
        let is_new = membership.position > after;
        match membership.membership.membership.as_str() {
            "join" => {
                let Some(room) = rooms.get(&membership.membership.room) else {
                    continue;
                };
                let mut joined = JoinedWindow::of(Arc::clone(room));
                joined.entire =
                    since.is_none() || is_new && has_newly_joined(sync, membership, after).await?;
                window.joined.insert(membership.membership.room, joined);
            }
            "invite" | "knock" if is_new => window.outside.push(membership.clone()),
            "leave" | "ban" if !membership.forgotten => {
                let first_with_left = since.is_none() && wish.filter.include_leave;
                if first_with_left || since.is_some() && is_new {
                    left.push(membership.clone());
                }
            }
            _ => {}
        }
    }
    let limit = i64::try_from(wish.filter.timeline_limit()).unwrap_or(i64::MAX);
    fill_joined(sync, caller, &mut window, after, limit).await?;
    for membership in left {
        window
            .left
            .extend(left_window(sync, &membership, since, limit).await?);
    }
    fill_data(sync, caller, &mut window, since).await?;
    for nid in fresh.typing {
        if let Some(joined) = window.joined.get_mut(&nid) {
            joined.typing = true;
        }
    }
    if let Some(since) = since {
        window.device_lists = sync
            .store
            .device_lists_since(&caller.user_id, since, until)
            .await?;
    }
    window.to_device = to_device::stored(sync, caller, after, until).await?;
    let is_idle = |joined: &JoinedWindow| {
        !joined.entire
            && joined.timeline.is_empty()
            && joined.receipts.is_empty()
            && joined.account_data.is_empty()
            && !joined.typing
    };
    window.joined.retain(|_, joined| !is_idle(joined));
    Ok(window)
}

/// Whether the user was not joined at `after`: looks back along the user's membership events.
async fn has_newly_joined(
    sync: &Sync,
    membership: &StoredMembership,
    after: Position,
) -> Result<bool, Refusal> {
    let mut nid = membership.membership.event;
    loop {
        let Some(stored) = sync.rooms.events(&[nid]).await?.remove(&nid) else {
            return Ok(true);
        };
        if !super::members::is_join(&stored.event) {
            return Ok(true);
        }
        if stored.position().is_none_or(|position| position <= after) {
            return Ok(false);
        }
        match stored.replaces {
            Some(replaced) => nid = replaced,
            None => return Ok(true),
        }
    }
}

async fn fill_joined(
    sync: &Sync,
    caller: &Caller,
    window: &mut Window,
    after: Position,
    limit: i64,
) -> Result<(), Refusal> {
    let until = window.until;
    let known: Vec<i64> = window
        .joined
        .values()
        .filter(|joined| !joined.entire)
        .map(|joined| joined.room.nid)
        .collect();
    let first_new = sync.store.first_places_since(known, after, until).await?;
    let mut starts = Vec::new();
    for (nid, joined) in &mut window.joined {
        let newest = joined.room.head();
        // What happened in a gap is in the state after it alone, so the device is told the room as if it were new.
        joined.entire |= first_new
            .get(nid)
            .is_some_and(|first| first.begins_stretch() || first.next_stretch() <= newest.last_place);
        let earliest = Place(newest.last_place.0 - limit + 1).max(newest.first_place);
        let start = match first_new.get(nid) {
            _ if joined.entire => earliest,
            Some(first) => earliest.max(*first),
            None => continue,
        };
        joined.limited = if joined.entire {
            start > newest.first_place
        } else {
            first_new.get(nid) < Some(&start)
        };
        starts.push((*nid, start));
    }
    let mut timelines = sync.store.timelines(&starts, limit).await?;
    for (nid, start) in starts {
        let Some(joined) = window.joined.get_mut(&nid) else {
            continue;
        };
        let timeline = timelines.remove(&nid).unwrap_or_default();
        let is_due = |stored: &Arc<StoredEvent>| stored.position().is_some_and(|position| position <= until);
        joined.timeline = timeline.into_iter().filter(is_due).collect();
        joined.limited |= joined.timeline.first().is_some_and(|stored| stored.follows_gap());
        joined.unread = !joined.timeline.is_empty() || joined.entire;
        if joined.entire {
            let visible = sync
                .rooms
                .visible(
                    &caller.user_id,
                    &joined.room,
                    std::mem::take(&mut joined.timeline),
                )
                .await?;
            joined.timeline = visible;
        } else if let Some(first) = first_new.get(&nid).filter(|_| joined.limited) {
            let skipped = sync.store.state_events_between(nid, *first, start).await?;
            joined.skipped_state = last_of_each_slot(skipped);
        }
    }
    Ok(())
}

/// What a user may still see of a room that the user has left.
async fn left_window(
    sync: &Sync,
    membership: &StoredMembership,
    since: Option<Position>,
    limit: i64,
) -> Result<Option<LeftWindow>, Refusal> {
    let nid = membership.membership.room;
    let Some(room) = sync.rooms.room_by_nid(nid).await? else {
        return Ok(None);
    };
    let leave = sync
        .rooms
        .events(&[membership.membership.event])
        .await?
        .remove(&membership.membership.event);
    let Some((leave, end)) = leave.and_then(|leave| Some((leave.clone(), leave.place?))) else {
        return Ok(None);
    };
    if since.is_some() && never_joined(sync, &leave).await? {
        // A rejected invitation: nothing of the room was ever seen.
        return Ok(Some(LeftWindow {
            room,
            timeline: vec![leave],
            limited: false,
            skipped_state: Vec::new(),
        }));
    }
    let first = match since {
        Some(since) => {
            let firsts = sync
                .store
                .first_places_since(vec![nid], since, membership.position)
                .await?;
            firsts.get(&nid).copied().unwrap_or(end)
        }
        None => room.head().first_place,
    };
    let start = first.max(Place(end.0 - limit + 1));
    let events = sync
        .store
        .timelines(&[(nid, start)], limit)
        .await?
        .remove(&nid)
        .unwrap_or_default();
    let timeline: Vec<_> = events
        .into_iter()
        .filter(|stored| stored.place <= Some(end))
        .collect();
    let timeline = sync
        .rooms
        .visible(&membership.membership.user_id, &room, timeline)
        .await?;
    let limited = start > first;
    let skipped = if limited {
        sync.store.state_events_between(nid, first, start).await?
    } else {
        Vec::new()
    };
    Ok(Some(LeftWindow {
        room,
        timeline,
        limited,
        skipped_state: last_of_each_slot(skipped),
    }))
}

async fn never_joined(sync: &Sync, leave: &StoredEvent) -> Result<bool, Refusal> {
    let Some(replaced) = leave.replaces else {
        return Ok(true);
    };
    let before = sync.rooms.events(&[replaced]).await?.remove(&replaced);
    Ok(before.is_none_or(|before| !super::members::is_join(&before.event)))
}

/// Account data and receipts.
async fn fill_data(
    sync: &Sync,
    caller: &Caller,
    window: &mut Window,
    since: Option<Position>,
) -> Result<(), Refusal> {
    let stored = sync.store.account_data_after(&caller.user_id, since).await?;
    if since.is_none() && !stored.iter().any(|data| data.data_type == PUSH_RULES) {
        // A user who changed no rule has the default ones, and clients count by them.
        let content = sync.push.account_data(&caller.user_id).await?;
        let (user_id, data_type) = (caller.user_id.clone(), PUSH_RULES.to_owned());
        window.account_data.push(AccountData {
            user_id,
            room: GLOBAL,
            data_type,
            content,
        });
    }
    for data in stored {
        if data.room == GLOBAL {
            window.account_data.push(data);
        } else if let Some(joined) = window.joined.get_mut(&data.room) {
            joined.account_data.push(data);
        }
    }
    let (entire, known): (Vec<_>, Vec<_>) = window.joined.values().partition(|joined| joined.entire);
    let rooms = |joined: Vec<&JoinedWindow>| joined.iter().map(|joined| joined.room.nid).collect::<Vec<_>>();
    let (entire, known) = (rooms(entire), rooms(known));
    let mut receipts = sync.store.receipts_in(entire, None).await?;
    receipts.extend(sync.store.receipts_in(known, since).await?);
    for receipt in receipts {
        if let Some(joined) = window.joined.get_mut(&receipt.room) {
            joined.unread |= receipt.user_id == caller.user_id;
            joined.receipts.push(receipt);
        }
    }
    let returned: HashSet<i64> = window
        .joined
        .values()
        .filter(|joined| joined.entire && since.is_some())
        .map(|joined| joined.room.nid)
        .collect();
    if !returned.is_empty() {
        // What was set before the user came back to the room.
        let all = sync.store.account_data_after(&caller.user_id, None).await?;
        for data in all.into_iter().filter(|data| returned.contains(&data.room)) {
            if let Some(joined) = window.joined.get_mut(&data.room)
                && !joined.account_data.contains(&data)
            {
                joined.account_data.push(data);
            }
        }
    }
    Ok(())
}
