//! A user's push rules for a room, made again for the room that replaces it (client-server API, "Room Upgrades").

use ruma::push::{
    AnyPushRuleRef, ConditionalPushRule, NewConditionalPushRule, NewPushRule, NewSimplePushRule,
    PushCondition, RuleKind, Ruleset,
};
use ruma::{RoomId, UserId};

use super::Push;
use super::rules::check_all;
use crate::refusal::Refusal;

impl Push {
    /// Gives a user the rules for `new` that the user has for `old`. Rules for `new` that are there already stay.
    ///
    /// # Errors
    /// When it was not stored, or the user would have more rules than one may have.
    pub async fn carry_over(&self, user_id: &UserId, old: &RoomId, new: &RoomId) -> Result<(), Refusal> {
        if carried(&self.rules(user_id).await?, old, new).is_empty() {
            return Ok(());
        }
        let (old, new) = (old.to_owned(), new.to_owned());
        self.change(user_id, move |rules| {
            for (kind, rule, enabled) in carried(rules, &old, &new) {
                let rule_id = rule.rule_id().to_owned();
                rules
                    .insert(rule, None, None)
                    .map_err(|error| Refusal::internal(error.to_string()))?;
                rules
                    .set_enabled(kind, &rule_id, enabled)
                    .map_err(|error| Refusal::internal(error.to_string()))?;
            }
            check_all(rules)
        })
        .await
    }
}

/// The rules about one room as rules about another, least important first, with whether they are switched on; those that
/// are missing.
fn carried(rules: &Ruleset, old: &RoomId, new: &RoomId) -> Vec<(RuleKind, NewPushRule, bool)> {
    let missing = |kind: &RuleKind, rule: &NewPushRule| rules.get(kind.clone(), rule.rule_id()).is_none();
    let mut carried: Vec<_> = rules
        .iter()
        .filter_map(|rule| {
            let (kind, made) = about(&rule, old, new)?;
            missing(&kind, &made).then(|| (kind, made, rule.enabled()))
        })
        .collect();
    carried.reverse();
    carried
}

/// A rule about one room as a rule about another, with its kind; none for a rule that is about something else.
fn about(rule: &AnyPushRuleRef<'_>, old: &RoomId, new: &RoomId) -> Option<(RuleKind, NewPushRule)> {
    match rule {
        AnyPushRuleRef::Room(rule) if rule.rule_id == old => {
            let made = NewSimplePushRule::new(new.to_owned(), rule.actions.clone());
            Some((RuleKind::Room, NewPushRule::Room(made)))
        }
        AnyPushRuleRef::Override(rule) => Some((
            RuleKind::Override,
            NewPushRule::Override(conditional(rule, old, new)?),
        )),
        AnyPushRuleRef::Underride(rule) => Some((
            RuleKind::Underride,
            NewPushRule::Underride(conditional(rule, old, new)?),
        )),
        _ => None,
    }
}

fn conditional(rule: &ConditionalPushRule, old: &RoomId, new: &RoomId) -> Option<NewConditionalPushRule> {
    let mut is_meant = false;
    let conditions = rule.conditions.iter().cloned().map(|condition| match condition {
        PushCondition::EventMatch(mut matched)
            if matched.key == "room_id" && matched.pattern == old.as_str() =>
        {
            is_meant = true;
            matched.pattern = new.to_string();
            PushCondition::EventMatch(matched)
        }
        condition => condition,
    });
    let conditions = conditions.collect();
    let rule_id = match rule.rule_id.contains(old.as_str()) {
        true => rule.rule_id.replace(old.as_str(), new.as_str()),
        false => format!("{} {new}", rule.rule_id),
    };
    is_meant.then(|| NewConditionalPushRule::new(rule_id, conditions, rule.actions.clone()))
}
