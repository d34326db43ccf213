//! Which state events of a room a device wants (MSC4186, `RequiredStateRequest`).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The type of membership events.
const MEMBER: &str = "m.room.member";

/// State events that a device wants: those that one of the rules chooses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequiredState(BTreeSet<Rule>);

/// A choice of state events.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rule {
    /// Those that are wanted.
    pub include: BTreeSet<Slots>,
    /// Those among them that are not.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub exclude: BTreeSet<Slots>,
    /// Whether memberships are given of those who speak in the timeline, and not of all by a rule for any type.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lazy_members: bool,
}

/// Slots of a room's state: of a type or any, with a state key or any.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slots {
    /// The type; none for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// The state key; none for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_key: Option<String>,
}

impl Slots {
    fn has(&self, event_type: &str, state_key: &str) -> bool {
        let is = |wanted: &Option<String>, text| wanted.as_deref().is_none_or(|wanted| wanted == text);
        is(&self.event_type, event_type) && is(&self.state_key, state_key)
    }
}

impl Rule {
    fn wants(&self, event_type: &str, state_key: &str) -> bool {
        let included = |slots: &Slots| {
            let is_lazy = self.lazy_members && event_type == MEMBER && slots.event_type.is_none();
            !is_lazy && slots.has(event_type, state_key)
        };
        self.include.iter().any(included)
            && !self.exclude.iter().any(|slots| slots.has(event_type, state_key))
    }
}

impl From<Rule> for RequiredState {
    fn from(rule: Rule) -> Self {
        Self(BTreeSet::from([rule]))
    }
}

impl RequiredState {
    /// Whether a state event is wanted, whoever speaks.
    #[must_use]
    pub fn wants(&self, event_type: &str, state_key: &str) -> bool {
        self.0.iter().any(|rule| rule.wants(event_type, state_key))
    }

    /// Whether memberships of those who speak are wanted.
    #[must_use]
    pub fn loads_members_lazily(&self) -> bool {
        self.0.iter().any(|rule| rule.lazy_members)
    }

    /// The slots that are wanted, types and state keys; none where they are not named one by one.
    pub(super) fn named(&self) -> Option<BTreeSet<(&str, &str)>> {
        let slots = self.0.iter().flat_map(|rule| &rule.include);
        let named = slots.map(|slots| Some((slots.event_type.as_deref()?, slots.state_key.as_deref()?)));
        let named: BTreeSet<_> = named.collect::<Option<_>>()?;
        Some(
            named
                .into_iter()
                .filter(|(event_type, state_key)| self.wants(event_type, state_key))
                .collect(),
        )
    }

    /// Whether all memberships may be wanted.
    pub(super) fn may_want_all_members(&self) -> bool {
        let any_member = |rule: &Rule| {
            rule.include.iter().any(|slots| {
                slots.state_key.is_none()
                    && match slots.event_type.as_deref() {
                        None => !rule.lazy_members,
                        Some(event_type) => event_type == MEMBER,
                    }
            })
        };
        self.0.iter().any(any_member)
    }

    /// The users whose memberships are wanted by name.
    pub(super) fn named_members(&self) -> impl Iterator<Item = &str> {
        let slots = self.0.iter().flat_map(|rule| &rule.include);
        let of_members =
            slots.filter(|slots| slots.event_type.as_deref().is_none_or(|wanted| wanted == MEMBER));
        of_members.filter_map(|slots| slots.state_key.as_deref())
    }

    /// About what it takes in memory, in bytes.
    pub(super) fn weight(&self) -> usize {
        let slots = self
            .0
            .iter()
            .flat_map(|rule| rule.include.iter().chain(&rule.exclude));
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let weight = |slots: &Slots| 64 + length(&slots.event_type) + length(&slots.state_key);
        slots.map(weight).sum()
    }

    /// Whether it may want something that another one does not.
    pub(super) fn is_wider_than(&self, other: &Self) -> bool {
        !self.0.is_subset(&other.0)
    }

    /// Wants what another one wants too.
    pub(super) fn join(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(event_type: Option<&str>, state_key: Option<&str>) -> Slots {
        Slots {
            event_type: event_type.map(str::to_owned),
            state_key: state_key.map(str::to_owned),
        }
    }

    #[test]
    fn what_is_excluded_is_not_wanted_unless_another_rule_wants_it() {
        let mut wanted = RequiredState::from(Rule {
            include: [slots(None, None)].into(),
            exclude: [slots(Some("m.room.create"), Some(""))].into(),
            lazy_members: true,
        });
        assert!(wanted.wants("m.room.name", "") && wanted.loads_members_lazily());
        assert!(!wanted.wants("m.room.create", "") && !wanted.wants(MEMBER, "@a:example.org"));
        assert_eq!(wanted.named(), None);
        assert!(!wanted.may_want_all_members());
        wanted.join(&RequiredState::from(Rule {
            include: [
                slots(Some("m.room.create"), Some("")),
                slots(Some(MEMBER), Some("@a:example.org")),
            ]
            .into(),
            ..Rule::default()
        }));
        assert!(wanted.wants("m.room.create", "") && wanted.wants(MEMBER, "@a:example.org"));
        assert!(!wanted.wants(MEMBER, "@b:example.org"));
    }

    #[test]
    fn a_state_key_may_be_wanted_of_any_type() {
        let wanted = RequiredState::from(Rule {
            include: [slots(None, Some("")), slots(Some(MEMBER), None)].into(),
            ..Rule::default()
        });
        assert!(wanted.wants("m.room.name", "") && wanted.wants(MEMBER, "@a:example.org"));
        assert!(!wanted.wants("m.space.child", "!a:example.org"));
        assert!(wanted.may_want_all_members());
    }

    #[test]
    fn named_slots_are_those_that_are_left() {
        let wanted = RequiredState::from(Rule {
            include: [
                slots(Some("m.room.name"), Some("")),
                slots(Some("m.room.topic"), Some("")),
            ]
            .into(),
            exclude: [slots(Some("m.room.topic"), None)].into(),
            lazy_members: false,
        });
        assert_eq!(wanted.named(), Some([("m.room.name", "")].into()));
    }
}
