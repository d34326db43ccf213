//! The public directory (client-server API, "Published room directory").

use std::cmp::Reverse;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use ruma::UserId;
use ruma::room::RoomSummary;

use crate::refusal::Refusal;
use crate::rooms::{Room, RoomRepository, Summaries};
use crate::store::Store;
use crate::store::rooms::StoredRoom;

/// Most rooms of one answer.
const LONGEST_PAGE: usize = 500;

/// Which rooms of the directory somebody wants to see.
#[derive(Clone, Debug, Default)]
pub struct DirectoryQuery {
    /// Rooms whose name, topic or alias contains this, whatever the case.
    pub term: Option<String>,
    /// Rooms of these types, `None` for ordinary ones; empty for all.
    pub room_types: Vec<Option<String>>,
    /// How many.
    pub limit: Option<usize>,
    /// Where the page stands.
    pub from: PageToken,
}

/// Where a page of the directory stands among all rooms. On the wire a number: `12` is the page after the first twelve
/// rooms, `-12` the one that ends with the twelfth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageToken {
    /// After so many rooms.
    After(usize),
    /// The last ones among so many.
    UpTo(usize),
}

impl Default for PageToken {
    fn default() -> Self {
        Self::After(0)
    }
}

impl FromStr for PageToken {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let token = match text.strip_prefix('-') {
            Some(count) => count.parse().map(Self::UpTo),
            None => text.parse().map(Self::After),
        };
        token.map_err(|_| Refusal::invalid("since is not a token of this directory"))
    }
}

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(count) => write!(f, "{count}"),
            Self::UpTo(count) => write!(f, "-{count}"),
        }
    }
}

impl DirectoryQuery {
    fn has_filter(&self) -> bool {
        self.term.is_some() || !self.room_types.is_empty()
    }

    fn wants(&self, room: &RoomSummary) -> bool {
        let contains =
            |text: Option<&str>, term: &str| text.is_some_and(|text| text.to_lowercase().contains(term));
        let found = self.term.as_ref().is_none_or(|term| {
            let term = term.to_lowercase();
            let alias = room.canonical_alias.as_ref().map(|alias| alias.as_str());
            contains(room.name.as_deref(), &term)
                || contains(room.topic.as_deref(), &term)
                || contains(alias, &term)
        });
        let room_type = room.room_type.as_ref().map(|kind| kind.as_str().to_owned());
        found && (self.room_types.is_empty() || self.room_types.contains(&room_type))
    }

    /// The part of a list of `total` rooms that is asked for.
    fn page(&self, total: usize) -> Range<usize> {
        let limit = self.limit.unwrap_or(LONGEST_PAGE).min(LONGEST_PAGE);
        match self.from {
            PageToken::After(from) => {
                let from = from.min(total);
                from..from.saturating_add(limit).min(total)
            }
            PageToken::UpTo(to) => {
                let to = to.min(total);
                to.saturating_sub(limit)..to
            }
        }
    }
}

/// A part of the directory, largest rooms first.
#[derive(Clone, Debug)]
pub struct DirectoryPage {
    /// The rooms.
    pub rooms: Vec<RoomSummary>,
    /// How many rooms there are in all.
    pub total: usize,
    /// Where they stand among all.
    pub range: Range<usize>,
}

impl DirectoryPage {
    /// The page after this one, if there is more.
    #[must_use]
    pub fn next(&self) -> Option<PageToken> {
        (self.range.end < self.total).then_some(PageToken::After(self.range.end))
    }

    /// The page before this one, if there is one.
    #[must_use]
    pub fn previous(&self) -> Option<PageToken> {
        (self.range.start > 0).then_some(PageToken::UpTo(self.range.start))
    }
}

/// The directory of published rooms.
#[derive(Debug)]
pub struct Directory {
    pub(in crate::rooms) store: Arc<Store>,
    pub(in crate::rooms) repository: Arc<RoomRepository>,
    pub(in crate::rooms) summaries: Arc<Summaries>,
}

impl Directory {
    /// A page of the public directory.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn page(&self, asked: &DirectoryQuery) -> Result<DirectoryPage, Refusal> {
        let mut published = self.store.rooms.published_rooms().await?;
        let heads = self.repository.heads(&published).await?;
        let size = |room: &StoredRoom| heads.get(&room.nid).map_or(0, |head| head.joined);
        published.sort_by_key(|room| (Reverse(size(room)), room.nid));
        if asked.has_filter() {
            let mut rooms = self.summaries.of_rooms(&published, &heads).await?;
            rooms.retain(|room| asked.wants(room));
            let (total, range) = (rooms.len(), asked.page(rooms.len()));
            rooms.truncate(range.end);
            rooms.drain(..range.start);
            return Ok(DirectoryPage { rooms, total, range });
        }
        let (total, range) = (published.len(), asked.page(published.len()));
        let rooms = self
            .summaries
            .of_rooms(published.get(range.clone()).unwrap_or_default(), &heads)
            .await?;
        Ok(DirectoryPage { rooms, total, range })
    }

    /// Whether a room is listed in the directory.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn is_published(&self, room: &Room) -> Result<bool, Refusal> {
        let stored = self.store.rooms.room_by_nid(room.nid).await?;
        Ok(stored.is_some_and(|stored| stored.published))
    }

    /// Lists a room in the directory, or takes it out.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] for those who may not name the room.
    pub async fn publish(&self, room: &Room, user_id: &UserId, published: bool) -> Result<(), Refusal> {
        let may = room.is_joined(user_id)
            && self
                .repository
                .power_levels(room)
                .await?
                .may_send(user_id, "m.room.canonical_alias", true);
        let may = may
            || self
                .store
                .accounts
                .user(user_id)
                .await?
                .is_some_and(|user| user.admin);
        if !may {
            return Err(Refusal::forbidden("you may not change how this room is listed"));
        }
        Ok(self.store.rooms.set_published(room.nid, published).await?)
    }
}

#[cfg(test)]
mod tests {
    use ruma::room::JoinRuleSummary;
    use ruma::{owned_room_id, uint};

    use crate::rooms::discovery::directory::*;

    fn room(name: &str, room_type: Option<&str>) -> RoomSummary {
        let id = owned_room_id!("!a:example.org");
        let mut room = RoomSummary::new(id, JoinRuleSummary::Public, false, uint!(1), false);
        room.name = Some(name.to_owned());
        room.room_type = room_type.map(Into::into);
        room
    }

    #[test]
    fn a_filter_asks_for_words_and_types() {
        let term = |term: &str| DirectoryQuery {
            term: Some(term.to_owned()),
            ..DirectoryQuery::default()
        };
        assert!(term("tea").wants(&room("The TEA room", None)));
        assert!(!term("coffee").wants(&room("The TEA room", None)));
        let spaces = DirectoryQuery {
            room_types: vec![Some("m.space".to_owned())],
            ..DirectoryQuery::default()
        };
        assert!(spaces.wants(&room("a", Some("m.space"))));
        assert!(!spaces.wants(&room("a", None)));
    }

    #[test]
    fn pages_stay_within_the_list() {
        let page = |from: &str, limit| {
            DirectoryQuery {
                from: from.parse().unwrap(),
                limit,
                ..DirectoryQuery::default()
            }
            .page(10)
        };
        assert_eq!(page("0", Some(3)), 0..3);
        assert_eq!(page("9", Some(3)), 9..10);
        assert_eq!(page("99", None), 10..10);
        assert_eq!(page("0", Some(usize::MAX)), 0..10);
        assert_eq!(page("-9", Some(3)), 6..9);
        assert_eq!(page("-2", Some(3)), 0..2);
        assert_eq!(page("-99", Some(3)), 7..10);
    }

    #[test]
    fn a_token_is_a_number() {
        for token in [PageToken::After(0), PageToken::After(12), PageToken::UpTo(12)] {
            assert_eq!(token.to_string().parse::<PageToken>().unwrap(), token);
        }
        for odd in ["", "-", "--1", "x", "1.5"] {
            assert!(odd.parse::<PageToken>().is_err(), "{odd}");
        }
    }
}
