//! Budgets of requests: what the row of an endpoint says is spent when it is known who calls, before the body is read.

use std::sync::Arc;

use axum::http::Extensions;

use crate::accounts::Caller;
use crate::appservice_registrations::Registration;
use crate::http::transport::client_address::ClientAddress;
use crate::limits::spending::Spending;
use crate::limits::{Budget, By};
use crate::refusal::Refusal;
use crate::server::Server;

/// Who spends what a request costs.
#[derive(Clone, Copy, Debug)]
pub enum Spender<'c> {
    /// Whoever calls from the address.
    Stranger,
    /// A user.
    Account(&'c Caller),
    /// An application service that acts as nobody in particular.
    Service(&'c Registration),
}

impl Spender<'_> {
    /// Whether it is known who calls.
    pub(in crate::http) fn is_known(self) -> bool {
        !matches!(self, Self::Stranger)
    }

    /// Whether the admin has said that nothing is to be spent.
    fn is_exempt(self) -> bool {
        match self {
            Self::Stranger => false,
            Self::Account(caller) => !caller.is_rate_limited(),
            Self::Service(service) => !service.rate_limited,
        }
    }
}

/// Spends what a request costs its caller or, where nobody needs to be logged in, the address that it comes from.
pub(in crate::http) fn spend(
    server: &Arc<Server>,
    extensions: &Extensions,
    spender: Spender<'_>,
) -> Result<(), Refusal> {
    let Some(spending) = extensions.get::<&'static Spending>() else {
        return Ok(());
    };
    if spender.is_exempt() {
        return Ok(());
    }
    for budget in spending.each {
        match (budget.by(), spender) {
            (By::Account, Spender::Account(caller)) => server.budgets.spend(*budget, &caller.user_id)?,
            (By::Account, Spender::Service(service)) => server.budgets.spend(*budget, &service.sender)?,
            _ => {
                let address = extensions.get::<ClientAddress>().copied().unwrap_or_default();
                server.budgets.spend(*budget, address.for_limits())?;
            }
        }
    }
    Ok(())
}

/// Spends several of what a caller's account has of a budget, by what a request says.
pub(in crate::http) fn spend_by_content(
    server: &Server,
    budget: Budget,
    caller: &Caller,
    count: u32,
) -> Result<(), Refusal> {
    match caller.is_rate_limited() {
        true => Ok(server.budgets.spend_several(budget, &caller.user_id, count)?),
        false => Ok(()),
    }
}
