//! Memberships that local users change: join, leave, invite, kick, ban, knock (client-server API, "Room membership").

pub(super) mod join_rules;
pub(super) mod profile_propagation;
pub(super) mod remote_invites;
pub(super) mod server_acl;

use std::sync::Arc;

use maru_protocol::canonical::Content;
use maru_protocol::visibility::Membership;
use ruma::{OwnedRoomId, RoomId, UserId};
use serde_json::{Map, Value, json};

use super::Room;
use crate::identity::Identity;
use crate::refusal::Refusal;
use crate::rooms::{Appender, JoinRules, RoomRepository, Sender, SettingsCarryOver, UnknownNames};
use crate::store::Store;
use crate::store::accounts::member_profiles::{People, Person};
use crate::store::rooms::events::StoredEvent;

/// The content of a membership event. Whoever is in a room, or asked to be, is shown with name and picture.
pub(super) fn member_content(
    membership: Membership,
    person: Option<&Person>,
    reason: Option<String>,
) -> Map<String, Value> {
    let mut content = Map::new();
    content.insert("membership".into(), json!(membership.as_str()));
    if let Some(reason) = reason {
        content.insert("reason".into(), json!(reason));
    }
    let shown = matches!(
        membership,
        Membership::Join | Membership::Invite | Membership::Knock
    );
    if let Some(person) = person.filter(|_| shown) {
        let fields = [
            ("displayname", &person.display_name),
            ("avatar_url", &person.avatar_url),
        ];
        let set = fields
            .into_iter()
            .filter_map(|(field, value)| Some((field, value.as_ref()?)));
        content.extend(set.map(|(field, value)| (field.to_owned(), json!(value))));
    }
    content
}

/// What a change of somebody's membership makes impossible.
fn not_in_room() -> Refusal {
    Refusal::forbidden("that user is not in the room")
}

/// Changes of memberships by local users: join, leave, invite, kick, ban, knock.
#[derive(Debug)]
pub struct Memberships {
    pub(in crate::rooms) identity: Arc<Identity>,
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) repository: Arc<RoomRepository>,
    pub(in crate::rooms) appender: Arc<Appender>,
    pub(in crate::rooms) join_rules: Arc<JoinRules>,
    pub(in crate::rooms) settings_carry_over: Arc<SettingsCarryOver>,
    pub(in crate::rooms) unknown_names: Arc<UnknownNames>,
}

impl Memberships {
    /// Joins a user to a room. Nothing changes for one who is joined already.
    ///
    /// # Errors
    /// What the room's join rule says; [`Refusal::UnableToAuthoriseJoin`] when it depends on rooms that this server
    /// does not know.
    pub async fn join(
        &self,
        room: &Arc<Room>,
        user_id: &UserId,
        reason: Option<String>,
    ) -> Result<(), Refusal> {
        if room.is_joined(user_id) {
            return Ok(());
        }
        self.join_with(room, Sender::now(user_id), reason, Map::new())
            .await
            .map(drop)
    }

    /// The content of a join of a local user, with more keys.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn join_content(
        &self,
        user_id: &UserId,
        reason: Option<String>,
        more: Map<String, Value>,
    ) -> Result<Map<String, Value>, Refusal> {
        let mut content = more;
        let people = self.store.accounts.people([user_id]).await?;
        for (key, value) in member_content(Membership::Join, people.get(user_id), reason) {
            content.entry(key).or_insert(value);
        }
        Ok(content)
    }

    /// Like [`Memberships::join`], with more keys in the content of the event, and also for somebody who is there already.
    pub(in crate::rooms) async fn join_with(
        &self,
        room: &Arc<Room>,
        sender: Sender<'_>,
        reason: Option<String>,
        more: Map<String, Value>,
    ) -> Result<Arc<StoredEvent>, Refusal> {
        let user_id = sender.user_id;
        let mut content = self.join_content(user_id, reason, more).await?;
        if let Some(authoriser) = self.join_rules.authoriser(room, user_id).await? {
            content.insert("join_authorised_via_users_server".into(), json!(authoriser));
        }
        let was_joined = room.is_joined(user_id);
        let joined = self.set_member(room, sender, user_id, content).await?;
        if !was_joined {
            self.settings_carry_over.carry_over(room, user_id).await;
        }
        Ok(joined)
    }

    /// Knocks on a room for a user.
    ///
    /// # Errors
    /// When the join rule allows no knocks.
    pub async fn knock(
        &self,
        room: &Arc<Room>,
        user_id: &UserId,
        reason: Option<String>,
    ) -> Result<(), Refusal> {
        let content = self.knock_content(user_id, reason).await?;
        self.set_member(room, Sender::now(user_id), user_id, content)
            .await
            .map(drop)
    }

    /// The content of a knock of a local user.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn knock_content(
        &self,
        user_id: &UserId,
        reason: Option<String>,
    ) -> Result<Map<String, Value>, Refusal> {
        let people = self.store.accounts.people([user_id]).await?;
        Ok(member_content(Membership::Knock, people.get(user_id), reason))
    }

    /// Leaves a room, or declines an invitation. Nothing changes for one who has left already.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] for one who was never there, or is banned.
    pub async fn leave(
        &self,
        room: &Arc<Room>,
        user_id: &UserId,
        reason: Option<String>,
    ) -> Result<(), Refusal> {
        match self.repository.membership(room, user_id).await? {
            Some(Membership::Leave) => return Ok(()),
            None => return Err(Refusal::forbidden("you are not in that room")),
            Some(_) => {}
        }
        let content = member_content(Membership::Leave, None, reason);
        self.set_member(room, Sender::now(user_id), user_id, content)
            .await
            .map(drop)
    }

    /// Invites a user of this server.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is no such user, or what the rules say.
    pub async fn invite(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        target: &UserId,
        reason: Option<String>,
    ) -> Result<(), Refusal> {
        let people = self.invitable([target]).await?;
        let content = member_content(Membership::Invite, people.get(target), reason);
        self.set_member(room, Sender::now(sender), target, content)
            .await
            .map(drop)
    }

    /// The content of an invitation of a user of another server, of whom this one knows no more than the id.
    pub fn invite_content(
        &self,
        reason: Option<String>,
        more: impl IntoIterator<Item = (String, Value)>,
    ) -> Map<String, Value> {
        let mut content = member_content(Membership::Invite, None, reason);
        content.extend(more);
        content
    }

    /// An invitation with some content.
    ///
    /// # Errors
    /// When the content makes no event.
    pub fn invite_draft(
        &self,
        room: &Room,
        sender: &UserId,
        target: &UserId,
        content: &Map<String, Value>,
    ) -> Result<maru_protocol::event::Draft, Refusal> {
        let content = Content::of(content).map_err(|error| Refusal::BadJson(error.to_string()))?;
        Ok(self
            .appender
            .draft(room, sender, "m.room.member", Some(target.as_str()), content))
    }

    /// Kicks a user from a room, or withdraws an invitation.
    ///
    /// # Errors
    /// What the rules say, or [`Refusal::Forbidden`] when the user is not there.
    pub async fn kick(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        target: &UserId,
        reason: Option<String>,
    ) -> Result<(), Refusal> {
        match self.repository.membership(room, target).await? {
            Some(Membership::Join | Membership::Invite | Membership::Knock) => {}
            Some(Membership::Ban) => {
                let why = "that user is banned, and stays out until the ban is lifted";
                return Err(Refusal::forbidden(why));
            }
            Some(Membership::Leave) | None => return Err(not_in_room()),
        }
        let content = member_content(Membership::Leave, None, reason);
        self.set_member(room, Sender::now(sender), target, content)
            .await
            .map(drop)
    }

    /// Bans a user.
    ///
    /// # Errors
    /// What the rules say.
    pub async fn ban(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        target: &UserId,
        reason: Option<String>,
    ) -> Result<(), Refusal> {
        let content = member_content(Membership::Ban, None, reason);
        self.set_member(room, Sender::now(sender), target, content)
            .await
            .map(drop)
    }

    /// Unbans a user.
    ///
    /// # Errors
    /// What the rules say, or [`Refusal::BadState`] when the user is not banned.
    pub async fn unban(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        target: &UserId,
        reason: Option<String>,
    ) -> Result<(), Refusal> {
        if self.repository.membership(room, target).await? != Some(Membership::Ban) {
            return Err(Refusal::BadState("that user is not banned".into()));
        }
        let content = member_content(Membership::Leave, None, reason);
        self.set_member(room, Sender::now(sender), target, content)
            .await
            .map(drop)
    }

    /// Drops a room that a user has left from the user's account.
    ///
    /// # Errors
    /// [`Refusal::BadState`] when the user has not left it.
    pub async fn forget(&self, room_id: &RoomId, user_id: &UserId) -> Result<(), Refusal> {
        let never = || Refusal::not_found("you have never been in that room");
        let room = self.store.rooms.room(room_id).await?.ok_or_else(never)?;
        if self.store.rooms.forget(room.nid, user_id).await? {
            return Ok(());
        }
        match self.store.rooms.membership(room.nid, user_id).await? {
            None => Err(never()),
            Some(_) => Err(Refusal::BadState("leave the room before you forget it".into())),
        }
    }

    /// The rooms that a user is in.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn joined_rooms(&self, user_id: &UserId) -> Result<Vec<OwnedRoomId>, Refusal> {
        let memberships = self.store.rooms.memberships_of(user_id).await?;
        let joined = memberships
            .into_iter()
            .filter(|stored| stored.membership.membership == "join");
        Ok(joined.map(|stored| stored.room_id).collect())
    }

    /// Sends a membership event.
    pub(in crate::rooms) async fn set_member(
        &self,
        room: &Arc<Room>,
        sender: Sender<'_>,
        target: &UserId,
        content: Map<String, Value>,
    ) -> Result<Arc<StoredEvent>, Refusal> {
        let content = Content::of(&content).map_err(|error| Refusal::BadJson(error.to_string()))?;
        self.appender
            .set_state(room, sender, "m.room.member", target.as_str(), content)
            .await
    }

    /// Has the application service make a user of this server whose the user would be, if there is no such user yet.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn ask_for_unknown(&self, user_id: &UserId) -> Result<(), Refusal> {
        match self.invitable([user_id]).await {
            Ok(_) | Err(Refusal::NotFound(_)) => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }

    /// The users among `targets` who can be invited: all of them, or a refusal that names the first who cannot. Application
    /// services are asked for those whom nobody knows.
    pub(in crate::rooms) async fn invitable<'u, T: AsRef<UserId> + ?Sized + 'u>(
        &self,
        targets: impl IntoIterator<Item = &'u T>,
    ) -> Result<People, Refusal> {
        let targets: Vec<&UserId> = targets.into_iter().map(AsRef::as_ref).collect();
        if let Some(stranger) = targets.iter().find(|user_id| !self.identity.is_local(user_id)) {
            return Err(Refusal::forbidden(format!(
                "{stranger} belongs to another server, and this server does not reach others"
            )));
        }
        if targets.is_empty() {
            return Ok(People::new());
        }
        let mut people = self.store.accounts.people(targets.iter().copied()).await?;
        let unknown = targets
            .iter()
            .copied()
            .filter(|target| !people.contains_key(*target));
        let unknown: Vec<&UserId> = unknown.collect();
        if self.unknown_names.are_users_made(&unknown).await {
            people.extend(self.store.accounts.people(unknown).await?);
        }
        for target in targets {
            if people.get(target).is_none_or(|person| person.deactivated) {
                return Err(Refusal::not_found(format!("there is no user {target}")));
            }
        }
        Ok(people)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person() -> Person {
        Person {
            display_name: Some("Ada".into()),
            ..Person::default()
        }
    }

    #[test]
    fn only_those_who_are_there_or_expected_are_shown_with_their_profile() {
        let content = |membership| Value::Object(member_content(membership, Some(&person()), None));
        assert_eq!(
            content(Membership::Join),
            json!({ "membership": "join", "displayname": "Ada" })
        );
        assert_eq!(
            content(Membership::Invite),
            json!({ "membership": "invite", "displayname": "Ada" })
        );
        assert_eq!(content(Membership::Leave), json!({ "membership": "leave" }));
        assert_eq!(content(Membership::Ban), json!({ "membership": "ban" }));
    }

    #[test]
    fn a_reason_is_part_of_the_event() {
        let content = member_content(Membership::Ban, None, Some("spam".into()));
        assert_eq!(
            Value::Object(content),
            json!({ "membership": "ban", "reason": "spam" })
        );
    }
}
