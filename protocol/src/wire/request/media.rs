//! Files of another server's users.

use serde::{Deserialize, Serialize};

use crate::{
    limits::MAX_ID_BYTES,
    wire::bounded::{Text, natural},
};

/// Asks for a file. The first part of the answer says what it is, all of them carry its bytes in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Media {
    /// The id, which is the last part of `mxc://<server>/<id>`; the server is the one that is asked.
    pub media_id: Text<MAX_ID_BYTES>,
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaInfo {
    /// Its bytes altogether. An answer that ends with fewer or goes on with more is void.
    #[serde(deserialize_with = "natural")]
    pub length: u64,
    /// Its media type, as its uploader claimed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<Text<MAX_ID_BYTES>>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<Text<MAX_ID_BYTES>>,
}
