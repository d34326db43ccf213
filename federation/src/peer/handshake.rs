//! Who may say what before the log flows: the acceptor's hello, the dialler's hello, then both ready.

use maru_protocol::{
    LogId, SignedRecord,
    wire::{
        CloseCode,
        limits::MIN_WINDOW_BYTES,
        message::{Hello, Ready},
    },
};
use ruma::OwnedServerName;

use super::Offence;

/// Who dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// We did, to reach this server.
    Dialler(OwnedServerName),
    /// The peer did.
    Acceptor,
}

/// Who we are.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Our name.
    pub name: OwnedServerName,
    /// Our newest record.
    pub record: SignedRecord,
    /// The id of our log.
    pub log_id: LogId,
}

/// How far the two sides have come.
#[derive(Debug)]
pub(super) struct Handshake {
    role: Role,
    own: Identity,
    peer: Option<(OwnedServerName, LogId)>,
    judged: bool,
    ready: Option<Ready>,
    heard_ready: bool,
    /// The record that our hello carried.
    said: Option<SignedRecord>,
}

impl Handshake {
    pub(super) fn new(role: Role, own: Identity) -> Self {
        Self {
            role,
            own,
            peer: None,
            judged: false,
            ready: None,
            heard_ready: false,
            said: None,
        }
    }

    /// The hello of an acceptor, who speaks first.
    pub(super) fn first_words(&mut self) -> Option<Hello> {
        (self.role == Role::Acceptor).then(|| self.own_hello(None))
    }

    /// The peer says who it is and whom it means to reach.
    pub(super) fn hello(&mut self, hello: &Hello) -> Result<(), Offence> {
        if self.peer.is_some() {
            return Err(Offence::order("a second hello"));
        }
        let meant = match &self.role {
            Role::Dialler(to) => hello.name == *to,
            Role::Acceptor => hello.to.as_ref() == Some(&self.own.name),
        };
        if !meant {
            return Err(Offence {
                code: CloseCode::WrongServer,
                reason: "meant to reach another server",
            });
        }
        if hello.name == self.own.name {
            return Err(Offence {
                code: CloseCode::NotProven,
                reason: "claims our own name",
            });
        }
        self.peer = Some((hello.name.clone(), hello.log_id));
        Ok(())
    }

    /// The peer's hello is true. Gives the hello of a dialler, who speaks only now.
    pub(super) fn judged(&mut self) -> Option<Hello> {
        self.judged = true;
        match self.role.clone() {
            Role::Dialler(to) => Some(self.own_hello(Some(to))),
            Role::Acceptor => None,
        }
    }

    /// The peer is ready. A dialler may say so while we still judge it.
    pub(super) fn ready(&mut self, ready: Ready) -> Result<(), Offence> {
        if self.peer.is_none() || self.heard_ready {
            return Err(Offence::order("ready before hello, or twice"));
        }
        if ready.items == 0 || ready.bytes < MIN_WINDOW_BYTES {
            return Err(Offence::order("a window too small for the largest item"));
        }
        self.heard_ready = true;
        self.ready = Some(ready);
        Ok(())
    }

    pub(super) fn take_ready(&mut self) -> Option<Ready> {
        self.ready.take()
    }

    pub(super) fn is_judged(&self) -> bool {
        self.judged
    }

    pub(super) fn peer_name(&self) -> Option<&OwnedServerName> {
        self.peer.as_ref().map(|(name, _)| name)
    }

    pub(super) fn peer_log(&self) -> Option<LogId> {
        self.peer
            .as_ref()
            .filter(|_| self.judged)
            .map(|(_, log_id)| *log_id)
    }

    /// A newer record of ours has come before the peer was ready.
    pub(super) fn new_record(&mut self, record: SignedRecord) {
        self.own.record = record;
    }

    /// Our newest record, unless our hello carried it.
    pub(super) fn unsaid_record(&mut self) -> Option<SignedRecord> {
        let newest = &self.own.record;
        self.said
            .take()
            .filter(|said| said != newest)
            .map(|_| newest.clone())
    }

    fn own_hello(&mut self, to: Option<OwnedServerName>) -> Hello {
        self.said = Some(self.own.record.clone());
        let Identity { name, record, log_id } = self.own.clone();
        Hello {
            name,
            to,
            record,
            log_id,
        }
    }
}
