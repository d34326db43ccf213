//! Authorization requests: a client sends somebody's browser, and has it sent back with a code or the reason why there is none
//! (RFC 6749, section 4.1; PKCE by S256, RFC 7636; client-server API, "Login flow").

use super::scope::Scope;
use super::{Client, ErrorCode, OAuth, OAuthError, Parameters, SignedIn};
use crate::accounts::new_secret;
use crate::store::oauth::codes::Allowed;
use crate::token_hash::TokenHash;

/// How long a code can be used, in milliseconds. Within that it is noticed when it is presented again.
const CODE_MS: i64 = 10 * 60 * 1000;

/// Longest `state` that is handed back, in bytes.
const STATE_BYTES: usize = 4096;

/// Characters of the challenge of PKCE: a SHA-256 in base64.
const CHALLENGE: usize = 43;

/// Where in its address a browser takes the answer back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResponseMode {
    Query,
    Fragment,
}

/// Where an answer goes.
#[derive(Clone, Debug)]
struct ReturnAddress {
    redirect_uri: String,
    mode: ResponseMode,
    state: Option<String>,
}

impl ReturnAddress {
    /// The address to which the browser is sent with an answer.
    fn with(&self, issuer: &str, answer: &[(&str, &str)]) -> String {
        let mut parameters = url::form_urlencoded::Serializer::new(String::new());
        parameters.extend_pairs(answer);
        if let Some(state) = &self.state {
            parameters.append_pair("state", state);
        }
        // RFC 9207: a client that speaks with several servers knows whose answer it is.
        parameters.append_pair("iss", issuer);
        let mark = match self.mode {
            ResponseMode::Fragment => '#',
            ResponseMode::Query if self.redirect_uri.contains('?') => '&',
            ResponseMode::Query => '?',
        };
        format!("{}{mark}{}", self.redirect_uri, parameters.finish())
    }
}

/// What a client wants to be shown first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Whatever is needed.
    Any,
    /// The sign-in, whoever is signed in.
    Login,
    /// The making of an account.
    Create,
    /// Nothing.
    None,
}

/// A request that can be put before somebody.
#[derive(Clone, Debug)]
pub struct AuthorizationRequest {
    /// The client.
    pub client: Client,
    /// What it wants to be shown first.
    pub prompt: Prompt,
    /// The user whom it expects.
    pub login_hint: Option<String>,
    scope: Scope,
    challenge: String,
    to: ReturnAddress,
}

impl AuthorizationRequest {
    /// Where the browser is sent back to: a host or, where it is an application of the machine, the beginning of its address.
    #[must_use]
    pub fn returns_to(&self) -> String {
        let url = url::Url::parse(&self.to.redirect_uri).ok();
        let host = url.as_ref().and_then(url::Url::host_str).map(str::to_owned);
        let scheme = || {
            self.to
                .redirect_uri
                .split(':')
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        host.unwrap_or_else(scheme)
    }

    /// The same as a source of `Content-Security-Policy`: the form that is sent may lead there.
    #[must_use]
    pub fn form_target(&self) -> String {
        let url = url::Url::parse(&self.to.redirect_uri).ok();
        match url {
            // The grammar of the header has no IPv6.
            Some(url) if matches!(url.host(), Some(url::Host::Ipv6(_))) => format!("{}:", url.scheme()),
            Some(url) if matches!(url.scheme(), "https" | "http") => url.origin().ascii_serialization(),
            _ => format!("{}:", self.returns_to()),
        }
    }
}

/// Why a request cannot be put before anybody.
#[derive(Clone, Debug)]
pub enum Turned {
    /// Nobody knows whose it is, or where its answer would go: it is said to the person.
    Here(OAuthError),
    /// The client is told: the browser is sent to this address.
    Back(String),
}

impl From<OAuthError> for Turned {
    fn from(error: OAuthError) -> Self {
        Self::Here(error)
    }
}

impl OAuth {
    /// Reads an authorization request.
    ///
    /// # Errors
    /// [`Turned`].
    pub async fn authorization(&self, parameters: &Parameters) -> Result<AuthorizationRequest, Turned> {
        let client = self.client(parameters.require("client_id")?).await?;
        let redirect_uri = match (parameters.get("redirect_uri"), client.only_redirect_uri()) {
            (Some(asked), _) if client.has_redirect_uri(asked) => asked.to_owned(),
            (None, Some(only)) => only.to_owned(),
            _ => {
                let why = "redirect_uri is none that this client has registered";
                return Err(OAuthError::new(ErrorCode::InvalidRedirectUri, why).into());
            }
        };
        let mut to = ReturnAddress {
            redirect_uri,
            mode: ResponseMode::Query,
            state: parameters.get("state").map(str::to_owned),
        };
        if to.state.as_ref().is_some_and(|state| state.len() > STATE_BYTES) {
            return Err(OAuthError::invalid_request("state is too long").into());
        }
        match parameters.get("response_mode") {
            None | Some("query") => {}
            Some("fragment") => to.mode = ResponseMode::Fragment,
            Some(_) => {
                let why = OAuthError::invalid_request("response_mode is query or fragment");
                return Err(self.turned_back(&to, &why));
            }
        }
        match self.rest_of(parameters, client, to.clone()) {
            Ok(request) => Ok(request),
            Err(error) => Err(self.turned_back(&to, &error)),
        }
    }

    /// What is left to read once it is known where the answer goes.
    fn rest_of(
        &self,
        parameters: &Parameters,
        client: Client,
        to: ReturnAddress,
    ) -> Result<AuthorizationRequest, OAuthError> {
        if !client.has_code_grant() {
            let why = "this client has not registered for codes";
            return Err(OAuthError::new(ErrorCode::UnauthorizedClient, why));
        }
        if parameters.require("response_type")? != "code" {
            let why = "response_type is code";
            return Err(OAuthError::new(ErrorCode::UnsupportedResponseType, why));
        }
        let challenge = parameters.require("code_challenge")?;
        if parameters.get("code_challenge_method") != Some("S256") {
            return Err(OAuthError::invalid_request("code_challenge_method is S256"));
        }
        let in_base64 = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if challenge.len() != CHALLENGE || !challenge.chars().all(in_base64) {
            let why = "code_challenge is no SHA-256 in base64 for addresses";
            return Err(OAuthError::invalid_request(why));
        }
        let scope = Scope::read(parameters.require("scope")?)?;
        let prompts: Vec<_> = parameters.get("prompt").unwrap_or_default().split(' ').collect();
        let prompt = match () {
            () if prompts.contains(&"none") => Prompt::None,
            () if prompts.contains(&"create") => Prompt::Create,
            () if prompts.contains(&"login") => Prompt::Login,
            () => Prompt::Any,
        };
        if prompt == Prompt::None {
            let why = "the user is always asked here";
            return Err(OAuthError::new(ErrorCode::InteractionRequired, why));
        }
        let hint = parameters.get("login_hint");
        Ok(AuthorizationRequest {
            client,
            prompt,
            login_hint: hint.map(|hint| hint.strip_prefix("mxid:").unwrap_or(hint).to_owned()),
            scope,
            challenge: challenge.to_owned(),
            to,
        })
    }

    fn turned_back(&self, to: &ReturnAddress, error: &OAuthError) -> Turned {
        let answer = [
            ("error", error.code.name()),
            ("error_description", error.description.as_str()),
        ];
        Turned::Back(to.with(&self.issuer, &answer))
    }

    /// The user allows what a client asks for: where the browser is sent with a code for it.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn allow(
        &self,
        request: AuthorizationRequest,
        signed_in: &SignedIn,
    ) -> Result<String, OAuthError> {
        let code = new_secret("code");
        let allowed = Allowed {
            client_id: request.client.id.clone(),
            redirect_uri: request.to.redirect_uri.clone(),
            challenge: request.challenge,
            scope: request.scope.granted,
            user_id: signed_in.user_id.clone(),
            proved: signed_in.proved,
            device_id: request.scope.device_id,
            expires_at: self.now().saturating_add(CODE_MS),
        };
        self.store.put_code(TokenHash::of(&code), allowed).await?;
        self.keep(&request.client).await?;
        Ok(request.to.with(&self.issuer, &[("code", &code)]))
    }

    /// The user does not: where the browser is sent with that.
    #[must_use]
    pub fn deny(&self, request: &AuthorizationRequest) -> String {
        let answer = [
            ("error", ErrorCode::AccessDenied.name()),
            ("error_description", "the user does not allow it"),
        ];
        request.to.with(&self.issuer, &answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_goes_where_it_is_wanted() {
        let with = |redirect_uri: &str, mode| {
            let to = ReturnAddress {
                redirect_uri: redirect_uri.into(),
                mode,
                state: Some("a&b=c #\r\n".into()),
            };
            to.with("https://i.example", &[("code", "x y")])
        };
        let answer = "code=x+y&state=a%26b%3Dc+%23%0D%0A&iss=https%3A%2F%2Fi.example";
        for (redirect_uri, mode, beginning) in [
            ("https://a.example/", ResponseMode::Query, "https://a.example/?"),
            (
                "https://a.example/?b=c",
                ResponseMode::Query,
                "https://a.example/?b=c&",
            ),
            (
                "https://a.example/?b=c",
                ResponseMode::Fragment,
                "https://a.example/?b=c#",
            ),
            ("com.example.a:/", ResponseMode::Query, "com.example.a:/?"),
        ] {
            assert_eq!(with(redirect_uri, mode), format!("{beginning}{answer}"));
        }
    }
}
