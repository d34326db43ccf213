//! Messages of the greatest length arrive as they were sent; one character more is refused.

use std::time::Instant;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::context::Context;
use crate::error::LoadError;
use crate::matrix::{Room, Session, read_json};
use crate::measure::{Latencies, Stopwatch};
use crate::report::Outcome;
use crate::traffic;

/// How long the messages are.
#[derive(Debug, Clone, Serialize, Args)]
pub(crate) struct Size {
    /// Characters that a message may have
    #[arg(long, default_value_t = 100_000)]
    pub(crate) characters: usize,
    /// Messages of each script
    #[arg(long, default_value_t = 20)]
    pub(crate) messages: usize,
}

/// One byte, three bytes, and four bytes for each character.
const SCRIPTS: [(&str, &str); 3] = [("ascii", "maru"), ("hangul", "마루는말"), ("emoji", "🦀")];

pub(super) async fn run(size: &Size, context: &Context, outcome: &mut Outcome) -> Result<(), LoadError> {
    let mut sessions = context.sessions(2).await?;
    let room = context.room(&mut sessions.iter_mut().collect::<Vec<_>>()).await?;
    let [sender, reader] = &mut sessions[..] else {
        return Err(LoadError::Usage("big needs two users".into()));
    };
    let stopwatch = Stopwatch::start(&context.watched)?;
    for (script, sample) in SCRIPTS {
        let mut latencies = Vec::new();
        for number in 0..size.messages {
            let text = text_of(sample, number, size.characters);
            let started = Instant::now();
            let event_id = send(sender, &room, &format!("{script}{number}"), &text).await?;
            latencies.push(started.elapsed());
            arrives(reader, &room, &event_id, &text).await?;
        }
        outcome.latencies(&format!("{script}_request"), &Latencies::new(latencies));
        refused(sender, &room, script, &text_of(sample, 0, size.characters + 1)).await?;
    }
    outcome.cpu(&stopwatch.usage()?, size.messages * SCRIPTS.len(), "message");

    // Each of the texts stands in the history once, and nothing that was refused does.
    let pages = traffic::parse_pages(&traffic::read_history(reader, &room, 10).await?)?;
    let mut found: Vec<&str> = pages
        .iter()
        .flat_map(|page| &page.chunk)
        .map(|event| event.text())
        .collect();
    found.retain(|text| !text.is_empty());
    let mut sent: Vec<String> = SCRIPTS
        .iter()
        .flat_map(|(_, sample)| (0..size.messages).map(|number| text_of(sample, number, size.characters)))
        .collect();
    found.sort_unstable();
    sent.sort_unstable();
    if found != sent {
        return Err(LoadError::Verification(
            "the history does not hold each long message exactly once".into(),
        ));
    }
    Ok(())
}

/// A text of exactly that many characters, beginning with its number.
fn text_of(sample: &str, number: usize, characters: usize) -> String {
    format!("{number} ")
        .chars()
        .chain(sample.chars().cycle())
        .take(characters)
        .collect()
}

async fn send(sender: &mut Session, room: &Room, transaction: &str, text: &str) -> Result<String, LoadError> {
    let answer = sender
        .try_send(room, transaction, &json!({ "msgtype": "m.text", "body": text }))
        .await?;
    let body = read_json("the answer to a long message", &answer.body)?;
    match body.get("event_id").and_then(|id| id.as_str()) {
        Some(event_id) if answer.status == 200 => Ok(event_id.to_owned()),
        _ => Err(LoadError::Status {
            request: "a long message".into(),
            status: answer.status,
            body: body.to_string(),
        }),
    }
}

async fn arrives(reader: &mut Session, room: &Room, event_id: &str, text: &str) -> Result<(), LoadError> {
    if reader.event(room, event_id).await?.text() == text {
        return Ok(());
    }
    Err(LoadError::Verification(format!(
        "{event_id} did not arrive as it was sent"
    )))
}

async fn refused(sender: &mut Session, room: &Room, script: &str, text: &str) -> Result<(), LoadError> {
    let content = json!({ "msgtype": "m.text", "body": text });
    let answer = sender.try_send(room, &format!("{script}-over"), &content).await?;
    let body = read_json("the answer to a message that is too long", &answer.body)?;
    let errcode = body.get("errcode").and_then(|errcode| errcode.as_str());
    if answer.status == 413 && errcode == Some("M_TOO_LARGE") {
        return Ok(());
    }
    let status = answer.status;
    Err(LoadError::Verification(format!(
        "one {script} character too many answered {status} {errcode:?}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_the_length_asked_for_and_differ() {
        for (_, sample) in SCRIPTS {
            assert_eq!(text_of(sample, 12, 100).chars().count(), 100);
            assert_ne!(text_of(sample, 1, 100), text_of(sample, 2, 100));
        }
    }
}
