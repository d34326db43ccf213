//! Signing in on a page, by name and password or with a new account. The same budgets are spent as by a login over the older
//! API, and the same is told: not whether there is such an account.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::pages::problem;
use super::visit::Visit;
use crate::accounts::{Attempt, NewAccount, Proof, Share};
use crate::http::accounts::login::spend_attempt;
use crate::limits::Budget;
use crate::oauth::{Parameters, SignedIn};
use crate::refusal::Refusal;

/// Who is before the page, and why.
#[derive(Clone, Debug, Default)]
pub(super) struct Occasion {
    /// The application that sent the browser here.
    pub(super) client: Option<String>,
    /// The user who is expected.
    pub(super) name: Option<String>,
    /// Whether an account may be made instead.
    pub(super) may_create: bool,
}

/// The page to sign in.
pub(super) async fn page(visit: &Visit, occasion: &Occasion) -> Response {
    match values(visit, occasion).await {
        Ok(values) => visit.page(StatusCode::OK, "sign_in.html", values, None),
        Err(refusal) => visit.failed(&refusal),
    }
}

async fn values(visit: &Visit, occasion: &Occasion) -> Result<Value, Refusal> {
    let can_create = occasion.may_create && visit.server.accounts.registration_needs_token().await?.is_some();
    let create = can_create.then(|| visit.here_with("prompt", Some("create")));
    Ok(json!({ "client": occasion.client, "name": occasion.name, "create": create }))
}

/// The page to make an account, where somebody can; otherwise that to sign in.
pub(super) async fn create_page(visit: &Visit, occasion: &Occasion) -> Response {
    match visit.server.accounts.registration_needs_token().await {
        Ok(Some(needs_token)) => {
            let values = create_values(visit, occasion, needs_token);
            visit.page(StatusCode::OK, "create.html", values, None)
        }
        Ok(None) => page(visit, occasion).await,
        Err(refusal) => visit.failed(&refusal),
    }
}

fn create_values(visit: &Visit, occasion: &Occasion, needs_token: bool) -> Value {
    json!({
        "client": occasion.client,
        "name": occasion.name,
        "needs_token": needs_token,
        "sign_in": visit.here_with("prompt", None),
    })
}

/// Does what a form of these pages asks for; `None` when it is of another page. Then the same address is shown again.
pub(super) async fn step(visit: &Visit, form: &Parameters, occasion: &Occasion) -> Option<Response> {
    let mut occasion = occasion.clone();
    occasion.name = form.get("name").map(str::to_owned);
    let entered = match form.get("step") {
        Some("sign_in") => sign_in(visit, form).await,
        Some("create") if occasion.may_create => create(visit, form).await,
        Some("sign_out") => return Some(visit.sign_out().await),
        _ => return None,
    };
    let entered = match entered {
        Ok(who) => visit.sign_in(&who).await,
        Err(refusal) => Err(refusal),
    };
    Some(match entered {
        Ok(cookie) => visit.sent_on_as(&visit.here_with("prompt", None), &cookie),
        Err(refusal) => refused(visit, form, &occasion, &refusal).await,
    })
}

async fn refused(visit: &Visit, form: &Parameters, occasion: &Occasion, refusal: &Refusal) -> Response {
    let is_creating = form.get("step") == Some("create");
    let values = match is_creating {
        true => {
            let needs_token = visit.server.accounts.registration_needs_token().await;
            needs_token.map(|needs| create_values(visit, occasion, needs.unwrap_or(true)))
        }
        false => values(visit, occasion).await,
    };
    let mut values = match values {
        Ok(values) => values,
        Err(refusal) => return visit.failed(&refusal),
    };
    values["problem"] = match refusal {
        Refusal::Forbidden(_) if !is_creating => json!("wrong_password"),
        Refusal::Forbidden(_) => json!("not_done"),
        Refusal::BadState(_) => json!("passwords_differ"),
        refusal => json!(problem(refusal)),
    };
    let template = if is_creating {
        "create.html"
    } else {
        "sign_in.html"
    };
    visit.page_with(template, values, refusal)
}

/// Who says to be somebody, and proves it.
pub(super) async fn sign_in(visit: &Visit, form: &Parameters) -> Result<SignedIn, Refusal> {
    let wrong = || Refusal::forbidden("the user name or password is wrong");
    let network = visit.address.for_limits();
    visit.server.budgets.spend(Budget::LoginsFromAddress, network)?;
    let name = form.get("name").unwrap_or_default().trim();
    let user_id = visit.server.accounts.named(name).ok_or_else(wrong)?;
    prove(visit, user_id, form).await
}

/// Proves by the password of a form that it is this user who sends it.
pub(super) async fn prove(
    visit: &Visit,
    user_id: ruma::OwnedUserId,
    form: &Parameters,
) -> Result<SignedIn, Refusal> {
    let network = visit.address.for_limits();
    spend_attempt(&visit.server, &user_id, network).await?;
    let password = form.get("password").unwrap_or_default().to_owned();
    let accounts = &visit.server.accounts;
    let proved = accounts
        .check_password(&user_id, password, Share::Address(network))
        .await?;
    Ok(SignedIn { user_id, proved })
}

/// Makes an account for somebody.
async fn create(visit: &Visit, form: &Parameters) -> Result<SignedIn, Refusal> {
    let network = visit.address.for_limits();
    let budgets = &visit.server.budgets;
    budgets.spend(Budget::RegistrationRequests, network)?;
    budgets.spend(Budget::RegistrationsFromAddress, network)?;
    let password = form.get("password").unwrap_or_default();
    if form.get("again").unwrap_or_default() != password {
        return Err(Refusal::BadState("the passwords differ".into()));
    }
    let proof = match form.get("token") {
        Some(token) => Proof::RegistrationToken(token.trim().to_owned()),
        None => Proof::Dummy,
    };
    let wanted = NewAccount {
        localpart: Some(form.get("name").unwrap_or_default().trim().to_owned()),
        password: Some(password.to_owned()),
        device_id: None,
        from: network,
    };
    let attempt = Attempt { session: None, proof };
    let (made, proved) = visit.server.accounts.register(wanted, Some(attempt)).await?;
    Ok(SignedIn {
        user_id: made.user_id,
        proved,
    })
}
