//! Records of servers, also of those that are gone.

use ruma::OwnedServerName;
use serde::{Deserialize, Serialize};

use crate::wire::{bounded::list, limits::MAX_SERVERS};

/// Asks for records. The parts of the answer carry those that are known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// Whose.
    #[serde(deserialize_with = "list::<_, _, MAX_SERVERS>")]
    pub servers: Vec<OwnedServerName>,
}
