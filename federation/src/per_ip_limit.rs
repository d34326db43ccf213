//! How many may do something at the same time: in all, and from one place, so that nobody who does it often
//! keeps others from it. Counts TLS handshakes and peers that are being greeted.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How many are at it, by where they are.
#[derive(Debug)]
pub(crate) struct Places {
    in_all: usize,
    from_one_place: usize,
    places: Mutex<HashMap<Option<IpAddr>, usize>>,
}

/// One that is at it, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    place: Option<IpAddr>,
}

impl Places {
    pub(crate) fn new(in_all: usize, from_one_place: usize) -> Arc<Self> {
        Arc::new(Self {
            in_all,
            from_one_place,
            places: Mutex::default(),
        })
    }

    /// One more, unless there are too many already. Those without an address are of one place.
    pub(crate) fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Place> {
        let place = address.map(place);
        let mut places = self.places();
        let here = places.get(&place).copied().unwrap_or(0);
        if here >= self.from_one_place || places.values().sum::<usize>() >= self.in_all {
            return None;
        }
        places.insert(place, here + 1);
        drop(places);
        Some(Place {
            places: self.clone(),
            place,
        })
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Option<IpAddr>, usize>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.places.places();
        if let Some(here) = places.get_mut(&self.place) {
            *here -= 1;
            if *here == 0 {
                places.remove(&self.place);
            }
        }
    }
}

/// An IPv4 address, or the network of an IPv6 address that one host has for itself.
fn place(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use crate::per_ip_limit::*;

    fn at(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    #[test]
    fn one_place_does_not_keep_others_out() {
        let places = Places::new(3, 2);
        let first = places.take(at("192.0.2.1")).unwrap();
        let _second = places.take(at("::ffff:192.0.2.1")).unwrap();
        assert!(places.take(at("192.0.2.1")).is_none());
        let other = places.take(at("192.0.2.2")).unwrap();
        assert!(places.take(at("192.0.2.3")).is_none(), "in all");
        drop(other);
        drop(first);
        assert!(places.take(at("192.0.2.1")).is_some());
    }

    #[test]
    fn addresses_of_one_network_are_one_place() {
        let places = Places::new(9, 1);
        let first = places.take(at("2001:db8::1")).unwrap();
        assert!(places.take(at("2001:db8::2")).is_none());
        assert!(places.take(at("2001:db8:0:1::2")).is_some());
        drop(first);
        assert!(places.places().is_empty());
    }
}
