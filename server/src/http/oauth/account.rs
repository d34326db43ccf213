//! The account page (client-server API, "Account management URL discovery"): what clients send their users to do here, because it
//! takes a proof of who they are.

use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::form::PageForm;
use super::pages::{problem, sent_on};
use super::sign_in::{self, Occasion, prove};
use super::visit::Visit;
use crate::accounts::Share;
use crate::http::router::Routes;
use crate::limits::Budget;
use crate::oauth::{Parameters, SignedIn};
use crate::refusal::Refusal;
use crate::store::accounts::devices::{Devices, StoredDevice};

const PATH: &str = "/account";

/// What clients may send people here for, by the names of the specification and by those before it.
pub(super) const ACTIONS: [&str; 9] = [
    "org.matrix.profile",
    "org.matrix.devices_list",
    "org.matrix.device_view",
    "org.matrix.device_delete",
    "org.matrix.account_deactivate",
    "org.matrix.cross_signing_reset",
    "org.matrix.sessions_list",
    "org.matrix.session_view",
    "org.matrix.session_end",
];

/// What was done, as the page says it after it was.
const DONE: [&str; 4] = ["done_name", "done_password", "done_signed_out", "done_reset"];

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    Everything,
    Profile,
    Devices,
    Device,
    Deactivate,
    Reset,
}

impl View {
    fn of(action: Option<&str>) -> Self {
        match action {
            Some("org.matrix.profile") => Self::Profile,
            Some("org.matrix.devices_list" | "org.matrix.sessions_list") => Self::Devices,
            Some(
                "org.matrix.device_view"
                | "org.matrix.device_delete"
                | "org.matrix.session_view"
                | "org.matrix.session_end",
            ) => Self::Device,
            Some("org.matrix.account_deactivate") => Self::Deactivate,
            Some("org.matrix.cross_signing_reset") => Self::Reset,
            _ => Self::Everything,
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Self::Everything => "account",
            Self::Profile => "profile",
            Self::Devices => "devices",
            Self::Device => "device",
            Self::Deactivate => "deactivate",
            Self::Reset => "reset",
        }
    }
}

pub(super) fn routes() -> Routes {
    Routes::new()
        .serve(Method::GET, PATH, show)
        .serve(Method::POST, PATH, act)
}

async fn show(visit: Visit) -> Response {
    let Some(who) = &visit.signed_in else {
        return sign_in::page(&visit, &Occasion::default()).await;
    };
    match values(&visit, who).await {
        Ok(values) => visit.page(StatusCode::OK, "account.html", values, None),
        Err(refusal) => visit.failed(&refusal),
    }
}

async fn values(visit: &Visit, who: &SignedIn) -> Result<Value, Refusal> {
    let view = View::of(visit.query.get("action"));
    let has = |of: View| view == of || view == View::Everything;
    let display_name = match has(View::Profile) {
        true => visit
            .server
            .accounts
            .profile(&who.user_id)
            .await?
            .remove("displayname"),
        false => None,
    };
    let devices = match has(View::Devices) || view == View::Device {
        true => Some(devices(visit, who, view).await?),
        false => None,
    };
    let done = visit.query.get("done").filter(|done| DONE.contains(done));
    Ok(json!({
        "heading": view.heading(),
        "user": who.user_id,
        "profile": has(View::Profile),
        "display_name": display_name.as_ref().and_then(Value::as_str).unwrap_or_default(),
        "devices": devices,
        "reset": view == View::Reset && done.is_none(),
        "deactivate": view == View::Deactivate,
        "done": done,
    }))
}

async fn devices(visit: &Visit, who: &SignedIn, view: View) -> Result<Vec<Value>, Refusal> {
    let mut devices = visit.server.accounts.devices(&who.user_id).await?;
    if view == View::Device {
        let wanted = visit.query.get("device_id").unwrap_or_default();
        devices.retain(|device| device.device_id == wanted);
    }
    Ok(devices.into_iter().map(shown).collect())
}

fn shown(device: StoredDevice) -> Value {
    json!({
        "id": device.device_id,
        "name": device.display_name,
        "seen": device.last_seen_at.map(time),
        "address": device.last_seen_address,
    })
}

/// A time as everybody reads it, in UTC to the minute.
fn time(milliseconds: i64) -> String {
    let minutes = milliseconds.div_euclid(60_000);
    let (days, minute) = (minutes.div_euclid(1440), minutes.rem_euclid(1440));
    // The Gregorian calendar, counted from the first of March of the year 0.
    let day = days + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!(
        "{year}-{month:02}-{day:02} {:02}:{:02} UTC",
        minute / 60,
        minute % 60
    )
}

async fn act(visit: Visit, PageForm(form): PageForm) -> Result<Response, Response> {
    visit.check(&form)?;
    if let Some(response) = sign_in::step(&visit, &form, &Occasion::default()).await {
        return Ok(response);
    }
    let Some(who) = &visit.signed_in else {
        return Ok(sign_in::page(&visit, &Occasion::default()).await);
    };
    let done = match form.get("step") {
        Some("rename") => rename(&visit, who, &form).await,
        Some("sign_out_device") => sign_out_device(&visit, who, &form).await,
        Some("change_password") => change_password(&visit, who, &form).await,
        Some("allow_reset") => allow_reset(&visit, who, &form).await,
        Some("deactivate") => deactivate(&visit, who, &form).await,
        _ => return Ok(show(visit).await),
    };
    Ok(match done {
        Ok(response) => response,
        Err(refusal) => refused(&visit, who, &refusal).await,
    })
}

async fn refused(visit: &Visit, who: &SignedIn, refusal: &Refusal) -> Response {
    let mut values = match values(visit, who).await {
        Ok(values) => values,
        Err(refusal) => return visit.failed(&refusal),
    };
    values["problem"] = match refusal {
        Refusal::Forbidden(_) => json!("wrong_own_password"),
        Refusal::BadState(_) => json!("passwords_differ"),
        Refusal::MissingParam(_) => json!("not_sure"),
        refusal => json!(problem(refusal)),
    };
    visit.page_with("account.html", values, refusal)
}

/// Spends a change of the account.
fn spend(visit: &Visit, who: &SignedIn) -> Result<(), Refusal> {
    Ok(visit.server.budgets.spend(Budget::AccountChanges, &who.user_id)?)
}

fn done(visit: &Visit, what: &str) -> Response {
    sent_on(&visit.here_with("done", Some(what)))
}

async fn rename(visit: &Visit, who: &SignedIn, form: &Parameters) -> Result<Response, Refusal> {
    visit.server.budgets.spend(Budget::ProfileChanges, &who.user_id)?;
    let name = form.get("display_name").unwrap_or_default().trim();
    let set = visit
        .server
        .accounts
        .set_profile_field(&who.user_id, "displayname", Some(json!(name)));
    set.await?;
    Ok(done(visit, "done_name"))
}

async fn sign_out_device(visit: &Visit, who: &SignedIn, form: &Parameters) -> Result<Response, Refusal> {
    spend(visit, who)?;
    let device = form.get("device_id").unwrap_or_default().to_owned();
    let accounts = &visit.server.accounts;
    let removed = accounts.remove_devices(&who.user_id, Devices::These(vec![device]), Some(who.proved));
    removed.await?;
    Ok(done(visit, "done_signed_out"))
}

/// Another password; whoever is signed in elsewhere on these pages is signed out by it.
async fn change_password(visit: &Visit, who: &SignedIn, form: &Parameters) -> Result<Response, Refusal> {
    spend(visit, who)?;
    let new = form.get("new_password").unwrap_or_default();
    if form.get("again").unwrap_or_default() != new {
        return Err(Refusal::BadState("the passwords differ".into()));
    }
    let proved = prove(visit, who.user_id.clone(), form).await?.proved;
    let log_out = match form.get("sign_out_devices") {
        Some(_) => Devices::All,
        None => Devices::These(Vec::new()),
    };
    let accounts = &visit.server.accounts;
    let set = accounts.set_password(&who.user_id, new.to_owned(), Some(proved), log_out);
    set.await?;
    // Signed in anew: what was proved before is worth nothing any more.
    let share = Share::Account(who.user_id.clone());
    let proved = accounts
        .check_password(&who.user_id, new.to_owned(), share)
        .await?;
    let who = SignedIn {
        user_id: who.user_id.clone(),
        proved,
    };
    let cookie = visit.sign_in(&who).await?;
    let to = visit.here_with("done", Some("done_password"));
    Ok(visit.sent_on_as(&to, &cookie))
}

async fn allow_reset(visit: &Visit, who: &SignedIn, form: &Parameters) -> Result<Response, Refusal> {
    spend(visit, who)?;
    let proved = prove(visit, who.user_id.clone(), form).await?.proved;
    visit.oauth.allow_reset(&who.user_id, proved).await?;
    Ok(done(visit, "done_reset"))
}

async fn deactivate(visit: &Visit, who: &SignedIn, form: &Parameters) -> Result<Response, Refusal> {
    spend(visit, who)?;
    if form.get("sure").is_none() {
        return Err(Refusal::MissingParam("sure is missing".into()));
    }
    let proved = prove(visit, who.user_id.clone(), form).await?.proved;
    let erase = form.get("erase").is_some();
    let accounts = &visit.server.accounts;
    accounts.deactivate(&who.user_id, Some(proved), erase).await?;
    let values = json!({ "heading": "closed", "text": "closed_text" });
    Ok(visit.page(StatusCode::OK, "message.html", values, None))
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (milliseconds, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399_999, "2000-02-28 23:59 UTC"),
            (951_782_400_000, "2000-02-29 00:00 UTC"),
            (1_709_251_200_000, "2024-03-01 00:00 UTC"),
            (1_798_761_599_999, "2026-12-31 23:59 UTC"),
            (-60_000, "1969-12-31 23:59 UTC"),
        ] {
            assert_eq!(time(milliseconds), text);
        }
    }
}
