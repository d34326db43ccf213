//! Sending many messages at once, and finding them again in the history.

use std::collections::HashSet;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::try_join_all;

use crate::error::LoadError;
use crate::exactly_once::{Marker, Tally};
use crate::matrix::{Page, Room, Session};
use crate::measure::Latencies;
use crate::scan::Field;

/// A message that the server has acknowledged.
#[derive(Debug)]
pub(crate) struct Acknowledged {
    /// The number in its marker.
    pub(crate) number: usize,
    /// The event id that the server gave.
    pub(crate) event_id: String,
}

/// Sends the messages 0 to `count` - 1: every sender one after the other, all senders at once, going round the rooms
/// that `rooms_of` gives them by the sender's index.
pub(crate) async fn send_all(
    senders: &mut [Session],
    rooms_of: &[Vec<&Room>],
    marker: &Marker,
    count: usize,
) -> Result<(Vec<Acknowledged>, Latencies), LoadError> {
    let step = senders.len();
    let shares = try_join_all(senders.iter_mut().zip(rooms_of).enumerate().map(
        async |(first, (sender, rooms))| {
            let numbers = (first..count).step_by(step).zip(rooms.iter().cycle());
            let mut share = Vec::with_capacity(count / step + 1);
            for (number, room) in numbers {
                let (transaction, text) = (format!("t{number}"), marker.text(number));
                let started = Instant::now();
                let event_id = sender.send(room, &transaction, &text).await?;
                share.push((Acknowledged { number, event_id }, started.elapsed()));
            }
            Ok::<_, LoadError>(share)
        },
    ));
    let (acknowledged, durations) = shares.await?.into_iter().flatten().unzip();
    Ok((acknowledged, Latencies::new(durations)))
}

/// The most that `/messages` is asked for at a time.
pub(crate) const PAGE: usize = 1000;

/// Reads the whole history backwards and returns the pages as they came.
pub(crate) async fn read_history(
    reader: &mut Session,
    room: &Room,
    limit: usize,
) -> Result<Vec<Bytes>, LoadError> {
    let end = Field::new("\"end\"");
    let (mut pages, mut from) = (Vec::new(), None::<String>);
    loop {
        let page = reader.messages(room, from.as_deref(), limit).await?;
        let next = end.of(&page).ok().map(str::to_owned);
        pages.push(page);
        // A server that gives the same token twice would have us page for ever.
        if next.is_none() || next == from {
            return Ok(pages);
        }
        from = next;
    }
}

/// Every event of the pages, parsed.
pub(crate) fn parse_pages(pages: &[Bytes]) -> Result<Vec<Page>, LoadError> {
    pages
        .iter()
        .map(|page| serde_json::from_slice(page).map_err(LoadError::json("/messages")))
        .collect()
}

/// Checks that the histories of the rooms together hold every acknowledged message exactly once, under the event id
/// it was acknowledged with, and no event twice.
pub(crate) fn verify_history(
    pages: &[Page],
    marker: &Marker,
    acknowledged: &[Acknowledged],
) -> Result<(), LoadError> {
    let (mut tally, mut ids) = (Tally::new(acknowledged.len()), HashSet::new());
    let mut expected = vec![""; acknowledged.len()];
    for message in acknowledged {
        if let Some(slot) = expected.get_mut(message.number) {
            *slot = &message.event_id;
        }
    }
    for event in pages.iter().flat_map(|page| &page.chunk) {
        if !ids.insert(event.event_id.as_str()) {
            return Err(LoadError::Verification(format!(
                "{} stands in the history twice",
                event.event_id
            )));
        }
        for number in marker.find(event.text().as_bytes()) {
            tally.note(number);
            if expected.get(number).is_some_and(|id| *id != event.event_id) {
                let id = &event.event_id;
                return Err(LoadError::Verification(format!(
                    "message {number} was acknowledged with another id than {id}"
                )));
            }
        }
    }
    tally.verdict().map_err(|discrepancy| LoadError::NotExactlyOnce {
        what: "/messages".into(),
        discrepancy,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(ids: &[&str]) -> Vec<Acknowledged> {
        ids.iter()
            .enumerate()
            .map(|(number, id)| Acknowledged {
                number,
                event_id: (*id).to_owned(),
            })
            .collect()
    }

    fn page(marker: &Marker, events: &[(&str, usize)]) -> Vec<Page> {
        let events: Vec<String> = events
            .iter()
            .map(|(id, number)| {
                let text = marker.text(*number);
                format!(r#"{{"event_id":"{id}","type":"m.room.message","content":{{"body":"{text}"}}}}"#)
            })
            .collect();
        parse_pages(&[Bytes::from(format!(r#"{{"chunk":[{}]}}"#, events.join(",")))]).unwrap()
    }

    #[test]
    fn history_is_right_only_if_every_acknowledged_message_is_there_once_under_its_id() {
        let marker = Marker::new("x");
        let sent = acknowledged(&["$a", "$b"]);
        let check = |events: &[(&str, usize)]| verify_history(&page(&marker, events), &marker, &sent);
        check(&[("$b", 1), ("$a", 0)]).unwrap();
        assert!(
            matches!(check(&[("$a", 0)]), Err(LoadError::NotExactlyOnce { .. })),
            "lost"
        );
        assert!(
            matches!(
                check(&[("$a", 0), ("$b", 1), ("$b", 1)]),
                Err(LoadError::Verification(_))
            ),
            "listed twice"
        );
        assert!(check(&[("$a", 0), ("$b", 1), ("$c", 1)]).is_err(), "stored twice");
        assert!(check(&[("$a", 0), ("$c", 1)]).is_err(), "another id");
        assert!(check(&[("$a", 0), ("$b", 1), ("$c", 2)]).is_err(), "never sent");
    }
}
