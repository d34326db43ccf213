//! From bytes to a typed request: [`Call`] extracts an endpoint's request, and whoever makes it.
//!
//! The request type says which authentication the endpoint needs; `Call::caller` is a
//! [`Caller`](crate::accounts::Caller) only where a valid access token was presented, so a handler cannot forget it.

use std::sync::Arc;
use std::time::Duration;

use axum::RequestExt;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, Uri};
use maru_protocol::json::{self, JsonError};
use ruma::api::auth_scheme::{
    AccessToken, AccessTokenOptional, AppserviceToken, AppserviceTokenOptional, AuthScheme, NoAccessToken,
    NoAuthentication,
};
use ruma::api::error::FromHttpRequestError;
use ruma::api::{IncomingRequest, IncomingRequestExt, OutgoingResponse, OutgoingResponseExt};

use super::error::{ApiError, plain};
use super::masquerade;
use super::spending::{Spender, spend};
use crate::accounts::Caller;
use crate::appservice_registrations::Registration;
use crate::config::Limits;
use crate::http::transport::client_address::ClientAddress;
use crate::refusal::Refusal;
use crate::server::Server;
use crate::token_hash::TokenHash;

/// An authenticated, parsed request of type `R`.
#[derive(Debug)]
pub struct Call<R: IncomingRequest>
where
    R::Authentication: Authenticate,
{
    /// What is asked for.
    pub request: R,
    /// Who asks.
    pub caller: <R::Authentication as Authenticate>::Who,
}

/// How an endpoint's authentication scheme becomes a caller.
pub trait Authenticate: AuthScheme {
    /// What a handler is given.
    type Who: Send + std::fmt::Debug;

    /// Judges what the request carried.
    fn who(
        server: &Server,
        presented: Self::Output,
        uri: &Uri,
        address: ClientAddress,
    ) -> impl Future<Output = Result<Self::Who, Refusal>> + Send;

    /// Who spends what the request costs.
    fn spender(_who: &Self::Who) -> Spender<'_> {
        Spender::Stranger
    }
}

impl Authenticate for AccessToken {
    type Who = Caller;

    async fn who(
        server: &Server,
        token: String,
        uri: &Uri,
        address: ClientAddress,
    ) -> Result<Caller, Refusal> {
        masquerade::caller(server, &token, uri, address).await
    }

    fn spender(who: &Caller) -> Spender<'_> {
        Spender::Account(who)
    }
}

impl Authenticate for AccessTokenOptional {
    type Who = Option<Caller>;

    async fn who(
        server: &Server,
        token: Option<String>,
        uri: &Uri,
        address: ClientAddress,
    ) -> Result<Option<Caller>, Refusal> {
        match token {
            Some(token) => masquerade::caller(server, &token, uri, address).await.map(Some),
            None => Ok(None),
        }
    }

    fn spender(who: &Option<Caller>) -> Spender<'_> {
        who.as_ref().map_or(Spender::Stranger, Spender::Account)
    }
}

/// What application services alone may ask.
impl Authenticate for AppserviceToken {
    type Who = Arc<Registration>;

    async fn who(
        server: &Server,
        token: String,
        _: &Uri,
        address: ClientAddress,
    ) -> Result<Arc<Registration>, Refusal> {
        match server.accounts.service_of(&token) {
            Some(service) => Ok(service),
            None => {
                server.accounts.caller_from(&token, address.0).await?;
                Err(Refusal::forbidden("this is for application services"))
            }
        }
    }

    fn spender(who: &Arc<Registration>) -> Spender<'_> {
        Spender::Service(who)
    }
}

/// What application services ask in another way than strangers. Any other token is not looked at.
impl Authenticate for AppserviceTokenOptional {
    type Who = Option<Arc<Registration>>;

    async fn who(
        server: &Server,
        token: Option<String>,
        _: &Uri,
        _: ClientAddress,
    ) -> Result<Self::Who, Refusal> {
        Ok(token.and_then(|token| server.accounts.service_of(&token)))
    }

    fn spender(who: &Self::Who) -> Spender<'_> {
        who.as_ref()
            .map_or(Spender::Stranger, |service| Spender::Service(service))
    }
}

impl Authenticate for NoAccessToken {
    type Who = ();

    async fn who(_: &Server, (): (), _: &Uri, _: ClientAddress) -> Result<(), Refusal> {
        Ok(())
    }
}

impl Authenticate for NoAuthentication {
    type Who = ();

    async fn who(_: &Server, (): (), _: &Uri, _: ClientAddress) -> Result<(), Refusal> {
        Ok(())
    }
}

/// A request whose caller is known and whose body has not been read.
pub(in crate::http) struct Authenticated<A: Authenticate> {
    pub(in crate::http) caller: A::Who,
    pub(in crate::http) parts: http::request::Parts,
    pub(in crate::http) body: axum::body::Body,
    pub(in crate::http) path: RawPathParams,
}

impl<A: Authenticate> Authenticated<A> {
    /// Judges a request's token, and spends what the endpoint costs. That comes before the body is read: strangers cost
    /// no memory, and neither does who has spent all.
    pub(in crate::http) async fn judge(mut request: Request, server: &Arc<Server>) -> Result<Self, Response> {
        let path = request.extract_parts::<RawPathParams>().await;
        let path = path.map_err(|_| ApiError(Refusal::invalid("the path is not UTF-8")).into_response())?;
        let (parts, body) = request.into_parts();
        let head = http::Request::from_parts(parts, ());
        let presented = A::extract_authentication(&head);
        let presented = presented.map_err(|_| ApiError(Refusal::MissingToken).into_response())?;
        let address = head
            .extensions()
            .get::<ClientAddress>()
            .copied()
            .unwrap_or_default();
        let caller = A::who(server, presented, head.uri(), address).await;
        let caller = caller.map_err(|refusal| ApiError(refusal).into_response())?;
        let (parts, ()) = head.into_parts();
        let spent = spend(server, &parts.extensions, A::spender(&caller));
        spent.map_err(|refusal| ApiError(refusal).into_response())?;
        Ok(Self {
            caller,
            parts,
            body,
            path,
        })
    }
}

/// The access token of a request, for those who wait so long that it must be looked at again.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct PresentedToken(pub(in crate::http) TokenHash);

impl FromRequestParts<Arc<Server>> for PresentedToken {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut http::request::Parts, _: &Arc<Server>) -> Result<Self, ApiError> {
        let mut head = Request::new(());
        std::mem::swap(head.headers_mut(), &mut parts.headers);
        std::mem::swap(head.uri_mut(), &mut parts.uri);
        let presented = AccessToken::extract_authentication(&head);
        std::mem::swap(head.headers_mut(), &mut parts.headers);
        std::mem::swap(head.uri_mut(), &mut parts.uri);
        let token = presented.map_err(|_| Refusal::MissingToken)?;
        Ok(Self(TokenHash::of(&token)))
    }
}

/// The values in a path, in their order.
#[expect(
    clippy::result_large_err,
    reason = "axum takes rejections as responses; this one is rare"
)]
pub(in crate::http) fn arguments(path: &RawPathParams) -> Result<Vec<&str>, Response> {
    let arguments: Vec<&str> = path.iter().map(|(_, value)| value).collect();
    if arguments.iter().any(|argument| argument.contains('\0')) {
        return Err(ApiError(Refusal::invalid("the path contains a NUL character")).into_response());
    }
    Ok(arguments)
}

impl<R> FromRequest<Arc<Server>> for Call<R>
where
    R: IncomingRequest + Send + 'static,
    R::Authentication: Authenticate,
    <R::Authentication as AuthScheme>::Output: Send,
{
    type Rejection = Response;

    async fn from_request(request: Request, server: &Arc<Server>) -> Result<Self, Response> {
        let judged = Authenticated::<R::Authentication>::judge(request, server).await?;
        // What stands in the body of a GET has no meaning (RFC 9110, section 9.3.1), so nobody is turned away for it.
        let body = match judged.parts.method {
            Method::GET => Bytes::new(),
            _ => {
                let known = R::Authentication::spender(&judged.caller).is_known();
                read_body(judged.body, &server.limits, known).await?
            }
        };
        check_json(&body)?;
        // Clients send nothing where they have nothing to say: to an endpoint that takes JSON this is an empty object.
        let takes_json = judged.parts.method == Method::POST;
        let json = if body.is_empty() && takes_json {
            b"{}"
        } else {
            &body[..]
        };
        let head = http::Request::from_parts(judged.parts, json);
        let typed = R::try_from_http_request(head, &arguments(&judged.path)?);
        let request = typed.map_err(|error| unreadable(&error))?;
        Ok(Self {
            request,
            caller: judged.caller,
        })
    }
}

/// Reads a whole body within the limits of size and time; of time there is little for somebody who is not known.
pub async fn read_body(body: axum::body::Body, limits: &Limits, known: bool) -> Result<Bytes, Response> {
    let limit = limits.request_body_bytes;
    let too_large = || {
        ApiError(Refusal::TooLarge(format!(
            "the request's body is larger than {limit} bytes"
        )))
        .into_response()
    };
    if http_body::Body::size_hint(&body).lower() > limit as u64 {
        return Err(too_large());
    }
    let seconds = if known {
        limits.request_body_seconds
    } else {
        limits.stranger_body_seconds.min(limits.request_body_seconds)
    };
    let patience = Duration::from_secs(seconds.into());
    let read = tokio::time::timeout(patience, axum::body::to_bytes(body, limit)).await;
    let Ok(read) = read else {
        let why = "the request's body did not arrive in time";
        return Err(plain(StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN", why));
    };
    read.map_err(|error| {
        let cause: Box<dyn std::error::Error + Send + Sync> = Box::new(error);
        match cause.source() {
            Some(source) if source.is::<http_body_util::LengthLimitError>() => too_large(),
            _ => plain(
                StatusCode::BAD_REQUEST,
                "M_NOT_JSON",
                "the request's body ended early",
            ),
        }
    })
}

/// Every body but those of media is a JSON object or empty, and obeys [`json::check`]: what it holds may be kept and passed
/// on as it came. Read before the type that is wanted, which would take a list for an object whose members are all optional.
#[expect(
    clippy::result_large_err,
    reason = "axum takes rejections as responses; this one is rare"
)]
fn check_json(body: &[u8]) -> Result<(), Response> {
    if body.is_empty() {
        return Ok(());
    }
    let text = body.trim_ascii();
    let (errcode, why) = match json::check(body) {
        Ok(()) if text.starts_with(b"{") => return Ok(()),
        Ok(()) => ("M_BAD_JSON", "the request's body is not a JSON object".to_owned()),
        Err(error @ JsonError::NotJson(_)) => ("M_NOT_JSON", format!("the request's body is {error}")),
        Err(error) => ("M_BAD_JSON", format!("the request's body: {error}")),
    };
    Err(plain(StatusCode::BAD_REQUEST, errcode, &why))
}

/// A JSON body of a type of our own from somebody who is known; an empty one is an empty object.
pub(in crate::http) async fn read_json<T: serde::de::DeserializeOwned>(
    body: axum::body::Body,
    limits: &Limits,
) -> Result<T, Response> {
    let body = read_body(body, limits, true).await?;
    check_json(&body)?;
    let json = if body.is_empty() { b"{}" } else { &body[..] };
    parsed(json)
}

#[expect(
    clippy::result_large_err,
    reason = "axum takes rejections as responses; this one is rare"
)]
fn parsed<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, Response> {
    serde_json::from_slice(json).map_err(|error| {
        let errcode = if error.is_data() {
            "M_BAD_JSON"
        } else {
            "M_NOT_JSON"
        };
        plain(StatusCode::BAD_REQUEST, errcode, &error.to_string())
    })
}

/// A JSON body of a type of our own, where ruma's request type does not do.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<T: serde::de::DeserializeOwned> FromRequest<Arc<Server>> for JsonBody<T> {
    type Rejection = Response;

    async fn from_request(request: Request, server: &Arc<Server>) -> Result<Self, Response> {
        let service = masquerade::service(server, &request);
        let spender = service
            .as_ref()
            .map_or(Spender::Stranger, |service| Spender::Service(service));
        let spent = spend(server, request.extensions(), spender);
        spent.map_err(|refusal| ApiError(refusal).into_response())?;
        let body = read_body(request.into_body(), &server.limits, false).await?;
        check_json(&body)?;
        parsed(&body).map(Self)
    }
}

/// Tells a client what is wrong with its request, and nothing else.
fn unreadable(error: &FromHttpRequestError) -> Response {
    match error {
        FromHttpRequestError::Deserialization(ruma::api::error::DeserializationError::Query(cause)) => plain(
            StatusCode::BAD_REQUEST,
            "M_INVALID_PARAM",
            &format!("the query cannot be read: {cause}"),
        ),
        error => plain(StatusCode::BAD_REQUEST, "M_BAD_JSON", &error.to_string()),
    }
}

/// A typed answer.
#[derive(Debug)]
pub struct Answer<T>(pub T);

impl<T: OutgoingResponse> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        match self.0.try_into_http_response::<BytesMut>() {
            Ok(response) => response.map(|body| axum::body::Body::from(body.freeze())),
            Err(error) => ApiError(Refusal::internal(error)).into_response(),
        }
    }
}

/// What handlers return: a typed answer or a refusal.
pub type Reply<T> = Result<Answer<T>, ApiError>;

/// An answer of a type of our own, where ruma's response type does not do.
#[derive(Debug)]
pub(in crate::http) struct JsonAnswer<T>(pub(in crate::http) T);

impl<T: serde::Serialize> IntoResponse for JsonAnswer<T> {
    fn into_response(self) -> Response {
        match serde_json::to_string(&self.0) {
            Ok(json) => ([(http::header::CONTENT_TYPE, "application/json")], json).into_response(),
            Err(error) => ApiError(Refusal::internal(error)).into_response(),
        }
    }
}
