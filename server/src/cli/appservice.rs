//! `maru appservice`: bridges and bots.

use clap::Subcommand;

use super::admin::{execute, print};
use super::{Failure, Flags};
use crate::admin::{AdminCommand, AppserviceCommand, AppserviceLine};

/// What to do with application services.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Show every application service: what it was sent, how far it is behind, what went wrong last
    List,
}

pub(super) async fn run(action: Action, flags: Flags) -> Result<(), Failure> {
    let Action::List = action;
    let config = flags.load()?.config;
    print(execute(&config, AdminCommand::Appservice(AppserviceCommand::List)).await?)
}

/// A service as some lines of text, the first with its id.
pub(super) fn lines(service: &AppserviceLine) -> Vec<String> {
    let mut lines = vec![format!("{} {}", service.id, service.sender)];
    let Some(url) = &service.url else {
        lines.push("  is sent nothing".to_owned());
        return lines;
    };
    let mut state = vec![
        url.clone(),
        format!("{} transactions", service.transactions),
        format!("lag {}", service.lag),
    ];
    state.extend(service.under_way.then(|| "one is not accepted yet".to_owned()));
    state.extend(service.paused.then(|| "PAUSED".to_owned()));
    state.extend((service.failures > 0).then(|| format!("{} failures in a row", service.failures)));
    lines.push(format!("  {}", state.join(", ")));
    let error = service.last_error.as_ref();
    lines.extend(error.map(|error| format!("  last error: {error}")));
    lines
}
