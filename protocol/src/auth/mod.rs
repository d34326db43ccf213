//! Authorisation: which events a room allows, and which of its state the decision reads
//! (server-server specification, "Authorization rules"; room-version specifications).
//!
//! The rules proper are ruma's. What is here chooses the state they need, keeps the common case cheap,
//! and gives other modules a readable view of power levels.

mod power_levels;
mod slot;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ruma::{EventId, UserId, events::StateEventType, events::TimelineEventType, state_res};
use serde::Deserialize;
use thiserror::Error;

pub(crate) use power_levels::Levels;
pub use power_levels::{PowerLevel, PowerLevels};
pub use slot::{SlotHash, StateSlot, kind_of};

use crate::{canonical::Content, event::Event, version::RoomVersion, visibility::Membership};

/// An event is not allowed; the reason is for people.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct Denied {
    /// Why, in English.
    pub reason: String,
}

impl Denied {
    fn because(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

/// The slots of the state whose events an event must name in `auth_events`.
///
/// # Errors
/// [`Denied`] for a membership event whose content or state key is malformed.
pub fn auth_slots(
    event_type: &str,
    sender: &UserId,
    state_key: Option<&str>,
    content: &Content,
    version: RoomVersion,
) -> Result<Vec<StateSlot>, Denied> {
    let rules = &version.rules().authorization;
    let slots =
        state_res::auth_types_for_event(&kind_of(event_type), sender, state_key, content.as_raw(), rules)
            .map_err(Denied::because)?;
    Ok(slots
        .into_iter()
        .map(|(kind, key)| StateSlot::new(slot::type_of(&kind.to_string()), &key))
        .collect())
}

/// The slots of the state that the rules read for an event: those of [`auth_slots`] and the create
/// event, which version 12 does not name in `auth_events`.
///
/// # Errors
/// As [`auth_slots`].
pub fn slots_needed(
    event_type: &str,
    sender: &UserId,
    state_key: Option<&str>,
    content: &Content,
    version: RoomVersion,
) -> Result<Vec<StateSlot>, Denied> {
    let mut slots = auth_slots(event_type, sender, state_key, content, version)?;
    let create = StateSlot::new("m.room.create", "");
    if event_type != "m.room.create" && !slots.contains(&create) {
        slots.push(create);
    }
    Ok(slots)
}

/// The rules that read the state of the room.
///
/// Called once for an event of our own; for a received one three times: with the state that its
/// `auth_events` make up, with the state before it, and with the current state (soft failure).
/// `state` is asked for slots of [`slots_needed`] only. Signatures have been verified before.
///
/// # Errors
/// [`Denied`] with the rule that forbids it.
pub fn check(
    event: &Event,
    version: RoomVersion,
    state: impl Fn(&StateSlot) -> Option<Arc<Event>>,
) -> Result<(), Denied> {
    match event.kind() {
        TimelineEventType::RoomCreate
        | TimelineEventType::RoomMember
        | TimelineEventType::RoomPowerLevels
        | TimelineEventType::RoomThirdPartyInvite => check_special(event, version, state),
        _ => check_ordinary(event, version, state),
    }
}

/// The rules for events that change who may do what.
fn check_special(
    event: &Event,
    version: RoomVersion,
    state: impl Fn(&StateSlot) -> Option<Arc<Event>>,
) -> Result<(), Denied> {
    let rules = &version.rules().authorization;
    state_res::check_state_dependent_auth_rules(rules, event, |kind: &StateEventType, key: &str| {
        state(&StateSlot::new(&kind.to_string(), key))
    })
    .map_err(Denied::because)
}

/// The same rules for every other event, without parsing the power levels anew for each message.
/// A test holds the two against each other.
fn check_ordinary(
    event: &Event,
    version: RoomVersion,
    state: impl Fn(&StateSlot) -> Option<Arc<Event>>,
) -> Result<(), Denied> {
    let create = state(&StateSlot::new("m.room.create", ""))
        .ok_or_else(|| Denied::because("the room has no create event"))?;
    if create.sender.server_name() != event.sender.server_name() && !federates(&create)? {
        return Err(Denied::because("the room admits no users of other servers"));
    }
    let member = state(&StateSlot::new("m.room.member", event.sender.as_str()));
    if member.as_deref().and_then(Membership::of) != Some(Membership::Join) {
        return Err(Denied::because("the sender is not in the room"));
    }
    let levels = state(&StateSlot::new("m.room.power_levels", ""));
    let levels = PowerLevels::new(version, &create, levels.as_deref())?;
    let needed = levels.needed(&event.event_type, event.is_state());
    if levels.for_user(&event.sender) < needed {
        return Err(Denied::because(format!(
            "sending {} needs power level {needed}",
            event.event_type
        )));
    }
    match event.state_key.as_deref() {
        Some(key) if key.starts_with('@') && key != event.sender.as_str() => {
            Err(Denied::because("the state key is another user's id"))
        }
        _ => Ok(()),
    }
}

fn federates(create: &Event) -> Result<bool, Denied> {
    #[derive(Deserialize)]
    struct Federate {
        #[serde(rename = "m.federate")]
        federate: Option<bool>,
    }
    let content: Federate = create
        .content_as()
        .map_err(|_| Denied::because("the create event's m.federate is malformed"))?;
    Ok(content.federate.unwrap_or(true))
}

/// The rules that read the event and its `auth_events` only; checked once, when the event is received.
///
/// `fetch` answers `None` for an event that is not known or was rejected.
///
/// # Errors
/// [`Denied`] with the rule that forbids it.
pub fn check_independent(
    event: &Event,
    version: RoomVersion,
    fetch: impl Fn(&EventId) -> Option<Arc<Event>>,
) -> Result<(), Denied> {
    state_res::check_state_independent_auth_rules(&version.rules().authorization, event, fetch)
        .map_err(Denied::because)
}
