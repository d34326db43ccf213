//! Fills a window from the database: first syncs, old cursors, and changes of the user's own memberships. A constant
//! number of queries, whatever the number of rooms.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maru_protocol::cursor::{Place, Position};
use maru_protocol::state::EventNid;
use ruma::OwnedUserId;

use super::memory_window::last_of_each_slot;
use super::shown::Shown;
use super::window::{JoinedWindow, LeftWindow, Window};
use super::{Sync, SyncRequest, presence, to_device};
use crate::accounts::Caller;
use crate::live::Passing;
use crate::refusal::Refusal;
use crate::store::accounts::account_data::{AccountData, GLOBAL};
use crate::store::rooms::events::StoredEvent;
use crate::store::rooms::stream_reads::Stretch;
use crate::store::rooms::{Membership, StoredMembership};

/// The account data that holds push rules.
const PUSH_RULES: &str = "m.push_rules";

/// How far back a timeline is looked through, in places, for events that are shown where few are.
const LOOKED_THROUGH: i64 = 200;

/// Gathers what a device has not seen since a position (`None`: anything). `passing` is what changed of what lives in
/// memory only. The window ends at `until`, or after it: see [`memberships_now`].
pub(super) async fn window(
    sync: &Sync,
    caller: &Caller,
    since: Option<Position>,
    until: Position,
    passing: &Passing,
    wish: &SyncRequest,
    ignored: &HashSet<OwnedUserId>,
) -> Result<Window, Refusal> {
    let (memberships, until) = memberships_now(sync, caller, until).await?;
    let mut window = Window {
        since,
        until,
        full_state: wish.full_state,
        gathered: true,
        ..Window::default()
    };
    let after = since.unwrap_or(Position::START);
    let wanted = |m: &&StoredMembership| wish.filter.wants_room(m.room_id.as_str());
    let mut left = Vec::new();
    let joined = memberships.iter().filter(wanted).map(|m| &m.membership);
    let joined: Vec<i64> = joined
        .filter(|m| m.membership == "join")
        .map(|m| m.room)
        .collect();
    let rooms = sync.rooms.repository.rooms_by_nid(&joined).await?;
    for membership in memberships.iter().filter(wanted) {
        let is_new = membership.position > after;
        match membership.membership.membership.as_str() {
            "join" => {
                let Some(room) = rooms.get(&membership.membership.room) else {
                    continue;
                };
                let mut joined = JoinedWindow::of(Arc::clone(room));
                joined.after = after;
                joined.entire = since.is_none() || membership.joined_at > after;
                window.joined.insert(membership.membership.room, joined);
            }
            "invite" | "knock" if is_new => window.outside.push(membership.clone()),
            // A device that was away while the user left and forgot a room learns once that it is gone.
            "leave" | "ban" if since.is_some() && is_new => left.push(membership.clone()),
            "leave" | "ban" if since.is_none() && wish.filter.include_leave && !membership.forgotten => {
                left.push(membership.clone());
            }
            _ => {}
        }
    }
    drop_ignored_invitations(sync, &mut window, ignored).await?;
    let shown = Shown {
        wanted: &wish.filter.timeline,
        ignored,
    };
    let limit = wish.filter.timeline_limit();
    fill_joined(sync, caller, &mut window, shown, limit).await?;
    for membership in left {
        window
            .left
            .extend(left_window(sync, &membership, since, shown, limit).await?);
    }
    fill_data(sync, caller, &mut window, since).await?;
    for nid in &passing.typing {
        if let Some(joined) = window.joined.get_mut(nid) {
            joined.typing = true;
        }
    }
    if passing.anything {
        window.joined.values_mut().for_each(|joined| joined.typing = true);
    }
    window.presence = presence::of_those_met(sync, caller, &memberships, passing);
    if let Some(since) = since {
        window.device_lists = sync
            .store
            .encryption
            .device_lists_since(&caller.user_id, since)
            .await?;
    }
    window.to_device = to_device::stored(sync, caller, after, until).await?;
    window
        .joined
        .retain(|_, joined| wish.full_state || !joined.is_idle());
    Ok(window)
}

/// Leaves out invitations by users who are ignored.
pub(super) async fn drop_ignored_invitations(
    sync: &Sync,
    window: &mut Window,
    ignored: &HashSet<OwnedUserId>,
) -> Result<(), Refusal> {
    if ignored.is_empty() || window.outside.is_empty() {
        return Ok(());
    }
    let nids: Vec<_> = window
        .outside
        .iter()
        .map(|outside| outside.membership.event)
        .collect();
    let events = sync.rooms.repository.events(&nids).await?;
    window.outside.retain(|outside| {
        let stored = events.get(&outside.membership.event);
        let is_ignored = stored.is_some_and(|stored| ignored.contains(&stored.event.sender));
        outside.membership.membership != "invite" || !is_ignored
    });
    Ok(())
}

/// All memberships of the user, and the position, at `until` or after it, up to which they are the user's memberships.
///
/// A membership that changed after `until` has left no trace of what it was. A window that ended at `until` would pass
/// over its room, so the window ends at the newest change instead: what was read at once is what held there.
pub(super) async fn memberships_now(
    sync: &Sync,
    caller: &Caller,
    until: Position,
) -> Result<(Vec<StoredMembership>, Position), Refusal> {
    let memberships = sync.store.rooms.memberships_of(&caller.user_id).await?;
    let newest = memberships.iter().map(|membership| membership.position).max();
    let until = newest.map_or(until, |newest| newest.max(until));
    sync.reach(until).await?;
    Ok((memberships, until))
}

/// Where the reading of a room's timeline starts.
#[derive(Clone, Copy)]
struct Start {
    room: i64,
    place: Place,
    /// The first event that the device lacks.
    first: Place,
}

/// Fills the timelines of joined rooms, each from where the device has it, with at most `limit` events, and what of their
/// state these leave out.
pub(super) async fn fill_joined(
    sync: &Sync,
    caller: &Caller,
    window: &mut Window,
    shown: Shown<'_>,
    limit: usize,
) -> Result<(), Refusal> {
    let until = window.until;
    let rooms = window.joined.iter().map(|(nid, joined)| (*nid, joined.after));
    let stretches = sync
        .store
        .rooms
        .stretches(&rooms.collect::<Vec<_>>(), until)
        .await?;
    let mut starts = Vec::new();
    for (nid, joined) in &mut window.joined {
        let head = joined.room.head();
        let oldest = head.first_place;
        // Where the head says that the timeline ends may be after the window.
        let stretch = stretches.get(nid).copied().unwrap_or(Stretch {
            first: None,
            last: head.last_place,
        });
        // What happened in a gap is in the state after it alone, so the device is sent the room as if it were new.
        joined.entire |= stretch
            .first
            .is_some_and(|first| first.begins_stretch() || first.next_stretch() <= stretch.last);
        let first = match stretch.first {
            _ if joined.entire => oldest,
            Some(first) => first,
            None => continue,
        };
        let earliest = stretch.last.0.saturating_sub(places(limit)) + 1;
        let place = Place(earliest).max(first);
        starts.push(Start {
            room: *nid,
            place,
            first,
        });
    }
    let mut timelines = read_timelines(sync, &mut starts, shown, limit).await?;
    for Start { room, place, first } in starts {
        let Some(joined) = window.joined.get_mut(&room) else {
            continue;
        };
        let timeline = timelines.remove(&room).unwrap_or_default();
        let is_due = |stored: &Arc<StoredEvent>| stored.position().is_some_and(|position| position <= until);
        joined.timeline = timeline.into_iter().filter(is_due).collect();
        joined.limited = place > first || joined.timeline.first().is_some_and(|stored| stored.follows_gap());
        joined.unread = !joined.timeline.is_empty() || joined.entire;
        if joined.entire {
            let timeline = std::mem::take(&mut joined.timeline);
            let visible = sync
                .rooms
                .visibility
                .visible_end(&caller.user_id, &joined.room, timeline);
            let (visible, is_cut) = visible.await?;
            joined.timeline = visible;
            joined.limited |= is_cut;
        } else if joined.limited {
            let skipped = sync.store.rooms.state_events_between(room, first, place).await?;
            joined.skipped_state = last_of_each_slot(skipped);
        }
        shown.cut(joined, limit);
    }
    Ok(())
}

fn places(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// The timelines of rooms from their starts on. Where less than the limit is shown of one, it is read from further back,
/// and its start moved there: one more query for all of these together.
async fn read_timelines(
    sync: &Sync,
    starts: &mut [Start],
    shown: Shown<'_>,
    limit: usize,
) -> Result<HashMap<i64, Vec<Arc<StoredEvent>>>, Refusal> {
    let from: Vec<_> = starts
        .iter()
        .map(|start| (start.room, start.place, Place(i64::MAX)))
        .collect();
    let mut timelines = sync.store.rooms.timelines(&from, places(limit)).await?;
    if shown.is_everything() {
        return Ok(timelines);
    }
    let mut further = Vec::new();
    for start in starts.iter_mut().filter(|start| start.place > start.first) {
        let timeline = timelines.get(&start.room).map(Vec::as_slice).unwrap_or_default();
        if timeline.iter().filter(|stored| shown.shows(stored)).count() < limit {
            let place = Place(start.place.0 - LOOKED_THROUGH).max(start.first);
            further.push((start.room, place, Place(start.place.0 - 1)));
            start.place = place;
        }
    }
    if !further.is_empty() {
        for (room, mut earlier) in sync.store.rooms.timelines(&further, LOOKED_THROUGH).await? {
            let timeline = timelines.entry(room).or_default();
            earlier.append(timeline);
            *timeline = earlier;
        }
    }
    Ok(timelines)
}

/// What a user may still see of a room that the user has left, or of one that was never joined: that it is over.
pub(super) async fn left_window(
    sync: &Sync,
    membership: &StoredMembership,
    since: Option<Position>,
    shown: Shown<'_>,
    limit: usize,
) -> Result<Option<LeftWindow>, Refusal> {
    let Membership {
        room: nid,
        event,
        ref user_id,
        ..
    } = membership.membership;
    let Some(leave) = sync.rooms.repository.events(&[event]).await?.remove(&event) else {
        return Ok(None);
    };
    let mut left = LeftWindow {
        room_id: membership.room_id.clone(),
        seen: None,
        leave: Arc::clone(&leave),
    };
    // An event without a place ends an invitation to, or a knock on, a room that this server is not in.
    let Some(end) = leave.place.filter(|_| !membership.forgotten) else {
        return Ok(Some(left));
    };
    let before = leave.replaces;
    let (Some(before), Some(room)) = (before, sync.rooms.repository.room_by_nid(nid).await?) else {
        return Ok(Some(left));
    };
    if never_joined(sync, before).await? {
        return Ok(Some(left));
    }
    let mut seen = JoinedWindow::of(room);
    seen.end = Some(leave);
    let first = match since {
        Some(since) => {
            seen.entire = membership.joined_at > since;
            let stretches = sync
                .store
                .rooms
                .stretches(&[(nid, since)], membership.position)
                .await?;
            stretches
                .get(&nid)
                .and_then(|stretch| stretch.first)
                .unwrap_or(end)
        }
        None => {
            seen.entire = true;
            seen.room.head().first_place
        }
    };
    let start = first.max(Place(end.0.saturating_sub(places(limit)) + 1));
    let timeline = sync
        .store
        .rooms
        .timelines(&[(nid, start, end)], places(limit))
        .await?
        .remove(&nid)
        .unwrap_or_default();
    let (timeline, is_cut) = sync
        .rooms
        .visibility
        .visible_end(user_id, &seen.room, timeline)
        .await?;
    seen.timeline = timeline;
    seen.limited = start > first || is_cut;
    if seen.limited && !seen.entire {
        let shown_from = seen.timeline.first().and_then(|stored| stored.place);
        let skipped = sync
            .store
            .rooms
            .state_events_between(nid, first, shown_from.unwrap_or(end))
            .await?;
        seen.skipped_state = last_of_each_slot(skipped);
    }
    shown.cut(&mut seen, limit);
    left.seen = Some(seen);
    Ok(Some(left))
}

/// Whether a membership event says that somebody is not in the room.
async fn never_joined(sync: &Sync, event: EventNid) -> Result<bool, Refusal> {
    let before = sync.rooms.repository.events(&[event]).await?.remove(&event);
    Ok(before.is_none_or(|before| !super::members::is_join(&before.event)))
}

/// Account data and receipts.
pub(super) async fn fill_data(
    sync: &Sync,
    caller: &Caller,
    window: &mut Window,
    since: Option<Position>,
) -> Result<(), Refusal> {
    let mut stored = sync
        .store
        .accounts
        .account_data_after(&caller.user_id, since)
        .await?;
    if since.is_none() {
        // A user who changed no rule has the default ones, and who did has the newest of them: clients count by them.
        stored.retain(|data| data.data_type != PUSH_RULES);
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
    let mut receipts = sync.store.rooms.receipts_in(entire, None).await?;
    // Of a room that the device has from further back it may be given some again.
    let from = window.joined.values().map(|joined| joined.after).min();
    let from = since.map(|since| from.map_or(since, |from| from.min(since)));
    receipts.extend(sync.store.rooms.receipts_in(known, from).await?);
    for receipt in receipts {
        if let Some(joined) = window.joined.get_mut(&receipt.room) {
            joined.unread |= receipt.user_id == caller.user_id;
            joined.receipts.push(receipt);
        }
    }
    let returned: HashSet<i64> = window
        .joined
        .values()
        .filter(|joined| since.is_some_and(|since| joined.entire || joined.after < since))
        .map(|joined| joined.room.nid)
        .collect();
    if !returned.is_empty() {
        // What was set before the user came back to the room, or while the device did not follow it.
        let all = sync
            .store
            .accounts
            .account_data_after(&caller.user_id, None)
            .await?;
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
