//! Places for connections: so many in all, and so many of one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

use crate::http::transport::client_address::TrustedProxies;
use crate::limits::ClientNetwork;

/// How many connections each address has. Trusted proxies bring those of others and are not counted.
#[derive(Debug)]
pub(super) struct Places {
    of_one: usize,
    exempt: TrustedProxies,
    taken: Mutex<HashMap<ClientNetwork, usize>>,
}

/// The place of one connection, free again when this is dropped.
#[derive(Debug)]
pub(in crate::http) struct Place {
    _among_all: OwnedSemaphorePermit,
    counted: Option<(Arc<Places>, ClientNetwork)>,
}

impl Places {
    /// Places of which one address may have `of_one`.
    pub(super) fn new(of_one: usize, exempt: TrustedProxies) -> Arc<Self> {
        Arc::new(Self {
            of_one,
            exempt,
            taken: Mutex::default(),
        })
    }

    /// A place for a connection from `peer`, which has one among all; none when the address has too many.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr, among_all: OwnedSemaphorePermit) -> Option<Place> {
        let network = ClientNetwork::of(peer);
        let counted = !self.exempt.include(peer);
        if counted {
            let mut taken = self.lock();
            let of_this = taken.entry(network).or_default();
            if *of_this >= self.of_one {
                return None;
            }
            *of_this += 1;
        }
        Some(Place {
            _among_all: among_all,
            counted: counted.then(|| (Arc::clone(self), network)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClientNetwork, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((places, network)) = &self.counted else {
            return;
        };
        let mut taken = places.lock();
        if let Some(of_this) = taken.get_mut(network) {
            *of_this -= 1;
            if *of_this == 0 {
                taken.remove(network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use crate::config::Setting;
    use crate::http::transport::listener::places::*;

    #[test]
    fn an_address_has_so_many_places_and_a_trusted_proxy_as_many_as_there_are() {
        let all = Arc::new(Semaphore::new(100));
        let proxies = TrustedProxies::new(&Setting::read("10.0.0.1").map(|range| vec![range]).unwrap());
        let places = Places::new(2, proxies);
        let take = |peer: &str| {
            let among_all = Arc::clone(&all).try_acquire_owned().unwrap();
            places.take(peer.parse().unwrap(), among_all)
        };
        let held = [take("2001:db8::1"), take("2001:db8::2")];
        assert!(held.iter().all(Option::is_some));
        assert!(take("2001:db8::3").is_none());
        assert!(take("2001:db8:0:1::1").is_some());
        let proxied: Vec<_> = (0..5).map(|_| take("10.0.0.1")).collect();
        assert!(proxied.iter().all(Option::is_some));
        drop((held, proxied));
        assert!(places.lock().is_empty());
        assert_eq!(all.available_permits(), 100);
        assert!(take("2001:db8::3").is_some());
    }
}
