//! How a replica goes on to a join that another server has accepted (`spec/federation.md`, "Joining and leaving").
//!
//! A replica that its server has left is not thrown away: what was said meanwhile is fetched, and what it alone may know
//! stays where the others find it. Only one that is not there, or whose history since then cannot be had, begins anew with
//! the told state. Pure: the server and the simulation ask for the next [`Step`] and take it.

use ruma::ServerName;

use crate::destinations::Census;

/// What a room is to its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has no replica of it.
    Unknown,
    /// It has one, and no user in the room. What peers say of the room is not for it.
    Outside,
    /// It has a user in the room.
    Inside,
}

impl Standing {
    /// Of a server whose replica counts the members of each server, if it has one.
    #[must_use]
    pub fn of(own: &ServerName, census: Option<&Census>) -> Self {
        match census {
            None => Self::Unknown,
            Some(census) if census.contains_key(own) => Self::Inside,
            Some(_) => Self::Outside,
        }
    }
}

/// Whether a replica fetches what leads to the extremities that a peer tells: a peer tells them to whom it counts in. Where
/// the two do not agree on that, one of them lacks something, and only what the other has settles it. A server that has left
/// heeds those whom it knows to be in the room or to [have been](crate::destinations) there (they may have come back by what it
/// does not know), and nobody else.
#[must_use]
pub fn heeds(own: &ServerName, census: Option<&Census>, peer: &ServerName, was_in: bool) -> bool {
    match Standing::of(own, census) {
        Standing::Unknown => false,
        Standing::Outside => was_in || census.is_some_and(|census| census.contains_key(peer)),
        Standing::Inside => true,
    }
}

/// What is to be done for a join that another server has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take it into the replica after all that it names, then ask [`Step::after`]. Where the server is outside, the join
    /// counts as [accepted](crate::ingest::Received::accepted): what the replica alone knows has to be told, not forgotten.
    GoOn,
    /// Let the replica begin with the state that was told for it: nothing of an older head counts.
    Begin,
    /// The user is in the room.
    Entered,
    /// The replica does not let the user in.
    Refused,
}

impl Step {
    /// The first step.
    #[must_use]
    pub fn first(standing: Standing) -> Self {
        match standing {
            Standing::Unknown => Self::Begin,
            Standing::Outside | Standing::Inside => Self::GoOn,
        }
    }

    /// The step after [`Step::GoOn`], with what the room was to the server before it and is now. `taken` says whether the
    /// join was accepted.
    #[must_use]
    pub fn after(before: Standing, now: Standing, taken: bool) -> Self {
        match (before, now) {
            (Standing::Inside, _) if taken => Self::Entered,
            (Standing::Inside, _) => Self::Refused,
            (_, Standing::Inside) => Self::Entered,
            // What only this replica knows speaks against it, and will everywhere else.
            _ if taken => Self::Refused,
            _ => Self::Begin,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::join_decision::*;

    #[test]
    fn a_room_begins_anew_only_where_it_cannot_go_on() {
        use Standing::{Inside, Outside, Unknown};
        assert_eq!(Step::first(Unknown), Step::Begin);
        assert_eq!(Step::first(Outside), Step::GoOn);
        assert_eq!(Step::first(Inside), Step::GoOn);
        assert_eq!(Step::after(Outside, Inside, true), Step::Entered);
        assert_eq!(
            Step::after(Outside, Outside, false),
            Step::Begin,
            "its history cannot be had"
        );
        assert_eq!(
            Step::after(Outside, Outside, true),
            Step::Refused,
            "the others do not know yet that the room was closed to the user"
        );
        assert_eq!(Step::after(Inside, Inside, true), Step::Entered);
        assert_eq!(
            Step::after(Inside, Inside, false),
            Step::Refused,
            "the rules of a room that the server is in say so"
        );
    }

    #[test]
    fn a_server_without_users_in_it_stands_outside() {
        let own = ruma::server_name!("a.example");
        let census: Census = [(own.to_owned(), 1)].into();
        assert_eq!(Standing::of(own, Some(&census)), Standing::Inside);
        assert_eq!(Standing::of(own, Some(&Census::new())), Standing::Outside);
        assert_eq!(Standing::of(own, None), Standing::Unknown);
    }

    #[test]
    fn a_server_that_has_left_heeds_those_who_have_not() {
        let (own, peer) = (ruma::server_name!("a.example"), ruma::server_name!("b.example"));
        let of =
            |names: &[&ServerName]| -> Census { names.iter().map(|name| ((*name).to_owned(), 1)).collect() };
        assert!(
            heeds(own, Some(&of(&[own])), peer, false),
            "it may have come since"
        );
        assert!(heeds(own, Some(&of(&[peer])), peer, false));
        assert!(heeds(own, Some(&of(&[])), peer, true), "it may be back");
        assert!(!heeds(own, Some(&of(&[])), peer, false), "a stranger");
        assert!(!heeds(own, None, peer, false));
    }
}
