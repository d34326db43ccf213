//! Cross-signing: keys of a user as a whole, and the signatures that users make over keys (client-server API,
//! "Cross-signing").

use std::collections::BTreeMap;

use ruma::encryption::{CrossSigningKey as KeyObject, KeyUsage};
use ruma::{OwnedUserId, UserId};
use serde_json::Value;

use super::query::has_key;
use super::{Keys, check_key_size, check_name};
use crate::accounts::Caller;
use crate::refusal::Refusal;
use crate::store::accounts::credentials::Credentials;
use crate::store::encryption::device_keys::{CrossSigningKey, KeySignature};

/// Signatures in one request.
const SIGNATURES: usize = 1000;

/// What a user uploads, as JSON texts.
#[derive(Clone, Debug, Default)]
pub struct NewCrossSigningKeys {
    /// The key that stands for the user.
    pub master: Option<String>,
    /// Signs the user's devices.
    pub self_signing: Option<String>,
    /// Signs other users' master keys.
    pub user_signing: Option<String>,
}

/// The keys that a user has as a whole.
#[derive(Clone, Debug)]
pub struct OwnKeys(Vec<CrossSigningKey>);

impl OwnKeys {
    /// Whether new keys would replace some of these: then the user must prove to be there, not just a device.
    #[must_use]
    pub fn would_be_replaced_by(&self, new: &NewCrossSigningKeys) -> bool {
        self.of("master").is_some() && !self.has(new)
    }

    fn of(&self, usage: &str) -> Option<&str> {
        let key = self.0.iter().find(|key| key.usage == usage);
        key.map(|key| key.json.as_str())
    }

    /// Whether these are those of the new keys that are given.
    fn has(&self, new: &NewCrossSigningKeys) -> bool {
        let is_same = |usage: &str, json: &Option<String>| {
            json.as_deref().is_none_or(|json| {
                self.of(usage)
                    .is_some_and(|stored| public_keys(stored) == public_keys(json))
            })
        };
        is_same("master", &new.master)
            && is_same("self_signing", &new.self_signing)
            && is_same("user_signing", &new.user_signing)
    }
}

/// Why a signature was not taken, by user and key.
pub type SignatureFailures = BTreeMap<OwnedUserId, BTreeMap<String, String>>;

impl Keys {
    /// The keys that a user has as a whole: what an upload is judged by.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn cross_signing_of(&self, user_id: &UserId) -> Result<OwnKeys, Refusal> {
        let stored = self
            .store
            .encryption
            .cross_signing_keys(vec![user_id.to_string()])
            .await?;
        Ok(OwnKeys(stored))
    }

    /// Takes a user's cross-signing keys in place of `stored`. `proved` where the user had to prove to be the owner of the
    /// account.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when what was proved does not hold any more, or the keys have become others since `stored`
    /// was read;
    /// [`Refusal::InvalidParam`] and [`Refusal::BadJson`] for keys of somebody else, of another usage, or that the
    /// master key has not signed; [`Refusal::MissingParam`] when there is no master key to sign them.
    pub async fn upload_cross_signing(
        &self,
        user_id: &UserId,
        stored: OwnKeys,
        new: NewCrossSigningKeys,
        proved: Option<Credentials>,
    ) -> Result<(), Refusal> {
        let Some(master) = new.master.as_deref().or_else(|| stored.of("master")) else {
            return Err(Refusal::MissingParam("there is no master key yet".into()));
        };
        let master_keys = public_keys(master);
        let mut keys = Vec::new();
        let all = [
            (new.master.clone(), "master", KeyUsage::Master),
            (new.self_signing.clone(), "self_signing", KeyUsage::SelfSigning),
            (new.user_signing.clone(), "user_signing", KeyUsage::UserSigning),
        ];
        for (json, usage, wanted) in all {
            let Some(json) = json else {
                continue;
            };
            let key = check_key(user_id, &json, &wanted)?;
            if wanted != KeyUsage::Master && !is_signed_by(&key, user_id, &master_keys) {
                let why = format!("the {usage} key is not signed by the master key");
                return Err(Refusal::invalid(why));
            }
            keys.push(CrossSigningKey {
                user_id: user_id.to_owned(),
                usage: usage.to_owned(),
                json,
            });
        }
        let judged_by = stored.0;
        if keys.is_empty()
            || self
                .store
                .encryption
                .put_cross_signing_keys(user_id, judged_by, keys, proved)
                .await?
            // The same request was on its way twice.
            || self.cross_signing_of(user_id).await?.has(&new)
        {
            return Ok(());
        }
        Err(Refusal::outdated_proof())
    }

    /// Takes signatures that the caller made: over the caller's own devices and master key, and over the master keys of
    /// others. What cannot be taken is returned with the reason; the rest is stored.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] for too many.
    pub async fn upload_signatures(
        &self,
        caller: &Caller,
        signed: BTreeMap<OwnedUserId, BTreeMap<String, String>>,
    ) -> Result<SignatureFailures, Refusal> {
        if signed.values().map(BTreeMap::len).sum::<usize>() > SIGNATURES {
            let why = format!("at most {SIGNATURES} keys are signed at once");
            return Err(Refusal::TooLarge(why));
        }
        let asked = signed
            .keys()
            .map(|user_id| (user_id.clone(), Vec::new()))
            .collect();
        let found = self.query(caller, asked).await?;
        let mut failures = SignatureFailures::new();
        let mut signatures = Vec::new();
        for (user_id, keys) in signed {
            let own = user_id == caller.user_id;
            for (key_id, json) in keys {
                let device = found
                    .devices
                    .get(&user_id)
                    .and_then(|devices| devices.get(&key_id));
                let master = found.master.get(&user_id).filter(|key| has_key(key, &key_id));
                let target = device.filter(|_| own).or(master);
                match new_signatures(caller, &user_id, &key_id, &json, target) {
                    Ok(new) => signatures.extend(new),
                    Err(why) => drop(failures.entry(user_id.clone()).or_default().insert(key_id, why)),
                }
            }
        }
        if !signatures.is_empty() {
            self.store.encryption.put_key_signatures(signatures).await?;
        }
        Ok(failures)
    }
}

/// The caller's signatures in a signed object, which must otherwise be the one that the server has.
fn new_signatures(
    caller: &Caller,
    user_id: &UserId,
    key_id: &str,
    json: &str,
    target: Option<&Value>,
) -> Result<Vec<KeySignature>, String> {
    let Some(target) = target else {
        return Err("there is no such key, or you may not sign it".into());
    };
    check_key_size(json).map_err(|refusal| refusal.to_string())?;
    let object: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
    if without_signatures(&object) != without_signatures(target) {
        return Err("this is not the key that the server has".into());
    }
    let signatures = object
        .get("signatures")
        .and_then(|all| all.get(caller.user_id.as_str()));
    let Some(signatures) = signatures.and_then(Value::as_object) else {
        return Err("this is not signed by you".into());
    };
    let mut new = Vec::new();
    for (signer_key, signature) in signatures {
        let signature = signature.as_str().ok_or("a signature is a string")?;
        check_name(signer_key).map_err(|refusal| refusal.to_string())?;
        check_name(signature).map_err(|refusal| refusal.to_string())?;
        new.push(KeySignature {
            target_user: user_id.to_owned(),
            target_key: key_id.to_owned(),
            signer: caller.user_id.clone(),
            signer_key: signer_key.clone(),
            signature: signature.to_owned(),
        });
    }
    Ok(new)
}

fn without_signatures(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(object) = object.as_object_mut() {
        object.remove("signatures");
        object.remove("unsigned");
    }
    object
}

/// The public keys in a key object.
fn public_keys(json: &str) -> Vec<String> {
    serde_json::from_str::<KeyObject>(json)
        .map(|key| key.keys.into_values().collect())
        .unwrap_or_default()
}

/// A user's key for one usage.
pub(super) fn check_key(user_id: &UserId, json: &str, usage: &KeyUsage) -> Result<KeyObject, Refusal> {
    check_key_size(json)?;
    let key: KeyObject = serde_json::from_str(json).map_err(|error| Refusal::BadJson(error.to_string()))?;
    if key.user_id != user_id {
        return Err(Refusal::invalid("these are not your keys"));
    }
    if !key.usage.contains(usage) {
        return Err(Refusal::invalid(format!("the {usage} key is for something else")));
    }
    if key.keys.len() != 1 {
        return Err(Refusal::invalid("a cross-signing key object has one key"));
    }
    for (key_id, public_key) in &key.keys {
        check_name(key_id.as_str())?;
        check_name(public_key)?;
    }
    Ok(key)
}

fn is_signed_by(key: &KeyObject, user_id: &UserId, master_keys: &[String]) -> bool {
    let Some(signatures) = key.signatures.get(user_id) else {
        return false;
    };
    signatures.keys().any(|key_id| {
        let name = key_id.as_str().split_once(':').map_or("", |(_, name)| name);
        master_keys.iter().any(|master| master == name)
    })
}
