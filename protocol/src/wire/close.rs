//! Why a connection ends: numbers on the wire, names for people.

/// The application error code that a connection is closed with. The reason beside it is text for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CloseCode {
    /// The server shuts down or has no further use for the connection. Dial again later.
    Done,
    /// Of two connections between the same servers, the other one stays.
    Duplicate,
    /// A frame that is no frame, a body out of its limits, or messages out of their order.
    ProtocolError,
    /// A well-formed frame of an unknown name.
    UnknownMessage,
    /// More in flight than the window allows, or more of something than its limit.
    LimitExceeded,
    /// The dialler meant to reach another server.
    WrongServer,
    /// The claimed name is not proven by the record, or its keys are not those of the connection.
    NotProven,
    /// The name is proven by another key than the one known for it.
    KeyChanged,
    /// The record has expired, or is older than one already seen.
    RecordOutdated,
    /// Two different records of that server carry one sequence number.
    RecordConflict,
    /// The server is on the deny list, or not on the allow list.
    Denied,
    /// The name could not be checked just now. Dial again later.
    Unavailable,
    /// Too many connections or too much work. Dial again later.
    Overloaded,
    /// The peer said nothing in time.
    Timeout,
    /// The server that closes has failed inside.
    Internal,
}

impl CloseCode {
    /// Every code, in order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Done,
        Self::Duplicate,
        Self::ProtocolError,
        Self::UnknownMessage,
        Self::LimitExceeded,
        Self::WrongServer,
        Self::NotProven,
        Self::KeyChanged,
        Self::RecordOutdated,
        Self::RecordConflict,
        Self::Denied,
        Self::Unavailable,
        Self::Overloaded,
        Self::Timeout,
        Self::Internal,
    ];

    /// The number on the wire.
    pub fn number(self) -> u32 {
        match self {
            Self::Done => 0,
            Self::Duplicate => 1,
            Self::ProtocolError => 2,
            Self::UnknownMessage => 3,
            Self::LimitExceeded => 4,
            Self::WrongServer => 5,
            Self::NotProven => 6,
            Self::KeyChanged => 7,
            Self::RecordOutdated => 8,
            Self::RecordConflict => 9,
            Self::Denied => 10,
            Self::Unavailable => 11,
            Self::Overloaded => 12,
            Self::Timeout => 13,
            Self::Internal => 14,
        }
    }

    /// The name, as logs, metrics and the specification write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Duplicate => "duplicate",
            Self::ProtocolError => "protocol_error",
            Self::UnknownMessage => "unknown_message",
            Self::LimitExceeded => "limit_exceeded",
            Self::WrongServer => "wrong_server",
            Self::NotProven => "not_proven",
            Self::KeyChanged => "key_changed",
            Self::RecordOutdated => "record_outdated",
            Self::RecordConflict => "record_conflict",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::Overloaded => "overloaded",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }

    /// The code of a number, if it is one of ours.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|code| u64::from(code.number()) == number)
    }

    /// Whether dialling again soon, without anybody changing anything, may help.
    pub fn is_passing(self) -> bool {
        matches!(
            self,
            Self::Done
                | Self::Duplicate
                | Self::Unavailable
                | Self::Overloaded
                | Self::Timeout
                | Self::Internal
        )
    }
}

impl std::fmt::Display for CloseCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
