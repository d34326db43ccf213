//! Handing out one-time keys.

use ruma::OwnedUserId;

use super::{Keys, check_key_size, check_name};
use crate::accounts::Caller;
use crate::refusal::Refusal;
use crate::store::one_time_keys::{Claim, NewKey};

/// Keys that one request may claim.
const CLAIMS: usize = 5000;

/// What is asked for: user, device, algorithm.
pub type Claims = Vec<(OwnedUserId, String, String)>;

/// A key that was handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Whose device it is of.
    pub user_id: OwnedUserId,
    /// The device.
    pub device_id: String,
    /// `algorithm:id`.
    pub key_id: String,
    /// The key's JSON.
    pub json: String,
}

impl Keys {
    /// Hands out one key for each claim that can be met: the device's oldest one-time key, which nobody else will get,
    /// or its fallback key. Only people who share a room with the caller are asked for keys.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] for too many claims.
    pub async fn claim(&self, caller: &Caller, claims: Claims) -> Result<Vec<Claimed>, Refusal> {
        if claims.len() > CLAIMS {
            return Err(Refusal::TooLarge(format!(
                "at most {CLAIMS} keys are handed out at once"
            )));
        }
        let known = self
            .known_to(caller, claims.iter().map(|(user_id, ..)| user_id))
            .await?;
        let claims: Vec<_> = claims
            .into_iter()
            .filter(|(user_id, ..)| known.contains(user_id))
            .map(|(user_id, device_id, algorithm)| Claim {
                user_id,
                device_id,
                algorithm,
            })
            .collect();
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let claimed = self.store.claim_keys(claims).await?;
        let hand_out = |(claim, key): (Claim, NewKey)| {
            self.counts_changed(&claim.user_id, &claim.device_id);
            Claimed {
                user_id: claim.user_id,
                device_id: claim.device_id,
                key_id: format!("{}:{}", key.algorithm, key.key_id),
                json: key.json,
            }
        };
        Ok(claimed.into_iter().map(hand_out).collect())
    }
}

/// A key by its name `algorithm:id`.
pub(super) fn key_of(name: &str, json: String) -> Result<NewKey, Refusal> {
    check_name(name)?;
    check_key_size(&json)?;
    let (algorithm, key_id) = name
        .split_once(':')
        .filter(|(algorithm, key_id)| !algorithm.is_empty() && !key_id.is_empty())
        .ok_or_else(|| Refusal::invalid("a one-time key is named algorithm:id"))?;
    Ok(NewKey {
        algorithm: algorithm.to_owned(),
        key_id: key_id.to_owned(),
        json,
    })
}
