//! Clients: applications that register by themselves (RFC 7591; client-server API, "Client registration").
//!
//! A client's id is the hash of what it says of itself, so the same application is the same client however often it
//! registers. Nothing of it is believed but addresses, of which each has to fit the others; a client that nobody signs in with is
//! soon forgotten.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::{Host, Url};

use super::{ErrorCode, OAuth, OAuthError, redirect_uri};
use crate::refusal::Refusal;

/// Clients that are kept at most; when there are so many, applications that are not known have to wait.
const CLIENTS: i64 = 100_000;

/// How long a client is kept that nobody has signed in with, in milliseconds.
const UNUSED_MS: i64 = 2 * 60 * 60 * 1000;

/// How long a client is kept after somebody has signed in with it, in milliseconds: half a year.
const USED_MS: i64 = 183 * 24 * 60 * 60 * 1000;

/// How often it is noted that a client is used, in milliseconds.
const NOTED_MS: i64 = 24 * 60 * 60 * 1000;

/// Addresses that one client may have people sent to.
const REDIRECT_URIS: usize = 10;

/// Longest name of a client, in characters.
const NAME_CHARACTERS: usize = 100;

/// Longest address of a page about a client, in bytes.
const PAGE_BYTES: usize = 1024;

/// The grant by a code that a browser is sent back with.
const CODE: &str = "authorization_code";

/// The grants that clients can register for.
const GRANTS: [&str; 3] = [CODE, "refresh_token", super::device_grant::GRANT_TYPE];

/// What an application is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ApplicationType {
    /// A page of the web.
    #[default]
    Web,
    /// A program on a machine.
    Native,
}

/// What an application says of itself when it registers. What is not known here is left out.
#[derive(Clone, Debug, Deserialize)]
pub struct Registration {
    client_name: Option<String>,
    client_uri: Option<String>,
    logo_uri: Option<String>,
    tos_uri: Option<String>,
    policy_uri: Option<String>,
    redirect_uris: Option<Vec<String>>,
    response_types: Option<Vec<String>>,
    grant_types: Option<Vec<String>>,
    token_endpoint_auth_method: Option<String>,
    #[serde(default)]
    application_type: ApplicationType,
}

/// What is kept of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Metadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_name: Option<String>,
    client_uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    logo_uri: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tos_uri: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_uri: Option<String>,
    redirect_uris: Vec<String>,
    response_types: Vec<String>,
    grant_types: Vec<String>,
    application_type: ApplicationType,
    token_endpoint_auth_method: String,
}

/// An application that has registered. On the wire it is the answer to its registration.
#[derive(Clone, Debug, Serialize)]
pub struct Client {
    /// Its id.
    #[serde(rename = "client_id")]
    pub id: String,
    #[serde(flatten)]
    metadata: Metadata,
}

impl Client {
    fn of(metadata: Metadata) -> Result<(Self, String), OAuthError> {
        let json = serde_json::to_string(&metadata).map_err(Refusal::internal)?;
        let hash = Sha256::digest(&json);
        let id = URL_SAFE_NO_PAD.encode(hash.get(..18).unwrap_or_default());
        Ok((Self { id, metadata }, json))
    }

    /// What it is called: by itself or, where it says nothing, by its host.
    #[must_use]
    pub fn name(&self) -> String {
        self.metadata.client_name.clone().unwrap_or_else(|| self.host())
    }

    /// The host that it is of.
    #[must_use]
    pub fn host(&self) -> String {
        let url = Url::parse(&self.metadata.client_uri).ok();
        let host = url.and_then(|url| url.host_str().map(str::to_owned));
        host.unwrap_or_default()
    }

    /// The pages that it wants people to read: its terms and what it does with what it learns.
    #[must_use]
    pub fn pages(&self) -> (Option<&str>, Option<&str>) {
        (
            self.metadata.tos_uri.as_deref(),
            self.metadata.policy_uri.as_deref(),
        )
    }

    pub(super) fn has_grant(&self, grant: &str) -> bool {
        self.metadata.grant_types.iter().any(|known| known == grant)
    }

    pub(super) fn has_code_grant(&self) -> bool {
        self.has_grant(CODE)
    }

    pub(super) fn has_redirect_uri(&self, asked: &str) -> bool {
        let mut registered = self.metadata.redirect_uris.iter();
        registered.any(|registered| redirect_uri::is_same(registered, asked))
    }

    /// The one address that it has registered.
    pub(super) fn only_redirect_uri(&self) -> Option<&str> {
        match &self.metadata.redirect_uris[..] {
            [only] => Some(only),
            _ => None,
        }
    }
}

fn unfit(why: impl Into<String>) -> OAuthError {
    OAuthError::new(ErrorCode::InvalidClientMetadata, why)
}

impl Registration {
    /// What is kept of it, if it fits together.
    fn check(self) -> Result<Metadata, OAuthError> {
        let uri = self.client_uri.ok_or_else(|| unfit("client_uri is missing"))?;
        let client = page("client_uri", &uri)?;
        for (name, other) in [
            ("logo_uri", &self.logo_uri),
            ("tos_uri", &self.tos_uri),
            ("policy_uri", &self.policy_uri),
        ] {
            let Some(other) = other else { continue };
            if !redirect_uri::is_at_or_below(&page(name, other)?, &client) {
                return Err(unfit(format!(
                    "{name} is not on the host of client_uri or below it"
                )));
            }
        }
        if self.client_name.as_deref().is_some_and(|name| !is_name(name)) {
            return Err(unfit(
                "client_name has 1 to 100 characters, none of which rules how others look",
            ));
        }
        let asked = self.grant_types.unwrap_or_else(|| vec![CODE.to_owned()]);
        let known = GRANTS
            .into_iter()
            .filter(|grant| asked.iter().any(|asked| asked == grant));
        let grant_types: Vec<_> = known.map(str::to_owned).collect();
        let by_code = grant_types.iter().any(|grant| grant == CODE);
        if !by_code
            && !grant_types
                .iter()
                .any(|grant| grant == super::device_grant::GRANT_TYPE)
        {
            return Err(unfit("grant_types has none that begins anything here"));
        }
        let asked = self.response_types.unwrap_or_else(|| vec!["code".to_owned()]);
        let has_code = asked.iter().any(|kind| kind == "code");
        if by_code && !has_code {
            return Err(unfit("response_types has no code"));
        }
        if self
            .token_endpoint_auth_method
            .is_some_and(|method| method != "none")
        {
            return Err(unfit(
                "token_endpoint_auth_method is none: clients have no secrets here",
            ));
        }
        let redirect_uris = self.redirect_uris.unwrap_or_default();
        check_redirect_uris(&redirect_uris, &client, self.application_type, by_code)?;
        Ok(Metadata {
            client_name: self.client_name,
            client_uri: uri,
            logo_uri: self.logo_uri,
            tos_uri: self.tos_uri,
            policy_uri: self.policy_uri,
            redirect_uris,
            response_types: if has_code {
                vec!["code".to_owned()]
            } else {
                Vec::new()
            },
            grant_types,
            application_type: self.application_type,
            token_endpoint_auth_method: "none".to_owned(),
        })
    }
}

fn check_redirect_uris(
    uris: &[String],
    client: &Url,
    kind: ApplicationType,
    by_code: bool,
) -> Result<(), OAuthError> {
    let refused = |why: &str| OAuthError::new(ErrorCode::InvalidRedirectUri, why);
    if uris.len() > REDIRECT_URIS {
        return Err(refused("there are more than 10 redirect_uris"));
    }
    if by_code && uris.is_empty() {
        return Err(refused("redirect_uris is missing"));
    }
    let checked = uris.iter().map(|uri| redirect_uri::check(uri, client, kind));
    checked.collect::<Result<(), _>>().map_err(refused)
}

/// A page about a client: on the web, for everybody.
fn page(name: &str, text: &str) -> Result<Url, OAuthError> {
    let plain = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c);
    let url = Url::parse(text).ok();
    let url = url.filter(|_| text.len() <= PAGE_BYTES && text.chars().all(plain));
    let url =
        url.filter(|url| url.scheme() == "https" && url.username().is_empty() && url.password().is_none());
    let has_name = |url: &Url| matches!(url.host(), Some(Host::Domain(_)));
    url.filter(has_name)
        .ok_or_else(|| unfit(format!("{name} is no address with https and the name of a host")))
}

/// Whether a name shows as it is: no control characters, and none that turn the direction of others.
fn is_name(name: &str) -> bool {
    let turns = |c: char| matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let count = name.chars().count();
    let shows = name.chars().any(|c| !c.is_whitespace());
    shows && count <= NAME_CHARACTERS && !name.chars().any(|c| c.is_control() || turns(c))
}

impl OAuth {
    /// Registers a client.
    ///
    /// # Errors
    /// When what it says of itself does not fit, or too many are known.
    pub async fn register(&self, registration: Registration) -> Result<Client, OAuthError> {
        let (client, json) = Client::of(registration.check()?)?;
        let until = self.now().saturating_add(UNUSED_MS);
        if !self.store.put_client(&client.id, json, until, CLIENTS).await? {
            let why = "too many applications have registered lately";
            return Err(OAuthError::new(ErrorCode::TemporarilyUnavailable, why));
        }
        Ok(client)
    }

    /// A client by its id.
    ///
    /// # Errors
    /// When there is none.
    pub(super) async fn client(&self, id: &str) -> Result<Client, OAuthError> {
        let unknown = || OAuthError::new(ErrorCode::InvalidClient, "this client is not known, or no longer");
        let stored = self.store.client(id).await?;
        let stored = stored.filter(|stored| stored.expires_at > self.now());
        let stored = stored.ok_or_else(unknown)?;
        let metadata = serde_json::from_str(&stored.metadata).map_err(Refusal::internal)?;
        Ok(Client {
            id: id.to_owned(),
            metadata,
        })
    }

    /// Notes that somebody signs in with a client: it is kept for long.
    pub(super) async fn keep(&self, client: &Client) -> Result<(), OAuthError> {
        let until = self.now().saturating_add(USED_MS);
        let stored = self.store.client(&client.id).await?;
        if stored.is_some_and(|stored| stored.expires_at < until.saturating_sub(NOTED_MS)) {
            self.store.keep_client(&client.id, until).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn registered(change: impl FnOnce(&mut Value)) -> Result<Client, OAuthError> {
        let mut said = json!({
            "client_name": "App",
            "client_uri": "https://app.example.com/",
            "redirect_uris": ["https://app.example.com/cb"],
            "grant_types": ["authorization_code", "refresh_token", "something_else"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
            "contacts": ["nobody"],
        });
        change(&mut said);
        let registration: Registration = serde_json::from_value(said).unwrap();
        Ok(Client::of(registration.check()?)?.0)
    }

    #[test]
    fn the_same_application_is_the_same_client() {
        let first = registered(|_| {}).unwrap();
        let again = registered(|said| said["contacts"] = json!(["somebody"])).unwrap();
        assert_eq!(first.id, again.id);
        let other = registered(|said| said["client_name"] = json!("Other")).unwrap();
        assert_ne!(first.id, other.id);
        let shown = serde_json::to_value(&first).unwrap();
        assert_eq!(shown["client_id"], first.id);
        assert_eq!(
            shown["grant_types"],
            json!(["authorization_code", "refresh_token"])
        );
        assert!(shown.get("contacts").is_none());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let codes = |changes: &[(&str, Value)]| {
            let change = |said: &mut Value| {
                for (name, value) in changes {
                    said[*name] = value.clone();
                }
            };
            registered(change).map_err(|error| error.code)
        };
        use ErrorCode::{InvalidClientMetadata, InvalidRedirectUri};
        for (name, value, code) in [
            ("client_uri", json!(null), InvalidClientMetadata),
            (
                "client_uri",
                json!("http://app.example.com/"),
                InvalidClientMetadata,
            ),
            (
                "client_uri",
                json!("https://a:b@app.example.com/"),
                InvalidClientMetadata,
            ),
            ("client_uri", json!("https://192.0.2.1/"), InvalidClientMetadata),
            ("tos_uri", json!("https://evil.example/"), InvalidClientMetadata),
            ("policy_uri", json!("javascript:alert(1)"), InvalidClientMetadata),
            (
                "logo_uri",
                json!("http://app.example.com/logo"),
                InvalidClientMetadata,
            ),
            ("client_name", json!(""), InvalidClientMetadata),
            ("client_name", json!("x".repeat(101)), InvalidClientMetadata),
            ("client_name", json!("App\u{202e}ppA"), InvalidClientMetadata),
            ("client_name", json!("a\nb"), InvalidClientMetadata),
            ("grant_types", json!(["implicit"]), InvalidClientMetadata),
            ("grant_types", json!(["refresh_token"]), InvalidClientMetadata),
            ("response_types", json!(["token"]), InvalidClientMetadata),
            (
                "token_endpoint_auth_method",
                json!("client_secret_basic"),
                InvalidClientMetadata,
            ),
            ("redirect_uris", json!([]), InvalidRedirectUri),
            ("redirect_uris", json!(null), InvalidRedirectUri),
            (
                "redirect_uris",
                json!(["https://evil.example/"]),
                InvalidRedirectUri,
            ),
            (
                "redirect_uris",
                json!(["com.example.app:/cb"]),
                InvalidRedirectUri,
            ),
        ] {
            assert_eq!(
                codes(&[(name, value.clone())]).unwrap_err(),
                code,
                "{name} {value}"
            );
        }
        let device = json!(["urn:ietf:params:oauth:grant-type:device_code"]);
        assert!(codes(&[("grant_types", device), ("redirect_uris", json!(null))]).is_ok());
        let native = ("application_type", json!("native"));
        assert!(codes(&[native, ("redirect_uris", json!(["com.example.app:/cb"]))]).is_ok());
    }
}
