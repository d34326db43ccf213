//! Profiles of this server's users, for other servers.

use maru_protocol::wire::request::directory::{Profile, UserProfile};
use serde_json::Value;

use crate::peers::request_handlers::RequestHandlers;
use crate::refusal::Refusal;

impl RequestHandlers {
    /// A user's profile, as anybody may read it.
    pub(super) async fn profile(&self, call: Profile) -> Result<UserProfile, Refusal> {
        if !self.identity.is_local(&call.user_id) {
            return Err(Refusal::not_found("that user is of another server"));
        }
        let profile = self.accounts.profile(&call.user_id).await?;
        Ok(UserProfile {
            profile: Value::Object(profile).to_string().as_str().into(),
        })
    }
}
