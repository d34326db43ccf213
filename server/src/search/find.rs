//! Pages of results, by time or by rank, and the groups that they fall into.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maru_protocol::event::Event;
use ruma::UserId;

use super::Search;
use super::analysis::Query;
use super::candidates::Looking;
use super::page::{Group, Order, Page};
use crate::refusal::Refusal;
use crate::rooms::timeline::client_event_format::VisibleEvent;
use crate::store::search::{DocumentKey, Subject};
use crate::sync::EventFilter;

/// What somebody wants to find.
#[derive(Clone, Debug)]
pub struct Wish {
    /// What stands in it.
    pub query: Arc<Query>,
    /// In what of an event.
    pub subjects: BTreeSet<Subject>,
    /// Which events.
    pub filter: EventFilter,
    /// How many results on a page, [`MOST_RESULTS`](super::MOST_RESULTS) at most.
    pub limit: usize,
    /// By what the results are grouped.
    pub by_room: bool,
    /// By what the results are grouped.
    pub by_sender: bool,
}

/// A result.
#[derive(Clone, Debug)]
pub struct Hit {
    /// The event.
    pub seen: VisibleEvent,
    /// How well it fits, higher is better.
    pub score: f64,
    pub(super) key: DocumentKey,
}

/// A page of results.
#[derive(Debug, Default)]
pub struct Found {
    /// The results, in the order that was asked for.
    pub hits: Vec<Hit>,
    /// How many results are known: those of earlier pages, those of this one, and those that were found on the way.
    pub count: u64,
    /// Where to go on, if there may be more; also where this page is empty, since one request looks at so much only.
    pub next: Option<Page>,
    /// The groups that the results fall into.
    pub groups: BTreeMap<Group, Grouped>,
}

/// The results of a group.
#[derive(Debug, Default)]
pub struct Grouped {
    /// Those on this page, by their places in it.
    pub hits: Vec<usize>,
    /// Where to go on with those of this group alone.
    pub next: Option<Page>,
}

impl Wish {
    /// Whether an event is wanted.
    pub(super) fn wants(&self, event: &Event) -> bool {
        self.filter.wants_event(event)
    }

    /// Who may have sent what is found; none for anybody.
    pub(super) fn senders(&self, page: &Page) -> Option<Vec<String>> {
        let wanted = |sender: &String| {
            self.filter
                .senders
                .as_ref()
                .is_none_or(|all| all.contains(sender))
        };
        match &page.group {
            Some(Group::Sender(sender)) => Some(Some(sender.clone()).into_iter().filter(wanted).collect()),
            _ => self
                .filter
                .senders
                .as_ref()
                .map(|all| all.iter().cloned().collect()),
        }
    }

    /// The groups that an event falls into.
    fn groups_of(&self, event: &Event) -> impl Iterator<Item = Group> {
        let room = self.by_room.then(|| Group::Room(event.room_id.to_string()));
        let sender = self.by_sender.then(|| Group::Sender(event.sender.to_string()));
        room.into_iter().chain(sender)
    }
}

impl Search {
    /// A page of results. Costs grow with the candidates that are looked at: their number, their bytes and the time are
    /// bounded, and where a bound is reached before the page is full, it says where to go on.
    ///
    /// # Errors
    /// [`Refusal::InvalidParam`] when the index needs too long; otherwise when the database cannot be read.
    pub async fn find(&self, user_id: &UserId, wish: &Wish, page: Page) -> Result<Found, Refusal> {
        let Some(looking) = Looking::begin(self, user_id, wish, &page).await? else {
            return Ok(Found::default());
        };
        match page.order {
            Order::Recent => find_recent(looking, wish, page).await,
            Order::Rank => find_best(looking, wish, page).await,
        }
    }
}

async fn find_recent(mut looking: Looking<'_>, wish: &Wish, page: Page) -> Result<Found, Refusal> {
    let mut hits = Vec::new();
    while hits.len() <= wish.limit && !looking.is_spent() {
        hits.extend(looking.next().await?);
    }
    let known = page.count + hits.len() as u64;
    let is_cut = hits.len() > wish.limit;
    hits.truncate(wish.limit);
    let last = if is_cut {
        hits.last().map(|hit| hit.key)
    } else {
        looking.reached()
    };
    let next = (is_cut || !looking.is_over).then(|| Page {
        before: last,
        count: page.count + hits.len() as u64,
        ..page
    });
    let groups = grouped(wish, &hits, next.as_ref(), |_| 0);
    Ok(Found {
        hits,
        count: known,
        next,
        groups,
    })
}

async fn find_best(mut looking: Looking<'_>, wish: &Wish, page: Page) -> Result<Found, Refusal> {
    let mut ranked = Vec::new();
    while !looking.is_spent() {
        ranked.extend(looking.next().await?);
    }
    ranked.sort_by(|one: &Hit, other: &Hit| other.score.total_cmp(&one.score).then(other.key.cmp(&one.key)));
    let known = page.count + ranked.len() as u64;
    // What was ranked together before ends where it ended then.
    let end = page
        .ranked
        .or_else(|| Some((looking.reached()?, looking.is_over)));
    let shown = page.skip.saturating_add(wish.limit).min(ranked.len());
    let is_cut = shown < ranked.len();
    let next = match end {
        Some((_, is_all)) if !is_cut && is_all => None,
        Some((last, _)) if !is_cut => Some(Page {
            before: Some(last),
            ranked: None,
            skip: 0,
            count: known,
            ..page.clone()
        }),
        end => is_cut.then(|| Page {
            ranked: end,
            skip: shown,
            ..page.clone()
        }),
    };
    let hits = ranked
        .get(page.skip.min(shown)..shown)
        .unwrap_or_default()
        .to_vec();
    let before = |group: &Group| {
        let known = ranked.iter().take(shown);
        known
            .filter(|hit| wish.groups_of(&hit.seen.stored.event).any(|of| of == *group))
            .count()
    };
    let groups = grouped(
        wish,
        &hits,
        next.as_ref(),
        |group| if is_cut { before(group) } else { 0 },
    );
    Ok(Found {
        hits,
        count: known,
        next,
        groups,
    })
}

/// The groups that some results fall into. `skip` says how many of a group have been shown of those that are ranked together.
fn grouped(
    wish: &Wish,
    hits: &[Hit],
    next: Option<&Page>,
    skip: impl Fn(&Group) -> usize,
) -> BTreeMap<Group, Grouped> {
    let mut groups: BTreeMap<Group, Grouped> = BTreeMap::new();
    for (place, hit) in hits.iter().enumerate() {
        for group in wish.groups_of(&hit.seen.stored.event) {
            groups.entry(group).or_default().hits.push(place);
        }
    }
    for (group, grouped) in &mut groups {
        grouped.next = next.map(|next| Page {
            skip: skip(group),
            group: Some(group.clone()),
            ..next.clone()
        });
    }
    groups
}
