//! Handing out one-time keys.

use std::collections::BTreeSet;

use ruma::{OwnedServerName, OwnedUserId};

use super::{FromOthers, Keys, check_key_size, check_name};
use crate::accounts::Caller;
use crate::refusal::Refusal;
use crate::store::encryption::one_time_keys::{Claim, NewKey};

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

/// The keys that were handed out, and the servers that could not be asked for theirs.
#[derive(Clone, Debug, Default)]
pub struct ClaimedKeys {
    /// The keys.
    pub keys: Vec<Claimed>,
    /// Servers that could not be asked.
    pub unreachable: BTreeSet<OwnedServerName>,
}

impl Keys {
    /// Hands out one key for each claim that can be met: the device's oldest one-time key, which nobody else will get,
    /// or its fallback key. Only people who share a room with the caller are asked for keys.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] for too many claims.
    pub async fn claim(&self, caller: &Caller, claims: Claims) -> Result<ClaimedKeys, Refusal> {
        if claims.len() > CLAIMS {
            return Err(Refusal::TooLarge(format!(
                "at most {CLAIMS} keys are handed out at once"
            )));
        }
        let known = self
            .known_to(caller, claims.iter().map(|(user_id, ..)| user_id))
            .await?;
        let (own, others): (Vec<_>, Vec<_>) = claims
            .into_iter()
            .filter(|(user_id, ..)| known.contains(user_id))
            .map(|(user_id, device_id, algorithm)| Claim {
                user_id,
                device_id,
                algorithm,
            })
            .partition(|claim| self.identity.is_local(&claim.user_id));
        let mut claimed = ClaimedKeys {
            keys: self.hand_out(own).await?,
            unreachable: BTreeSet::new(),
        };
        if others.is_empty() {
            return Ok(claimed);
        }
        let answered = match self.others() {
            Some(way) => way.claim_of(others).await?,
            None => FromOthers::none(others.iter().map(|claim| claim.user_id.server_name().to_owned())),
        };
        claimed.keys.extend(answered.found);
        claimed.unreachable = answered.unreachable;
        Ok(claimed)
    }

    /// Hands out one key of this server's users for each claim that can be met.
    ///
    /// # Errors
    /// When it was not stored; nothing is handed out then.
    pub async fn hand_out(&self, claims: Vec<Claim>) -> Result<Vec<Claimed>, Refusal> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let claimed = self.store.encryption.claim_keys(claims).await?;
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

impl Claimed {
    /// A key that another server handed out for a claim; none where it is not what was claimed.
    #[must_use]
    pub fn checked(claim: &Claim, key_id: &str, json: &str) -> Option<Self> {
        let key = key_of(key_id, json.to_owned()).ok()?;
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(json).is_ok();
        (key.algorithm == claim.algorithm && is_json).then(|| Self {
            user_id: claim.user_id.clone(),
            device_id: claim.device_id.clone(),
            key_id: key_id.to_owned(),
            json: json.to_owned(),
        })
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
