//! Logging in (client-server API, "Login").

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::session::get_login_token::v1 as get_login_token;
use ruma::api::client::session::get_login_types::v3 as get_login_types;
use ruma::api::client::session::login::v3 as login;
use ruma::api::client::session::refresh_token::v3 as refresh_token;
use ruma::{OwnedUserId, UserId};
use serde::Deserialize;

use crate::accounts::{NewDevice, Share};
use crate::appservice_registrations::Registration;
use crate::http::codec::extractors::{Answer, Call, JsonBody, Reply};
use crate::http::codec::interactive_auth::{Provable, confirm};
use crate::http::codec::masquerade::ByService;
use crate::http::router::{Endpoints, Routes};
use crate::http::transport::client_address::ClientAddress;
use crate::limits::{Budget, ClientNetwork};
use crate::refusal::Refusal;
use crate::server::Server;
use crate::store::accounts::credentials::Credentials;

/// The type of logins and registrations by application services.
pub(super) const BY_SERVICE: &str = "m.login.application_service";

pub(in crate::http) fn routes() -> Routes {
    Routes::new()
        .endpoint::<get_login_types::Request, _>(login_types)
        .endpoint::<login::Request, _>(log_in)
        .endpoint::<get_login_token::Request, _>(login_token)
        .endpoint::<refresh_token::Request, _>(refresh)
}

/// A login as it is sent. Not ruma's type, which panics where `type` is missing, and wants an identifier where old
/// clients send `user`.
#[derive(Deserialize)]
struct Login {
    #[serde(rename = "type")]
    kind: String,
    identifier: Option<Identifier>,
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
    device_id: Option<String>,
    initial_device_display_name: Option<String>,
    #[serde(default)]
    refresh_token: bool,
}

#[derive(Deserialize)]
struct Identifier {
    #[serde(rename = "type")]
    kind: String,
    user: Option<String>,
}

impl Login {
    /// The user name that the login is for.
    fn name(&self) -> Result<&str, Refusal> {
        let missing = || Refusal::MissingParam("identifier.user is missing: which user logs in".into());
        match &self.identifier {
            Some(identifier) if identifier.kind == "m.id.user" => {
                identifier.user.as_deref().ok_or_else(missing)
            }
            Some(_) => Err(Refusal::UnknownKind(
                "this server knows users by m.id.user only".into(),
            )),
            None => self.user.as_deref().ok_or_else(missing),
        }
    }
}

async fn login_types(
    State(server): State<Arc<Server>>,
    _: Call<get_login_types::Request>,
) -> Reply<get_login_types::Response> {
    use get_login_types::{ApplicationServiceLoginType, LoginType, PasswordLoginType, TokenLoginType};
    let mut token = TokenLoginType::new();
    token.get_login_token = true;
    let mut types = vec![
        LoginType::Password(PasswordLoginType::new()),
        LoginType::Token(token),
    ];
    if server.accounts.has_services() {
        types.push(LoginType::ApplicationService(ApplicationServiceLoginType::new()));
    }
    Ok(Answer(get_login_types::Response::new(types)))
}

async fn log_in(
    State(server): State<Arc<Server>>,
    address: ClientAddress,
    ByService(service): ByService,
    JsonBody(login): JsonBody<Login>,
) -> Reply<login::Response> {
    let device = NewDevice {
        device_id: login.device_id.clone(),
        display_name: login.initial_device_display_name.clone(),
        refreshable: login.refresh_token,
        address: Some(address.0),
        client: None,
    };
    // Before the proof, which is used up where it is a token.
    device.check()?;
    let (user_id, proved) = who(&server, &login, service, address).await?;
    let session = server.accounts.start_session(&user_id, proved, device).await?;
    let mut response = login::Response::new(user_id, session.access_token, session.device_id.into());
    response.refresh_token = session.refresh_token;
    response.expires_in = session.expires_in;
    let node = server.nodes.address_for_client();
    response.well_known = node.map(|node| login::DiscoveryInfo::new(login::HomeserverInfo::new(node)));
    Ok(Answer(response))
}

/// Whose login it is, once that is proved, and what was proved.
async fn who(
    server: &Server,
    login: &Login,
    service: Option<Arc<Registration>>,
    address: ClientAddress,
) -> Result<(OwnedUserId, Credentials), Refusal> {
    let missing = |what| Refusal::MissingParam(format!("{what} is missing"));
    match login.kind.as_str() {
        "m.login.password" => {
            let password = login.password.clone().ok_or_else(|| missing("password"))?;
            let named = server.accounts.named(login.name()?);
            let user_id = named.ok_or_else(|| Refusal::forbidden("the user name or password is wrong"))?;
            let network = address.for_limits();
            spend_attempt(server, &user_id, network).await?;
            let share = Share::Address(network);
            let proved = server.accounts.check_password(&user_id, password, share).await?;
            Ok((user_id, proved))
        }
        "m.login.token" => {
            let token = login.token.as_deref().ok_or_else(|| missing("token"))?;
            server.accounts.take_login_token(token).await
        }
        BY_SERVICE => {
            let service = service.ok_or(Refusal::MissingToken)?;
            let named = server.accounts.named(login.name()?);
            let user_id = named.ok_or_else(|| Refusal::invalid("this is no user of this server"))?;
            let proved = server.accounts.prove_by_service(&service, &user_id).await?;
            Ok((user_id, proved))
        }
        _ => Err(Refusal::UnknownKind(
            "this server knows no such login type".into(),
        )),
    }
}

/// Spends an attempt to log in to an account. Strangers together have few, but spend nothing of those who try where the
/// account is at home.
pub(in crate::http) async fn spend_attempt(
    server: &Server,
    user_id: &UserId,
    network: ClientNetwork,
) -> Result<(), Refusal> {
    server
        .budgets
        .spend(Budget::LoginsToAccountFromAddress, (user_id, network))?;
    if !server.accounts.is_seen_at(user_id, network).await? {
        server.budgets.spend(Budget::LoginsToAccount, user_id)?;
    }
    Ok(())
}

async fn login_token(
    State(server): State<Arc<Server>>,
    call: Call<Provable<get_login_token::Request>>,
) -> Reply<get_login_token::Response> {
    let proved = confirm(
        &server,
        &call.caller,
        "get_login_token",
        call.request.request.auth,
    )
    .await?;
    let (token, expires_in) = server.accounts.create_login_token(&call.caller, proved).await?;
    Ok(Answer(get_login_token::Response::new(expires_in, token)))
}

async fn refresh(
    State(server): State<Arc<Server>>,
    call: Call<refresh_token::Request>,
) -> Reply<refresh_token::Response> {
    let renewed = server.accounts.refresh(&call.request.refresh_token, None).await?;
    let (access_token, refresh_token, expires_in) = renewed;
    let mut response = refresh_token::Response::new(access_token);
    response.refresh_token = Some(refresh_token);
    response.expires_in_ms = Some(expires_in);
    Ok(Answer(response))
}
