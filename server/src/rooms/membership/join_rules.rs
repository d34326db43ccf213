//! Join rules, evaluated before an event is built (client-server API, "Restricted rooms"): who may ask for a membership,
//! and which member of this server authorises the join of a restricted room.

use std::sync::Arc;

use maru_protocol::auth::PowerLevels;
use maru_protocol::visibility::Membership;
use ruma::room::{AllowRule, JoinRule, Restricted};
use ruma::{OwnedUserId, UserId};

use crate::identity::Identity;
use crate::refusal::Refusal;
use crate::rooms::{Room, RoomRepository};

/// Evaluation of join rules before an event is built.
#[derive(Debug)]
pub struct JoinRules {
    pub(in crate::rooms) identity: Arc<Identity>,
    pub(in crate::rooms) repository: Arc<RoomRepository>,
}

impl JoinRules {
    /// Checks whether a user of another server may request a membership at all, before there is an event. The event itself is
    /// checked by the room's rules when it comes.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] where the rules cannot allow it.
    pub(crate) async fn check_request(
        &self,
        room: &Room,
        user_id: &UserId,
        wanted: Membership,
    ) -> Result<(), Refusal> {
        let present = self.repository.membership(room, user_id).await?;
        let rule = self
            .repository
            .state_event(&room.head().state, "m.room.join_rules", "")
            .await?;
        let rule = rule.and_then(|rule| rule.event.content_as::<JoinRule>().ok());
        let is_in = matches!(present, Some(Membership::Join | Membership::Invite));
        let open = match wanted {
            _ if present == Some(Membership::Ban) => false,
            Membership::Leave => is_in || present == Some(Membership::Knock),
            Membership::Join => {
                is_in
                    || matches!(
                        rule,
                        Some(JoinRule::Public | JoinRule::Restricted(_) | JoinRule::KnockRestricted(_))
                    )
            }
            Membership::Knock => {
                !is_in && matches!(rule, Some(JoinRule::Knock | JoinRule::KnockRestricted(_)))
            }
            Membership::Invite | Membership::Ban => false,
        };
        let open = open && (wanted == Membership::Leave || self.repository.is_federated(room).await?);
        if open {
            return Ok(());
        }
        Err(Refusal::forbidden("the room's rules do not allow that"))
    }

    /// The member who authorises a restricted join (`join_authorised_via_users_server`); `None` where nobody has to.
    pub(crate) async fn authoriser(
        &self,
        room: &Room,
        user_id: &UserId,
    ) -> Result<Option<OwnedUserId>, Refusal> {
        let state = &room.head().state;
        let Some(rule) = self
            .repository
            .state_event(state, "m.room.join_rules", "")
            .await?
        else {
            return Ok(None);
        };
        let Ok(JoinRule::Restricted(rule) | JoinRule::KnockRestricted(rule)) = rule.event.content_as() else {
            return Ok(None);
        };
        let present = self.repository.membership(room, user_id).await?;
        if let Some(Membership::Join | Membership::Invite | Membership::Ban) = present {
            return Ok(None);
        }
        self.check_allowed(&rule, user_id).await?;
        let levels = self.repository.power_levels(room).await?;
        let vouches = |member: &UserId| self.identity.is_local(member) && may_invite(&levels, member);
        match room.find_member(vouches) {
            Some(member) => Ok(Some(member)),
            None => Err(Refusal::UnableToAuthoriseJoin(
                "nobody of this server has the power to let you into that room".into(),
            )),
        }
    }

    /// Whether the user is in one of the rooms that open a restricted one.
    pub(in crate::rooms) async fn check_allowed(
        &self,
        rule: &Restricted,
        user_id: &UserId,
    ) -> Result<(), Refusal> {
        let mut unknown = false;
        for condition in &rule.allow {
            let AllowRule::RoomMembership(membership) = condition else {
                continue;
            };
            match self.repository.room(&membership.room_id).await {
                Ok(room) if room.is_joined(user_id) => return Ok(()),
                Ok(_) => {}
                Err(Refusal::NotFound(_)) => unknown = true,
                Err(refusal) => return Err(refusal),
            }
        }
        if unknown {
            return Err(Refusal::UnableToAuthoriseJoin(
                "this server does not know all the rooms whose members may join".into(),
            ));
        }
        Err(Refusal::forbidden(
            "you are in none of the rooms whose members may join",
        ))
    }
}

fn may_invite(levels: &PowerLevels, user_id: &UserId) -> bool {
    levels.for_user(user_id) >= levels.invite()
}
