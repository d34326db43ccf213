//! What is missing right before events that are here: what a gap of the timeline stands for.
//!
//! An event that was not accepted has no place in the timeline, so no gap can stand before it: what is missing before it
//! counts as missing before each accepted event that builds on it. Only such an event vouches for it. Were it fetched for
//! the sake of an event that was turned down, whoever is turned down could have anything taken in as the past.
//!
//! Pure and driven like a [`super::Gap`]: [`Missing::next`] wants events looked up, [`Missing::found`] takes the result.

use std::collections::BTreeSet;

use ruma::OwnedEventId;

use super::ROUNDS;

/// An event that is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is not here, or hangs nowhere: it is missing.
    Not,
    /// It is here and accepted: what is missing before it has a gap of its own.
    Accepted,
    /// It is here and not accepted, and names these before it.
    TurnedDown(Vec<OwnedEventId>),
}

/// A walk back from events that are named, over those that are not accepted, to those that are missing.
#[derive(Debug)]
pub struct Missing {
    open: BTreeSet<OwnedEventId>,
    passed: BTreeSet<OwnedEventId>,
    missing: BTreeSet<OwnedEventId>,
    rounds: usize,
}

impl Missing {
    /// What is missing of these events, which are named by accepted ones, and before those of them that are not accepted.
    #[must_use]
    pub fn of(named: impl IntoIterator<Item = OwnedEventId>) -> Self {
        Self {
            open: named.into_iter().collect(),
            passed: BTreeSet::new(),
            missing: BTreeSet::new(),
            rounds: 0,
        }
    }

    /// The events to be looked up next; none when what is missing is known, which is so after 40 generations at the
    /// latest: what lies beyond as many that were turned down is not looked for.
    #[must_use]
    pub fn next_generation(&mut self) -> Option<BTreeSet<OwnedEventId>> {
        self.rounds += 1;
        (!self.open.is_empty() && self.rounds <= ROUNDS).then(|| std::mem::take(&mut self.open))
    }

    /// What one of the events is that were looked up.
    pub fn found(&mut self, id: OwnedEventId, found: Found) {
        match found {
            Found::Accepted => {}
            Found::Not => drop(self.missing.insert(id)),
            Found::TurnedDown(before) => {
                self.passed.insert(id);
                let news = before.into_iter().filter(|id| !self.passed.contains(id));
                self.open.extend(news);
            }
        }
    }

    /// The events that are missing.
    #[must_use]
    pub fn end(self) -> Vec<OwnedEventId> {
        self.missing.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn id(name: &str) -> OwnedEventId {
        format!("${name}").try_into().unwrap()
    }

    fn missing(named: &[&str], here: &BTreeMap<&str, Found>) -> Vec<OwnedEventId> {
        let mut missing = Missing::of(named.iter().map(|name| id(name)));
        while let Some(ids) = missing.next_generation() {
            for id in ids {
                let found = here.get(&id.as_str()[1..]).cloned().unwrap_or(Found::Not);
                missing.found(id, found);
            }
        }
        missing.end()
    }

    #[test]
    fn what_was_turned_down_is_passed_over_and_what_was_accepted_is_not() {
        let here = BTreeMap::from([
            ("accepted", Found::Accepted),
            ("soft", Found::TurnedDown(vec![id("softer"), id("accepted")])),
            ("softer", Found::TurnedDown(vec![id("lost"), id("soft")])),
        ]);
        assert!(missing(&["accepted"], &here).is_empty());
        assert_eq!(missing(&["absent", "accepted"], &here), [id("absent")]);
        assert_eq!(missing(&["soft"], &here), [id("lost")]);
    }

    #[test]
    fn a_long_chain_of_what_was_turned_down_is_not_walked_to_its_end() {
        let names: Vec<String> = (0..=ROUNDS).map(|at| at.to_string()).collect();
        let link = |pair: &[String]| Found::TurnedDown(vec![id(&pair[1])]);
        let chain = names.windows(2).map(|pair| (pair[0].as_str(), link(pair)));
        let here: BTreeMap<&str, Found> = chain.collect();
        assert_eq!(missing(&["1"], &here), [id(&ROUNDS.to_string())]);
        assert!(missing(&["0"], &here).is_empty());
    }
}
