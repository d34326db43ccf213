//! Federation, simulated: 2 to 7 servers in one thread, all chance from one seed, time that costs nothing.
//!
//! What decides is the code of the server itself, as pure state machines: the peer [`Session`], [`ingest`], the [`gap`]
//! machine with its [`work`], the [timeline] and the [schedule] by which its past is fetched, and [`interest`]. Only what surrounds them is a model: a [database] that forgets what was not
//! committed, a [network](world) that is slow, reorders, breaks and splits, and [people](plan) who change power levels, ban,
//! invite and join on both sides of a split. Servers crash, most of all in the middle of a commit, a page of the past, a gap or
//! a join, with a part of what was on its way on disk; they are restored from older backups, never come back, or stall: they
//! are there and answer nothing. Whoever waits for a join or a page gives up in the middle of it. Clocks are up to ten minutes
//! wrong; rooms are of versions 10, 11 and 12.
//!
//! # Running
//!
//! ```text
//! cargo run -p maru-simulation -- --seeds 1000              seeds 0 to 999
//! cargo run -p maru-simulation -- --seeds 1000 --from 5000  seeds 5000 to 5999
//! cargo run -p maru-simulation -- --seed 4711 -v            one seed, telling everything that happens
//! ```
//!
//! `cargo test -p maru-simulation` runs the first seeds and is part of `tests/run`.
//!
//! # Replaying and reading a failure
//!
//! A failure names its seed; the same seed gives the same run, event by event, until code or plan change. At the end of a
//! run everything heals, every server in the room sends one further event (those as well that are let in by others' further
//! events, and another one where a softly failed event keeps two sides apart), and all come to rest. Then must hold:
//!
//! - nothing waits anywhere;
//! - all servers that are entitled to the room have the same current state;
//! - they have the same events that are not rejected, back to the first: every gap is filled;
//! - what was acknowledged, to a user or to a peer, is there: events, and messages to devices of other servers;
//! - no event is at two positions of a log, and no two are at one place of a timeline.
//!
//! And before anybody says that further event, where one server counts another in, that one has all that the first one's
//! replica ends with: the exchange of extremities does not wait for somebody to speak. All through a run nobody is sent an
//! event of a room that it is in neither by the states around the event nor by the current ones when it was stored. At the end whoever takes
//! itself to be in the room has all that was made elsewhere while it was, the event by which it went above all; who left is
//! counted in nowhere but where that may not be told, or where an event that others failed softly keeps the two apart and who
//! is out may say nothing that joins them; and who was invited from another server knows it, and when it is over.
//!
//! What does not is printed as one line each, with servers by number (`s0` made the room) and events by id. With `-v`, look
//! for the first line that names the id: who sent it, then who took it in and how, and for the time at which the servers
//! part ways.
//!
//! # How to break it
//!
//! A check that nothing fails proves nothing. Each of these faults, made by hand and alone, is found by some of the first
//! 300 seeds, those of who left by some of the first 3000; whoever changes plan or checks tries them again. All but the last
//! one were last tried with an earlier plan, of which their seeds are.
//!
//! | fault | where | a seed | what it says |
//! |---|---|---|---|
//! | an item is acknowledged before its commit | `Session::message` sends `stored` for each log frame as it comes, `Session::stored` sends none | 3 | the message … never came |
//! | a user is told before the commit | `World::user_acts` puts the id into `sent` at once | 3 | told a user that … is sent |
//! | no exchange of extremities | `Session::load_extremities` orders nothing | 43 | has not heard of …, at which the replica of … ends |
//! | the start of an interval is forgotten | `interest::recount` answers nothing for `From` | 1 | is not on … |
//! | the end of an interval is forgotten | `interest::recount` answers nothing for `Until` | 1 | sends … to …, which is not in the room |
//! | the last event of an interval is not sent | `Database::interest` ends it a position too early | 3 | made … while … was in the room |
//! | an invitation is not kept | `World::invited` stores nothing | 0 | never heard of the invitation … |
//! | the end of an invitation is not believed | `World::hears_outside` ends none | 16 | never heard that … is over by … |
//! | the end of an invitation is not sent | `interest::recount` answers nothing for `Once` | 28 | never heard that … is over by … |
//! | who left says nothing to a stray | `World::ingest` notes none where the server is outside | 354 | is out of the room by its own account |
//! | who left heeds nobody who was in the room | `entering::heeds` forgets `was_in` | 2904 | is out of the room by its own account |
//! | a peer may take any time to answer for a gap or a page | `gap::patience` answers a million seconds | 5 | waits in the inbox of … |
//! | what a page of the past names is forgotten | `timeline::Filling::took` keeps no names | 4 | is not on … |
//! | a page of the past is not one change with its gap | `replica::take_in_past` puts nothing together | 48 | is not on … |
//!
//! [`Session`]: maru_federation::peer::Session
//! [`ingest`]: maru_protocol::ingest
//! [`gap`]: maru_protocol::gap
//! [`work`]: maru_protocol::gap::work
//! [timeline]: maru_protocol::gap::timeline
//! [schedule]: maru_protocol::gap::schedule
//! [`interest`]: maru_protocol::destinations
//! [database]: database
//! [network]: world

mod check;
mod database;
mod plan;
mod random;
mod replica;
mod server;
mod world;

/// How many seeds are played where nobody says how many.
pub const SEEDS: u64 = 300;

/// What came of one run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// How many things happened in it.
    pub happenings: usize,
    /// How many events all replicas hold together.
    pub events: usize,
    /// What does not hold, a line each; empty when the run passed.
    pub findings: Vec<String>,
}

/// Plays the run of a seed. `verbose` prints what happens.
#[must_use]
pub fn run(seed: u64, verbose: bool) -> Report {
    let Some(mut world) = plan::world(seed, verbose) else {
        return Report {
            seed,
            happenings: 0,
            events: 0,
            findings: vec!["the run could not be set up".to_owned()],
        };
    };
    plan::play(&mut world);
    Report {
        seed,
        happenings: world.handled,
        events: world.servers.iter().map(|server| server.disk.log.len()).sum(),
        findings: check::findings(&world),
    }
}
