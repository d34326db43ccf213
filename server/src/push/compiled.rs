//! A user's push rules, ready to be asked about one event after another.

use ruma::UInt;
use ruma::push::{AnyPushRuleRef, PushCondition, RoomMemberCountIs, Ruleset, ScalarJsonValue};
use serde_json::Value;

use super::pattern::Pattern;
use crate::store::events::Notify;

/// What rules look at.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    /// The event: its type, sender, state key, room and content.
    pub(super) event: &'a Value,
    /// Joined members of the room.
    pub(super) members: u64,
    /// Whether the sender has the power to notify everybody by a key of `notifications`.
    pub(super) may_notify: &'a dyn Fn(&str) -> bool,
}

/// The rules that are switched on, most important first.
#[derive(Clone, Debug)]
pub(super) struct Compiled(Vec<Rule>);

#[derive(Clone, Debug)]
struct Rule {
    conditions: Vec<Condition>,
    outcome: Notify,
}

#[derive(Clone, Debug)]
enum Condition {
    Matches(Path, Pattern),
    Is(Path, Value),
    Contains(Path, Value),
    Members(RoomMemberCountIs),
    MayNotify(String),
    Never,
}

/// Where something stands in an event: the names from the outside in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Path(Vec<String>);

impl Path {
    /// Reads `content.m\.relates_to.rel_type`: dots part names unless a backslash stands before them.
    fn new(key: &str) -> Self {
        let mut names = vec![String::new()];
        let mut chars = key.chars().peekable();
        while let Some(c) = chars.next() {
            let escaped = c == '\\' && matches!(chars.peek(), Some('.' | '\\'));
            match names.last_mut() {
                _ if c == '.' => names.push(String::new()),
                Some(name) if escaped => name.extend(chars.next()),
                Some(name) => name.push(c),
                None => {}
            }
        }
        Self(names)
    }

    fn find<'v>(&self, event: &'v Value) -> Option<&'v Value> {
        self.0
            .iter()
            .try_fold(event, |value, name| value.as_object()?.get(name))
    }
}

fn scalar(value: &ScalarJsonValue) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

impl Condition {
    fn of(condition: &PushCondition) -> Self {
        match condition {
            PushCondition::EventMatch(data) => Self::matches(&data.key, &data.pattern),
            PushCondition::EventPropertyIs(data) => Self::Is(Path::new(&data.key), scalar(&data.value)),
            PushCondition::EventPropertyContains(data) => {
                Self::Contains(Path::new(&data.key), scalar(&data.value))
            }
            PushCondition::RoomMemberCount(data) => Self::Members(data.is),
            PushCondition::SenderNotificationPermission(data) => Self::MayNotify(data.key.to_string()),
            // Unknown conditions never hold, by the specification. Display names are not looked up.
            _ => Self::Never,
        }
    }

    fn matches(key: &str, pattern: &str) -> Self {
        let pattern = if key == "content.body" {
            Pattern::words(pattern)
        } else {
            Pattern::whole(pattern)
        };
        Self::Matches(Path::new(key), pattern)
    }

    fn holds(&self, scene: &Scene<'_>) -> bool {
        match self {
            Self::Matches(path, pattern) => {
                let text = path.find(scene.event).and_then(Value::as_str);
                text.is_some_and(|text| pattern.matches(&text.to_lowercase()))
            }
            Self::Is(path, value) => path.find(scene.event) == Some(value),
            Self::Contains(path, value) => {
                let list = path.find(scene.event).and_then(Value::as_array);
                list.is_some_and(|list| list.contains(value))
            }
            Self::Members(is) => {
                use std::ops::RangeBounds;
                is.contains(&UInt::new_saturating(scene.members))
            }
            Self::MayNotify(key) => (scene.may_notify)(key),
            Self::Never => false,
        }
    }
}

impl Compiled {
    /// The rules of a user.
    pub(super) fn new(rules: &Ruleset) -> Self {
        let enabled = rules.iter().filter(|rule| rule.enabled());
        Self(enabled.map(Rule::of).collect())
    }

    /// What the rules say of an event. Costs grow with the rules and the length of the event.
    pub(super) fn judge(&self, scene: &Scene<'_>) -> Notify {
        let first = self
            .0
            .iter()
            .find(|rule| rule.conditions.iter().all(|c| c.holds(scene)));
        first.map_or(Notify::Nothing, |rule| rule.outcome)
    }
}

impl Rule {
    fn of(rule: AnyPushRuleRef<'_>) -> Self {
        let conditions = match rule {
            AnyPushRuleRef::Override(rule) | AnyPushRuleRef::Underride(rule) => {
                rule.conditions.iter().map(Condition::of).collect()
            }
            AnyPushRuleRef::Content(rule) => vec![Condition::matches("content.body", &rule.pattern)],
            AnyPushRuleRef::Room(rule) => vec![Condition::matches("room_id", rule.rule_id.as_str())],
            AnyPushRuleRef::Sender(rule) => vec![Condition::matches("sender", rule.rule_id.as_str())],
            _ => vec![Condition::Never],
        };
        let notifies = rule.actions().iter().any(ruma::push::Action::should_notify);
        let highlights = rule.actions().iter().any(ruma::push::Action::is_highlight);
        Self {
            conditions,
            outcome: match (notifies, highlights) {
                (false, _) => Notify::Nothing,
                (true, false) => Notify::Notify,
                (true, true) => Notify::Highlight,
            },
        }
    }
}

/// An event as rules see it.
pub(super) fn event_of(draft: &maru_protocol::event::Draft) -> Value {
    let content: Value = draft.content.get().unwrap_or(Value::Null);
    let mut event = serde_json::json!({
        "type": draft.event_type,
        "sender": draft.sender,
        "content": content,
        "room_id": draft.room_id,
    });
    if let Some(state_key) = &draft.state_key {
        event["state_key"] = Value::String(state_key.to_string());
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_with_their_escapes() {
        let names = |key| Path::new(key).0;
        assert_eq!(
            names(r"content.m\.relates_to.rel_type"),
            ["content", "m.relates_to", "rel_type"]
        );
        assert_eq!(names(r"a\\b.c\d"), [r"a\b", r"c\d"]);
    }
}
