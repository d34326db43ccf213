//! Signatures of requests to an object storage ("AWS Signature Version 4"), as the storage checks them.

use hmac::{Hmac, KeyInit, Mac};
use http::request::Parts;
use sha2::{Digest, Sha256};

use super::{ACCESS_KEY, SECRET_KEY, hex};

/// Checks a request's signature and what it says of its body and its host. Otherwise, what is wrong.
pub(super) fn check(head: &Parts, body: &[u8], host: &str) -> Result<(), String> {
    let digest = text(head, "x-amz-content-sha256")?;
    if digest != hex(&Sha256::digest(body)) {
        return Err("another body than the one that was signed".to_owned());
    }
    if text(head, "host")? != host {
        return Err("another host".to_owned());
    }
    let authorization = text(head, "authorization")?.strip_prefix("AWS4-HMAC-SHA256 ");
    let authorization = authorization.ok_or("another kind of signature")?;
    let part = |name: &str| {
        let parts = authorization.split(", ").filter_map(|part| part.split_once('='));
        let mut found = parts.filter(|(key, _)| *key == name).map(|(_, value)| value);
        found.next().ok_or_else(|| format!("no {name}"))
    };
    let scope = part("Credential")?.strip_prefix(&format!("{ACCESS_KEY}/"));
    let scope = scope.ok_or("another access key")?;
    let canonical = canonical(head, part("SignedHeaders")?, digest)?;
    match signature(head, scope, &canonical)? == part("Signature")? {
        true => Ok(()),
        false => Err(format!("a wrong signature of {canonical}")),
    }
}

fn text<'h>(head: &'h Parts, name: &str) -> Result<&'h str, String> {
    let value = head.headers.get(name).and_then(|value| value.to_str().ok());
    value.ok_or_else(|| format!("no {name}"))
}

/// A request in the form that is signed.
fn canonical(head: &Parts, signed: &str, digest: &str) -> Result<String, String> {
    let query = head.uri.query().unwrap_or_default();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<_> = pairs
        .map(|pair| {
            if pair.contains('=') {
                pair.to_owned()
            } else {
                format!("{pair}=")
            }
        })
        .collect();
    pairs.sort();
    let mut canonical = format!("{}\n{}\n{}\n", head.method, head.uri.path(), pairs.join("&"));
    for name in signed.split(';') {
        canonical.push_str(&format!("{name}:{}\n", text(head, name)?.trim()));
    }
    canonical.push_str(&format!("\n{signed}\n{digest}"));
    Ok(canonical)
}

fn signature(head: &Parts, scope: &str, canonical: &str) -> Result<String, String> {
    let (date, hashed) = (text(head, "x-amz-date")?, hex(&Sha256::digest(canonical)));
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashed}");
    let mut key = format!("AWS4{SECRET_KEY}").into_bytes();
    for step in scope.split('/').chain([&*to_sign]) {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|error| error.to_string())?;
        mac.update(step.as_bytes());
        key = mac.finalize().into_bytes().to_vec();
    }
    Ok(hex(&key))
}
