//! Budgets of requests: what the row of an endpoint says is spent when it is known who calls, before the body is read.

use std::sync::Arc;

use axum::http::Extensions;

use crate::accounts::Caller;
use crate::http::transport::client_address::ClientAddress;
use crate::limits::By;
use crate::limits::spending::Spending;
use crate::refusal::Refusal;
use crate::server::Server;

/// Spends what a request costs its caller or, where nobody needs to be logged in, the address that it comes from.
pub(in crate::http) fn spend(
    server: &Arc<Server>,
    extensions: &Extensions,
    caller: Option<&Caller>,
) -> Result<(), Refusal> {
    let Some(spending) = extensions.get::<&'static Spending>() else {
        return Ok(());
    };
    for budget in spending.each {
        match (budget.by(), caller) {
            (By::Account, Some(caller)) => server.budgets.spend(*budget, &caller.user_id)?,
            _ => {
                let address = extensions.get::<ClientAddress>().copied().unwrap_or_default();
                server.budgets.spend(*budget, address.for_limits())?;
            }
        }
    }
    Ok(())
}
