//! A user's push rules, ready to be asked about one event after another.

use std::collections::{HashMap, HashSet};

use ruma::UInt;
use ruma::push::{AnyPushRuleRef, PushCondition, RoomMemberCountIs, Ruleset, ScalarJsonValue};
use serde_json::Value;

use super::limits::{CONDITIONS, KEYS, Steps, WILD_CHARACTERS};
use super::pattern::Pattern;
use crate::store::rooms::events::Notify;

/// What rules look at.
#[derive(Debug)]
pub(super) struct Scene<'e> {
    /// The event: its type, sender, state key, room and content.
    event: &'e Value,
    /// Joined members of the room.
    members: u64,
    /// Keys of `notifications` by which the sender has the power to notify everybody.
    allowed: &'e HashSet<String>,
    /// Texts of the event in lower case, by where they stand in memory: each is made once, whoever asks.
    lower: HashMap<*const u8, String>,
}

impl<'e> Scene<'e> {
    pub(super) fn new(event: &'e Value, members: u64, allowed: &'e HashSet<String>) -> Self {
        Self {
            event,
            members,
            allowed,
            lower: HashMap::new(),
        }
    }

    fn lower_case(&mut self, text: &'e str) -> &str {
        self.lower
            .entry(text.as_ptr())
            .or_insert_with(|| text.to_lowercase())
    }
}

/// The rules that are switched on, most important first.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    rules: Vec<Rule>,
    /// Keys of `notifications` that rules ask for.
    keys: Vec<String>,
    /// Steps that the user's own rules take at most for each byte of an event, and once.
    cost: (u64, u64),
}

#[derive(Clone, Debug)]
struct Rule {
    /// Whether the user made it: then it has to do with the user's steps. The predefined ones are few and cheap.
    own: bool,
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

    /// Steps that finding what it looks at takes.
    fn steps_to_find(&self) -> u64 {
        1 + match self {
            Self::Matches(path, _) | Self::Is(path, _) | Self::Contains(path, _) => path.0.len() as u64,
            Self::Members(_) | Self::MayNotify(_) | Self::Never => 0,
        }
    }

    /// Steps that it takes at most for each byte of an event.
    fn steps_a_byte(&self) -> u64 {
        match self {
            Self::Matches(_, pattern) => pattern.steps_a_byte(),
            Self::Contains(..) => 1,
            _ => 0,
        }
    }

    fn wild_characters(&self) -> usize {
        match self {
            Self::Matches(_, pattern) => pattern.wild_characters(),
            _ => 0,
        }
    }

    /// Whether it holds; it does not when it cannot be told within `steps`.
    fn holds(&self, scene: &mut Scene<'_>, steps: &mut Steps) -> bool {
        if !steps.take(self.steps_to_find()) {
            return false;
        }
        match self {
            Self::Matches(path, pattern) => {
                let Some(text) = path.find(scene.event).and_then(Value::as_str) else {
                    return false;
                };
                steps.take(pattern.steps_a_byte() * text.len() as u64)
                    && pattern.matches(scene.lower_case(text))
            }
            Self::Is(path, value) => path.find(scene.event) == Some(value),
            Self::Contains(path, value) => {
                let list = path.find(scene.event).and_then(Value::as_array);
                list.is_some_and(|list| steps.take(list.len() as u64) && list.contains(value))
            }
            Self::Members(is) => {
                use std::ops::RangeBounds;
                is.contains(&UInt::new_saturating(scene.members))
            }
            Self::MayNotify(key) => scene.allowed.contains(key),
            Self::Never => false,
        }
    }
}

impl Compiled {
    /// The rules of a user. Own rules beyond the limits of what a user may have, which can only be older than the limits,
    /// are left out.
    pub(super) fn new(rules: &Ruleset) -> Self {
        let (mut conditions, mut wild) = (0, 0);
        let within = |rule: &Rule| {
            if rule.own {
                conditions += rule.conditions.len();
                wild += rule.wild_characters();
            }
            conditions <= CONDITIONS && wild <= WILD_CHARACTERS || !rule.own
        };
        let enabled = rules.iter().filter(|rule| rule.enabled());
        let rules: Vec<Rule> = enabled.map(Rule::of).filter(within).collect();
        let mut keys = Vec::new();
        let mut cost = (0, 0);
        for rule in &rules {
            for condition in &rule.conditions {
                if let Condition::MayNotify(key) = condition
                    && keys.len() < KEYS
                    && !keys.contains(key)
                {
                    keys.push(key.clone());
                }
                if rule.own {
                    cost.0 += condition.steps_a_byte();
                    cost.1 += condition.steps_to_find();
                }
            }
        }
        Self { rules, keys, cost }
    }

    /// Keys of `notifications` that rules ask for.
    pub(super) fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Steps that the user's own rules take at most for an event of so many bytes.
    pub(super) fn most_steps(&self, bytes: usize) -> u64 {
        let (a_byte, once) = self.cost;
        a_byte.saturating_mul(bytes as u64).saturating_add(once)
    }

    /// What the rules say of an event. The user's own rules are asked as long as `steps` last; those that would take more
    /// are passed over, and the predefined ones hold.
    pub(super) fn evaluate(&self, scene: &mut Scene<'_>, steps: &mut Steps) -> Notify {
        let mut without_limit = Steps::without_limit();
        for rule in &self.rules {
            let steps = if rule.own { &mut *steps } else { &mut without_limit };
            if rule.conditions.iter().all(|c| c.holds(scene, steps)) {
                return rule.outcome;
            }
        }
        Notify::Nothing
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
            own: is_own(rule),
            conditions,
            outcome: match (notifies, highlights) {
                (false, _) => Notify::Nothing,
                (true, false) => Notify::Notify,
                (true, true) => Notify::Highlight,
            },
        }
    }

    fn wild_characters(&self) -> usize {
        self.conditions.iter().map(Condition::wild_characters).sum()
    }
}

/// How many conditions a rule has, and how many characters its patterns with wildcards.
pub(super) fn size(rule: AnyPushRuleRef<'_>) -> (usize, usize) {
    let rule = Rule::of(rule);
    (rule.conditions.len(), rule.wild_characters())
}

/// Whether a rule was made by its user: the ids of predefined ones begin with a dot, and no others do.
pub(super) fn is_own(rule: AnyPushRuleRef<'_>) -> bool {
    !rule.rule_id().starts_with('.')
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
    use ruma::push::{Action, NewConditionalPushRule, NewPushRule};
    use ruma::user_id;
    use serde_json::json;

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

    /// So many own rules of one condition each that is costly and does not hold, before the predefined ones.
    fn costly(rules: usize) -> Compiled {
        let mut all = Ruleset::server_default(user_id!("@me:example.org"));
        for n in 0..rules {
            let condition = json!({ "kind": "event_match", "key": "content.body", "pattern": "*?*y" });
            let conditions = vec![serde_json::from_value(condition).unwrap()];
            let rule = NewConditionalPushRule::new(format!("r{n}"), conditions, vec![]);
            all.insert(NewPushRule::Override(rule), None, None).unwrap();
        }
        Compiled::new(&all)
    }

    #[test]
    fn own_rules_take_no_more_steps_than_they_have_and_the_predefined_ones_still_hold() {
        let body = "x".repeat(100_000);
        let event = json!({ "type": "m.room.message", "content": { "msgtype": "m.text", "body": body } });
        for rules in [1, 10, 250] {
            let compiled = costly(rules);
            let most = compiled.most_steps(100_000);
            for given in [0, 1_000, 2_000_000, most] {
                let mut steps = Steps::new(given);
                let outcome = compiled.evaluate(&mut Scene::new(&event, 9, &HashSet::new()), &mut steps);
                assert_eq!(outcome, Notify::Notify, "by the predefined rule for messages");
                assert!(steps.taken() <= given);
                assert_eq!(
                    steps.taken() == most,
                    given >= most,
                    "{rules} rules, {given} steps"
                );
            }
        }
    }

    #[test]
    fn what_is_stored_beyond_the_limits_is_left_out() {
        let compiled = costly(CONDITIONS);
        let own = compiled.rules.iter().filter(|rule| rule.own).count();
        assert_eq!(own, WILD_CHARACTERS / 4, "each pattern has four characters");
        let mut all = Ruleset::server_default(user_id!("@me:example.org"));
        let conditions = vec![serde_json::from_value(json!({ "kind": "none" })).unwrap(); CONDITIONS + 1];
        let rule = NewConditionalPushRule::new("r".into(), conditions, vec![Action::Notify]);
        all.insert(NewPushRule::Override(rule), None, None).unwrap();
        assert!(Compiled::new(&all).rules.iter().all(|rule| !rule.own));
    }
}
