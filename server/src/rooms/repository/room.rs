//! One room in memory: its newest head for builders, its committed head for everybody else, and its members.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use maru_protocol::cursor::Position;
use maru_protocol::version::RoomVersion;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, UserId};
use tokio::sync::Semaphore;

use crate::store::log::HeadTicket;
use crate::store::rooms::{Membership, RoomHead};

/// Events of one room that may be on their way to the disk at once; more builders wait.
pub(in crate::rooms) const BUILDS_IN_FLIGHT: u32 = 512;

/// A room that this server takes part in. Its facts never change; its heads do.
#[derive(Debug)]
pub struct Room {
    /// Its local number (rooms.nid).
    pub nid: i64,
    /// Its id.
    pub room_id: OwnedRoomId,
    /// Its version.
    pub version: RoomVersion,
    /// Largest event, in bytes, by the mark in its create event.
    pub max_event_bytes: usize,
    /// Bounds the builds in flight.
    pub(in crate::rooms) builds: Semaphore,
    /// Held by who puts a page into the past, and shared by who reads there, so that nobody reads half a page.
    pub(in crate::rooms) past: tokio::sync::RwLock<()>,
    /// Whether a gap was opened that nobody has begun to fill.
    has_new_gap: AtomicBool,
    newest: Mutex<Newest>,
    generation: Arc<AtomicU64>,
    committed: RwLock<Arc<RoomHead>>,
    members: RwLock<HashSet<OwnedUserId>>,
}

/// The head that builders see, uncommitted events included.
#[derive(Debug)]
struct Newest {
    head: Arc<RoomHead>,
    generation: u64,
    /// When the last event of this server was made here, by its own account.
    last_made: u64,
}

/// The exclusive right to build on a room's newest head. Held for moments: nothing may wait under it.
#[derive(Debug)]
pub(in crate::rooms) struct BuildLock<'r> {
    room: &'r Room,
    newest: MutexGuard<'r, Newest>,
}

impl BuildLock<'_> {
    /// The head to build on.
    pub(in crate::rooms) fn head(&self) -> &Arc<RoomHead> {
        &self.newest.head
    }

    /// Ties a change to this head.
    pub(in crate::rooms) fn ticket(&self) -> HeadTicket {
        HeadTicket {
            built_on: self.newest.generation,
            current: Arc::clone(&self.room.generation),
        }
    }

    /// When an event is made that is built here at this time: later than every event that this server has made in the room,
    /// also where the clock was set back since. State resolution puts the older of two events first where nothing else
    /// does, so two of one millisecond could win in either order.
    pub(in crate::rooms) fn stamp(&mut self, now_ms: u64) -> u64 {
        self.newest.last_made = now_ms.max(self.newest.last_made + 1);
        self.newest.last_made
    }

    /// Makes `head`, whose change is on its way to the disk, the newest.
    pub(in crate::rooms) fn advance(mut self, head: Arc<RoomHead>) {
        self.newest.head = head;
    }
}

impl Room {
    /// A room with its committed head and its joined members.
    pub(in crate::rooms) fn new(
        room_id: OwnedRoomId,
        version: RoomVersion,
        max_event_bytes: usize,
        head: RoomHead,
        members: HashSet<OwnedUserId>,
    ) -> Self {
        let head = Arc::new(head);
        Self {
            nid: head.room,
            room_id,
            version,
            max_event_bytes,
            builds: Semaphore::new(BUILDS_IN_FLIGHT as usize),
            past: tokio::sync::RwLock::default(),
            has_new_gap: AtomicBool::new(false),
            newest: Mutex::new(Newest {
                head: Arc::clone(&head),
                generation: 0,
                last_made: 0,
            }),
            generation: Arc::new(AtomicU64::new(0)),
            committed: RwLock::new(head),
            members: RwLock::new(members),
        }
    }

    /// The head as it is on disk: what readers, peers and joins see.
    pub fn head(&self) -> Arc<RoomHead> {
        Arc::clone(&self.committed.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The head that the next event will be built on.
    pub(in crate::rooms) fn newest(&self) -> Arc<RoomHead> {
        Arc::clone(self.lock().head())
    }

    /// Locks the newest head for building. After a failed commit, what was built on it is forgotten here.
    pub(in crate::rooms) fn lock(&self) -> BuildLock<'_> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.generation.load(Ordering::Acquire);
        if newest.generation != generation {
            newest.head = self.head();
            newest.generation = generation;
        }
        BuildLock { room: self, newest }
    }

    /// Whether an event that was built on it may still be on its way to the disk.
    pub(in crate::rooms) fn is_being_built_on(&self) -> bool {
        Arc::strong_count(&self.generation) > 1
    }

    /// Notes that something is missing before an event that comes.
    pub(in crate::rooms) fn opened_gap(&self) {
        self.has_new_gap.store(true, Ordering::Release);
    }

    /// Whether something is missing that was not when this was last asked.
    pub fn take_new_gap(&self) -> bool {
        self.has_new_gap.swap(false, Ordering::AcqRel)
    }

    /// Whether a user is joined, by the committed state.
    pub fn is_joined(&self, user_id: &UserId) -> bool {
        self.members
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(user_id)
    }

    /// Calls `each` for every joined user. Costs grow with the members.
    pub fn for_each_member(&self, mut each: impl FnMut(&UserId)) {
        self.members
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .for_each(|user_id| each(user_id));
    }

    /// A joined user of whom `is` is true, if there is one. Costs grow with the members.
    pub fn find_member(&self, mut is: impl FnMut(&UserId) -> bool) -> Option<OwnedUserId> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        members.iter().find(|user_id| is(user_id)).cloned()
    }

    /// How many users are joined.
    pub fn member_count(&self) -> usize {
        self.members.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Takes over a head that has become durable at a position.
    pub(crate) fn commit_head(&self, head: &RoomHead, position: Position) {
        let head = RoomHead {
            position,
            ..head.clone()
        };
        let mut committed = self.committed.write().unwrap_or_else(PoisonError::into_inner);
        // One that was read from the database may be newer: another node was faster than this one could show its own.
        if head.position >= committed.position {
            *committed = Arc::new(head);
        }
    }

    /// Takes over a head that another node has made durable, as it was read from the database. What has been built here on
    /// the head before is built again.
    pub(crate) fn follow_head(&self, head: RoomHead) {
        let mut committed = self.committed.write().unwrap_or_else(PoisonError::into_inner);
        if head.position > committed.position {
            let servers = Arc::clone(&committed.servers);
            *committed = Arc::new(RoomHead { servers, ..head });
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Counts the servers of the head again, after memberships that another node has made durable have been taken over.
    /// Costs grow with the members.
    pub(crate) fn follow_members(&self) {
        let servers = self.count_servers();
        let mut committed = self.committed.write().unwrap_or_else(PoisonError::into_inner);
        let head = (**committed).clone();
        *committed = Arc::new(RoomHead { servers, ..head });
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes over head and members as they were read from the database after this room was.
    pub(in crate::rooms) fn read_again(&self, head: RoomHead, members: HashSet<OwnedUserId>) {
        if head.position > self.head().position {
            *self.members.write().unwrap_or_else(PoisonError::into_inner) = members;
            self.follow_head(head);
            self.follow_members();
        }
    }

    /// Notes when another node has made an event of this server in the room: those that are made here are later.
    pub(crate) fn note_made(&self, at_ms: u64) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.last_made = newest.last_made.max(at_ms);
    }

    /// Takes over a membership that has become durable.
    pub(crate) fn commit_membership(&self, membership: &Membership) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        if membership.membership == "join" {
            members.insert(membership.user_id.clone());
        } else {
            members.remove(&membership.user_id);
        }
    }

    /// How many joined users each server has.
    fn count_servers(&self) -> Arc<BTreeMap<OwnedServerName, u64>> {
        let mut servers = BTreeMap::new();
        self.for_each_member(|user_id| match servers.get_mut(user_id.server_name()) {
            Some(count) => *count += 1,
            None => drop(servers.insert(user_id.server_name().to_owned(), 1)),
        });
        Arc::new(servers)
    }
}
