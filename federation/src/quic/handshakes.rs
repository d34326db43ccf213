//! How many TLS handshakes go on at the same time. While there are few, nobody has to prove his address; then everybody has
//! to, by QUIC Retry, so that the bound for one place cannot be filled in another's name.

use std::{net::IpAddr, sync::Arc};

use crate::limits;
use crate::per_ip_limit::{Place, Places};

/// The handshakes that are going on.
#[derive(Debug)]
pub(super) struct Handshakes {
    unproven: Arc<Places>,
    proven: Arc<Places>,
}

impl Default for Handshakes {
    fn default() -> Self {
        Self {
            unproven: Places::new(
                limits::MAX_UNPROVEN_HANDSHAKES,
                limits::MAX_UNPROVEN_HANDSHAKES_OF_ONE_PLACE,
            ),
            proven: Places::new(limits::MAX_HANDSHAKES, limits::MAX_HANDSHAKES_OF_ONE_PLACE),
        }
    }
}

impl Handshakes {
    /// Begins one with somebody who has proven his address, or has not, until the place is dropped. None where there is no
    /// room for it.
    pub(super) fn begin(&self, address: IpAddr, is_proven: bool) -> Option<Place> {
        let places = if is_proven { &self.proven } else { &self.unproven };
        places.take(Some(address))
    }
}
