//! `maru readers`: what follows the log by itself.

use clap::Subcommand;

use super::admin::{execute, print};
use super::{Failure, Flags};
use crate::admin::{AdminCommand, ReaderLine, ReadersCommand, SetAsideLine};

/// What to do with readers of the log.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Show every reader: where it stands, how far it is behind, what went wrong last
    List,
    /// Have a reader stop where it stands
    Pause {
        /// Its name
        name: String,
    },
    /// Have a reader go on
    Resume {
        /// Its name
        name: String,
    },
    /// Have a reader read again what stands after a position
    Rewind {
        /// Its name
        name: String,
        /// The position; 0 is the beginning
        position: i64,
        /// Go forward too, past what it has then never read
        #[arg(long)]
        skip: bool,
    },
    /// Show what a reader could not deal with and went past
    SetAside {
        /// Its name
        name: String,
    },
}

pub(super) async fn run(action: Action, flags: Flags) -> Result<(), Failure> {
    let command = match action {
        Action::List => ReadersCommand::List,
        Action::Pause { name } => ReadersCommand::Pause { name },
        Action::Resume { name } => ReadersCommand::Resume { name },
        Action::Rewind { name, position, skip } => ReadersCommand::Rewind { name, position, skip },
        Action::SetAside { name } => ReadersCommand::SetAside { name },
    };
    let config = flags.load()?.config;
    print(execute(&config, AdminCommand::Readers(command)).await?)
}

/// A reader as some lines of text, the first with its name.
pub(super) fn lines(reader: &ReaderLine) -> Vec<String> {
    let mut state = vec![
        format!("position {}", reader.position),
        format!("lag {}", reader.lag),
        format!("{} records", reader.records),
    ];
    let building = |nid| format!("reads the stored events, dealt with up to number {nid}");
    state.extend(reader.building.map(building));
    state.extend(reader.paused.then(|| "PAUSED".to_owned()));
    state.extend((reader.failures > 0).then(|| format!("{} failures in a row", reader.failures)));
    state.extend((reader.set_aside > 0).then(|| format!("{} set aside", reader.set_aside)));
    let mut lines = vec![reader.reader.clone(), format!("  {}", state.join(", "))];
    let error = reader.last_error.as_ref();
    lines.extend(error.map(|error| format!("  last error: {error}")));
    lines
}

/// What was set aside as one line of text.
pub(super) fn set_aside_line(record: &SetAsideLine) -> String {
    let SetAsideLine {
        reader,
        position,
        records,
        why,
        at,
    } = record;
    format!("{reader} position {position} ({records}), set aside at {at}: {why}")
}
