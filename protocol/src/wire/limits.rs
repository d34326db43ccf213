//! The limits of frames and messages. They are part of the protocol: both sides know them.

/// Largest frame, in bytes after its length: 8 MiB.
pub const MAX_FRAME_BYTES: usize = 8 * 1024 * 1024;

/// Largest frame before both hellos are judged, in bytes after its length.
pub const MAX_HELLO_BYTES: usize = 16 * 1024;

/// Largest datagram, in bytes; it must fit one packet of the smallest path that QUIC allows.
pub const MAX_DATAGRAM_BYTES: usize = 1100;

/// Deepest nesting of arrays and maps in a frame, the frame's own array included.
pub const MAX_DEPTH: usize = 16;

/// Longest name of a frame, an item, a field or a code, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// Longest free text, such as a reason, in bytes.
pub const MAX_TEXT_BYTES: usize = 1024;

/// Largest piece of JSON inside a frame, in bytes: the largest event of any room.
pub const MAX_JSON_BYTES: usize = crate::limits::LARGE_MAX_EVENT_BYTES;

/// Longest cursor, in bytes.
pub const MAX_CURSOR_BYTES: usize = 64;

/// Most items of one `log` frame.
pub const MAX_LOG_ITEMS: usize = 256;

/// Items in flight that a receiver allows unless it has reason to lower that.
pub const DEFAULT_WINDOW_ITEMS: u32 = 1024;

/// Bytes of `log` frames in flight that a receiver allows unless it has reason to lower that.
pub const DEFAULT_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// Smallest window in bytes that a receiver may allow, so that the largest item fits: 2 MiB.
pub const MIN_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// Most rooms of one `extremities` frame.
pub const MAX_EXTREMITY_ROOMS: usize = 1000;

/// Most forward extremities that are named for one room.
pub const MAX_EXTREMITIES: usize = 100;

/// Most events in one list of JSON: a part of an answer, auth events, stripped state.
pub const MAX_EVENTS: usize = 1000;

/// Most event ids in one request.
pub const MAX_EVENT_IDS: usize = 500;

/// Most event ids of a state that an answer names.
pub const MAX_STATE_IDS: usize = 150_000;

/// Most events that an answer carries beside a state, because they allow it.
pub const MAX_AUTH_CHAIN: usize = 50_000;

/// Most bytes of events of an answer that carries a state: 128 MiB.
pub const MAX_STATE_BYTES: usize = 128 * 1024 * 1024;

/// Most bytes of events in one part of an answer: 2 MiB.
pub const MAX_PART_BYTES: usize = 2 * 1024 * 1024;

/// Most bytes of events of any other answer: 8 MiB.
pub const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// Most server records in one part of an answer.
pub const MAX_RECORDS: usize = 500;

/// Most server names in one list.
pub const MAX_SERVERS: usize = 500;

/// Most users in one request about devices or keys.
pub const MAX_USERS: usize = 100;

/// Most devices of one user, and most keys of one claim.
pub const MAX_DEVICES: usize = 1000;

/// Most rooms in one answer of the directory or a hierarchy.
pub const MAX_ROOMS: usize = 500;

/// Most bytes of media in one part of an answer: 1 MiB.
pub const MAX_MEDIA_PART_BYTES: usize = 1024 * 1024;
