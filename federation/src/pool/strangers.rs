//! How many peers may be greeted at the same time: in all, and from one place, so that nobody who opens
//! many connections and says nothing keeps others out.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::link::Path;

/// Who is being greeted, by where it is.
#[derive(Debug)]
pub(super) struct Strangers {
    in_all: usize,
    from_one_place: usize,
    places: Mutex<HashMap<Option<IpAddr>, usize>>,
}

/// One peer that is being greeted, until this is dropped.
#[derive(Debug)]
pub(super) struct Stranger {
    strangers: Arc<Strangers>,
    place: Option<IpAddr>,
}

impl Strangers {
    pub(super) fn new(in_all: usize, from_one_place: usize) -> Arc<Self> {
        Arc::new(Self {
            in_all,
            from_one_place,
            places: Mutex::default(),
        })
    }

    /// Begins to greet somebody, unless too many are being greeted already.
    pub(super) fn greet(self: &Arc<Self>, path: Path) -> Option<Stranger> {
        let place = place(path);
        let mut places = self.places();
        let here = places.get(&place).copied().unwrap_or(0);
        if here >= self.from_one_place || places.values().sum::<usize>() >= self.in_all {
            return None;
        }
        places.insert(place, here + 1);
        drop(places);
        Some(Stranger {
            strangers: self.clone(),
            place,
        })
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Option<IpAddr>, usize>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut places = self.strangers.places();
        if let Some(here) = places.get_mut(&self.place) {
            *here -= 1;
            if *here == 0 {
                places.remove(&self.place);
            }
        }
    }
}

/// An IPv4 address, or the network of an IPv6 address that one host has for itself.
fn place(path: Path) -> Option<IpAddr> {
    match path {
        Path::Memory => None,
        Path::Direct(address) => Some(match address.ip().to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Path {
        Path::Direct(address.parse().unwrap())
    }

    #[test]
    fn one_place_does_not_keep_others_out() {
        let strangers = Strangers::new(3, 2);
        let first = strangers.greet(at("192.0.2.1:1")).unwrap();
        let _second = strangers.greet(at("[::ffff:192.0.2.1]:2")).unwrap();
        assert!(strangers.greet(at("192.0.2.1:3")).is_none());
        let other = strangers.greet(at("192.0.2.2:1")).unwrap();
        assert!(strangers.greet(at("192.0.2.3:1")).is_none(), "in all");
        drop(other);
        drop(first);
        assert!(strangers.greet(at("192.0.2.1:3")).is_some());
    }

    #[test]
    fn addresses_of_one_network_are_one_place() {
        let strangers = Strangers::new(9, 1);
        let first = strangers.greet(at("[2001:db8::1]:1")).unwrap();
        assert!(strangers.greet(at("[2001:db8::2]:1")).is_none());
        assert!(strangers.greet(at("[2001:db8:0:1::2]:1")).is_some());
        drop(first);
        assert!(strangers.places().is_empty());
    }
}
