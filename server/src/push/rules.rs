//! A user's push rules: read, made, changed and removed (client-server API, "Push rules API").
//!
//! They are account data of type `m.push_rules`, so that sync carries every change. A user who never changed anything
//! has none stored and is served the predefined rules.

use ruma::events::push_rules::PushRulesEventContent;
use ruma::push::{
    Action, AnyPushRuleRef, InsertPushRuleError, NewPushRule, PushCondition, RemovePushRuleError, RuleKind,
    Ruleset,
};
use ruma::{OwnedUserId, UserId};
use serde_json::{Value, json};

use super::Push;
use super::compiled::{is_own, size};
use super::limits::{ALL_BYTES, CONDITIONS, PARTS_PER_RULE, RULES, TEXT_BYTES, WILD_CHARACTERS};
use super::pattern::LONGEST;
use crate::refusal::Refusal;
use crate::store::accounts::account_data::GLOBAL;

/// The type of account data that holds push rules.
pub const PUSH_RULES: &str = "m.push_rules";

/// The kinds of rules, most important first.
const KINDS: [&str; 5] = ["override", "content", "room", "sender", "underride"];

impl Push {
    /// A user's rules: the stored ones, or the predefined ones.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn rules(&self, user_id: &UserId) -> Result<Ruleset, Refusal> {
        let stored = self
            .store
            .accounts
            .account_data(user_id, GLOBAL, PUSH_RULES)
            .await?;
        Ok(read(user_id, stored.as_ref().map(|data| data.content.as_str())))
    }

    /// A user's rules as the content of an `m.push_rules` event: what a first sync carries.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn account_data(&self, user_id: &UserId) -> Result<String, Refusal> {
        write(&self.rules(user_id).await?)
    }

    /// A user's rules by kind, all five kinds there: `{"override":[…],"content":[…],…}`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn by_kind(&self, user_id: &UserId) -> Result<Value, Refusal> {
        all_kinds(&self.rules(user_id).await?)
    }

    /// Makes a rule, or replaces the user's own rule of the same kind and id.
    ///
    /// # Errors
    /// [`Refusal::InvalidParam`] for an id or neighbour that is not allowed, [`Refusal::NotFound`] for a neighbour that
    /// is not there, [`Refusal::TooLarge`] and [`Refusal::ResourceLimitExceeded`] beyond the limits.
    pub async fn set_rule(
        &self,
        user_id: &UserId,
        rule: NewPushRule,
        after: Option<String>,
        before: Option<String>,
    ) -> Result<(), Refusal> {
        check_size(&rule)?;
        self.change(user_id, move |rules| {
            rules
                .insert(rule, after.as_deref(), before.as_deref())
                .map_err(not_inserted)?;
            check_all(rules)
        })
        .await
    }

    /// Removes one of the user's own rules.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], or [`Refusal::InvalidParam`] for a predefined rule.
    pub async fn remove_rule(
        &self,
        user_id: &UserId,
        kind: RuleKind,
        rule_id: String,
    ) -> Result<(), Refusal> {
        self.change(user_id, move |rules| {
            rules.remove(kind, &rule_id).map_err(|error| match error {
                RemovePushRuleError::ServerDefault => {
                    Refusal::invalid("predefined push rules can be switched off, not removed")
                }
                _ => no_such_rule(),
            })
        })
        .await
    }

    /// Switches a rule on or off.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub async fn set_enabled(
        &self,
        user_id: &UserId,
        kind: RuleKind,
        rule_id: String,
        enabled: bool,
    ) -> Result<(), Refusal> {
        self.change(user_id, move |rules| {
            rules
                .set_enabled(kind, &rule_id, enabled)
                .map_err(|_| no_such_rule())
        })
        .await
    }

    /// Changes what a rule does.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], or [`Refusal::TooLarge`] for too many actions, or too long ones.
    pub async fn set_actions(
        &self,
        user_id: &UserId,
        kind: RuleKind,
        rule_id: String,
        actions: Vec<Action>,
    ) -> Result<(), Refusal> {
        check_actions(&actions)?;
        self.change(user_id, move |rules| {
            rules
                .set_actions(kind, &rule_id, actions)
                .map_err(|_| no_such_rule())
        })
        .await
    }

    pub(super) async fn change(
        &self,
        user_id: &UserId,
        change: impl FnOnce(&mut Ruleset) -> Result<(), Refusal> + Send + 'static,
    ) -> Result<(), Refusal> {
        let owner: OwnedUserId = user_id.to_owned();
        self.store
            .accounts
            .change_account_data(user_id, GLOBAL, PUSH_RULES, None, move |stored| {
                let mut rules = read(&owner, stored.as_deref());
                change(&mut rules)?;
                let rules = write(&rules)?;
                if rules.len() > ALL_BYTES {
                    let why = format!("your push rules have at most {ALL_BYTES} bytes together");
                    return Err(Refusal::TooLarge(why));
                }
                Ok(rules)
            })
            .await??;
        self.note_owner(user_id).await
    }
}

/// The rule of this kind and id.
///
/// # Errors
/// [`Refusal::NotFound`].
pub fn find<'r>(rules: &'r Ruleset, kind: &RuleKind, rule_id: &str) -> Result<AnyPushRuleRef<'r>, Refusal> {
    rules.get(kind.clone(), rule_id).ok_or_else(no_such_rule)
}

/// Rules as they are stored, brought up to date with the predefined ones.
pub(super) fn read(user_id: &UserId, content: Option<&str>) -> Ruleset {
    let predefined = Ruleset::server_default(user_id);
    let stored = content.and_then(|content| serde_json::from_str::<PushRulesEventContent>(content).ok());
    match stored {
        Some(PushRulesEventContent { mut global, .. }) => {
            global.update_with_server_default(predefined);
            global
        }
        None => predefined,
    }
}

fn write(rules: &Ruleset) -> Result<String, Refusal> {
    Ok(json!({ "global": all_kinds(rules)? }).to_string())
}

/// Rules by kind. Kinds without rules are there too: clients read them without asking whether they are.
fn all_kinds(rules: &Ruleset) -> Result<Value, Refusal> {
    let mut kinds = serde_json::to_value(rules).map_err(Refusal::internal)?;
    for kind in KINDS {
        if kinds.get(kind).is_none() {
            kinds[kind] = json!([]);
        }
    }
    Ok(kinds)
}

fn check_size(rule: &NewPushRule) -> Result<(), Refusal> {
    let (actions, conditions, pattern): (&[Action], &[PushCondition], &str) = match rule {
        NewPushRule::Override(rule) | NewPushRule::Underride(rule) => (&rule.actions, &rule.conditions, ""),
        NewPushRule::Content(rule) => (&rule.actions, &[], &rule.pattern),
        NewPushRule::Room(rule) => (&rule.actions, &[], ""),
        NewPushRule::Sender(rule) => (&rule.actions, &[], ""),
        _ => return Err(Refusal::invalid("this server knows no such kind of push rule")),
    };
    check_actions(actions)?;
    let too_long = |text: &str| text.len() > TEXT_BYTES || text.contains('\0');
    if pattern.chars().count() > LONGEST {
        return Err(Refusal::TooLarge(format!(
            "a pattern has at most {LONGEST} characters"
        )));
    }
    if conditions.len() > PARTS_PER_RULE || too_long(rule.rule_id()) || too_long(pattern) {
        return Err(too_large());
    }
    for condition in conditions {
        if too_long(&serde_json::to_string(condition).map_err(Refusal::internal)?) {
            return Err(too_large());
        }
    }
    Ok(())
}

/// Refuses more rules than one user may have, or rules that would make too much work.
pub(super) fn check_all(rules: &Ruleset) -> Result<(), Refusal> {
    if rules.iter().count() > RULES {
        return Err(Refusal::ResourceLimitExceeded(format!(
            "you may have {RULES} push rules"
        )));
    }
    let (mut conditions, mut wild) = (0, 0);
    for rule in rules.iter().filter(|rule| is_own(*rule)) {
        let (some, characters) = size(rule);
        conditions += some;
        wild += characters;
    }
    if conditions > CONDITIONS {
        let why = format!("your push rules have at most {CONDITIONS} conditions together");
        return Err(Refusal::TooLarge(why));
    }
    if wild > WILD_CHARACTERS {
        let why = format!("your patterns with wildcards have at most {WILD_CHARACTERS} characters together");
        return Err(Refusal::TooLarge(why));
    }
    Ok(())
}

fn check_actions(actions: &[Action]) -> Result<(), Refusal> {
    let text = serde_json::to_string(actions).map_err(Refusal::internal)?;
    if actions.len() > PARTS_PER_RULE || text.len() > TEXT_BYTES * PARTS_PER_RULE {
        return Err(too_large());
    }
    Ok(())
}

fn too_large() -> Refusal {
    Refusal::TooLarge(format!(
        "a push rule has at most {PARTS_PER_RULE} conditions and actions, of at most {TEXT_BYTES} bytes"
    ))
}

fn no_such_rule() -> Refusal {
    Refusal::not_found("you have no such push rule")
}

fn not_inserted(error: InsertPushRuleError) -> Refusal {
    match error {
        InsertPushRuleError::UnknownRuleId => Refusal::not_found("there is no push rule to place it by"),
        error => Refusal::invalid(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use ruma::push::NewSimplePushRule;
    use ruma::{owned_room_id, user_id};

    use super::*;

    #[test]
    fn a_change_to_a_predefined_rule_survives_and_new_predefined_rules_appear() {
        let user = user_id!("@a:example.org");
        let mut rules = Ruleset::server_default(user);
        rules
            .set_enabled(RuleKind::Override, ".m.rule.suppress_notices", false)
            .unwrap();
        rules.override_.shift_remove(".m.rule.reaction");
        let own = NewSimplePushRule::new(owned_room_id!("!r:example.org"), vec![]);
        rules.insert(NewPushRule::Room(own), None, None).unwrap();
        let again = read(user, Some(&write(&rules).unwrap()));
        assert!(!again.override_.get(".m.rule.suppress_notices").unwrap().enabled);
        assert!(again.override_.contains(".m.rule.reaction"));
        assert_eq!(again.room.len(), 1);
        assert_eq!(again.override_[0].rule_id, ".m.rule.master");
    }

    #[test]
    fn what_cannot_be_read_counts_as_unchanged() {
        let user = user_id!("@a:example.org");
        let names = |rules: Ruleset| {
            rules
                .iter()
                .map(|rule| rule.rule_id().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            names(read(user, Some("[]"))),
            names(Ruleset::server_default(user))
        );
    }

    #[test]
    fn long_rules_are_refused() {
        let rule = NewSimplePushRule::new(owned_room_id!("!r:example.org"), vec![Action::Notify; 51]);
        assert!(matches!(
            check_size(&NewPushRule::Room(rule)),
            Err(Refusal::TooLarge(_))
        ));
    }
}
