//! What users do and what befalls servers in one run, all of it drawn from the seed.

use std::collections::BTreeSet;
use std::time::Duration;

use maru_protocol::cursor::LogId;
use maru_protocol::ingest::Outcome;
use maru_protocol::key::{KeyId, SecretKey, SigningKey};
use maru_protocol::record::{EventKey, ServerRecord, SignedRecord};
use maru_protocol::version::RoomVersion;
use ruma::{OwnedEventId, OwnedServerName, OwnedUserId};
use serde_json::{Value, json};

use crate::check;
use crate::random::Random;
use crate::replica;
use crate::replica::sending::{self, Act};
use crate::server::{Doom, Server};
use crate::world::{Happening, World};

/// How long things go on before everything heals.
const TROUBLE: Duration = Duration::from_secs(3_600);

/// How long servers get to come to rest afterwards: extremities are exchanged several times in it.
const REST: Duration = Duration::from_secs(1_800);

/// Most rounds of further events at the end.
const MOST_ROUNDS: usize = 4;

/// Things that happen in the time of trouble.
const STEPS: usize = 70;

/// How slow links of a run may be, in milliseconds.
const SLOWEST_MS: [u64; 4] = [20, 300, 2_000, 8_000];

/// A run that has been set up.
pub(crate) fn world(seed: u64, verbose: bool) -> Option<World> {
    let mut random = Random::new(seed);
    let count = 2 + random.below(6);
    let version = *random.pick(&RoomVersion::ALL)?;
    let slowest_ms = *random.pick(&SLOWEST_MS)?;
    let mut servers = Vec::with_capacity(count);
    for index in 0..count {
        servers.push(server(index, &mut random)?);
    }
    if verbose {
        println!("seed {seed}: {count} servers, room version {version:?}, links of up to {slowest_ms} ms");
    }
    let mut world = World::new(random, version, servers, slowest_ms, verbose);
    found_room(&mut world)?;
    Some(world)
}

fn server(index: usize, random: &mut Random) -> Option<Server> {
    let name = OwnedServerName::try_from(format!("s{index}.example")).ok()?;
    let users = ["a", "b"].map(|user| OwnedUserId::try_from(format!("@{user}{index}:{name}")));
    let users = users.into_iter().collect::<Result<Vec<_>, _>>().ok()?;
    let key = SigningKey {
        id: KeyId::new("1").ok()?,
        secret: SecretKey::from_seed(&random.bytes()),
    };
    let record = record(&name, &key, random)?;
    // Clocks are up to ten minutes wrong, either way.
    let skew_ms = random.draw() % 1_200_000;
    let log_id = LogId(random.bytes());
    Some(Server::new(index, name, users, key, record, log_id, skew_ms))
}

fn record(name: &OwnedServerName, key: &SigningKey, random: &mut Random) -> Option<SignedRecord> {
    let root = SecretKey::from_seed(&random.bytes());
    let record = ServerRecord {
        name: name.clone(),
        issued: 0,
        relays: Vec::new(),
        expires: 1,
        peer_id: None,
        tls_key: SecretKey::from_seed(&random.bytes()).public_key(),
        root_key: root.public_key(),
        sequence: 1,
        addresses: Vec::new(),
        signing_keys: vec![EventKey {
            id: key.id.clone(),
            key: key.secret.public_key(),
            valid_until: None,
        }],
    };
    record.sign(&root).ok()
}

/// The first server makes a public room in which somebody of each server has some power.
fn found_room(world: &mut World) -> Option<()> {
    let creator = world.servers.first()?.users.first()?.clone();
    let version = world.version;
    let act = |event_type, state_key: &str, content| Act {
        sender: creator.clone(),
        event_type,
        state_key: Some(state_key.to_owned()),
        content,
        now_ms: 1_700_000_000_000,
    };
    let mut create = json!({ "room_version": version.as_str() });
    if version.create_names_creator() {
        create["creator"] = json!(creator);
    }
    let mut users = serde_json::Map::new();
    if !version.creators_are_privileged() {
        users.insert(creator.to_string(), json!(100));
    }
    for server in world.servers.iter().skip(1) {
        users.insert(
            server.users.first()?.to_string(),
            json!(if server.index % 2 == 0 { 50 } else { 100 }),
        );
    }
    let key = world.servers.first()?.key.clone();
    sending::create(
        world.servers.first_mut()?,
        version,
        &key,
        act("m.room.create", "", create),
    )?;
    let first = [
        act("m.room.member", creator.as_str(), json!({ "membership": "join" })),
        act("m.room.power_levels", "", json!({ "users": users })),
        act("m.room.join_rules", "", json!({ "join_rule": "public" })),
    ];
    for act in first {
        world.user_acts(0, act)?;
    }
    Some(())
}

/// Plays a run to its end: trouble, healing, one further event from every server, rest.
pub(crate) fn play(world: &mut World) {
    let count = world.servers.len();
    for from in 0..count {
        for to in (0..count).filter(|to| *to != from) {
            let pause = world.random.span(0, 2_000);
            world.after(pause, Happening::Dial { from, to });
        }
    }
    for step in 0..STEPS {
        // Everybody joins first, mostly in peace.
        let at = match step < 2 * count {
            true => world.random.span(1_000, 300_000),
            false => world.random.span(60_000, 3_600_000),
        };
        world.after(at, Happening::Planned(step));
    }
    while let Some(step) = world.run_until(TROUBLE) {
        if step < 2 * count {
            joins(world, step % count);
        } else {
            happens(world);
        }
    }
    heal(world);
    rest(world);
    bring_back(world);
    rest(world);
    check::look_for_unheard(world);
    for _ in 0..MOST_ROUNDS {
        let said = further_events(world);
        rest(world);
        rest(world);
        if !is_more_to_say(world, &said) {
            break;
        }
    }
}

fn rest(world: &mut World) {
    let end = world.now + REST;
    while world.run_until(end).is_some() {}
}

fn heal(world: &mut World) {
    world.cut.clear();
    world.slowest_ms = 50;
    for at in 0..world.servers.len() {
        world.servers[at].doom = None;
        world.servers[at].stalls = false;
        world.start(at);
    }
}

/// Servers whose backup is older than their join come back by joining: all that they have is gone.
fn bring_back(world: &mut World) {
    for _ in 0..3 {
        for at in 0..world.servers.len() {
            let server = &world.servers[at];
            if !server.up || server.disk.room.is_some() {
                continue;
            }
            let name = server.name.clone();
            let counts = |other: &&Server| {
                let room = other.disk.room.as_ref();
                other.up && other.is_in() && room.is_some_and(|room| room.census.contains_key(&name))
            };
            let Some(via) = world.servers.iter().find(counts).map(|via| via.index) else {
                continue;
            };
            let joined = |user: &&OwnedUserId| {
                replica::membership(&world.servers[via].disk, user).as_deref() == Some("join")
            };
            if let Some(user) = world.servers[at].users.iter().find(joined).cloned() {
                let act = membership(world, at, &user, &user, "join");
                world.join(at, via, act);
            }
        }
        let end = world.now + Duration::from_secs(120);
        while world.run_until(end).is_some() {}
    }
}

/// Every server that is in the room says something more, by each of its users: what one says whom others do not count in is
/// built upon by nobody there, and so is what it says of the room.
fn further_events(world: &mut World) -> BTreeSet<OwnedEventId> {
    let mut said = BTreeSet::new();
    for at in 0..world.servers.len() {
        for user in members(world, at) {
            let body = json!({ "body": "further" });
            let act = act(world, at, &user, "m.room.message", None, body);
            said.extend(world.user_acts(at, act));
        }
    }
    said
}

/// Whether one further event of each is not enough. Whoever came in by what the others said has to say something as well; and
/// what one server takes in and another softly fails comes to that one with the next event of the first.
fn is_more_to_say(world: &World, said: &BTreeSet<OwnedEventId>) -> bool {
    let up = || world.servers.iter().filter(|server| server.up && server.is_in());
    let became = |server: &Server, id: &OwnedEventId| server.disk.event(id).map(|stored| stored.outcome);
    let is_of = |server: &Server, id: &OwnedEventId| {
        let stored = server.disk.event(id);
        stored.is_some_and(|stored| stored.own)
    };
    let is_silent = |server: &Server| !said.iter().any(|id| is_of(server, id));
    let is_split = |id: &OwnedEventId| {
        up().any(|server| became(server, id) == Some(Outcome::SoftFailed))
            && up().any(|server| !is_of(server, id) && became(server, id) == Some(Outcome::Accepted))
    };
    up().any(is_silent) || said.iter().any(is_split)
}

/// The users of a server who are in the room by its newest state; none where it is not up.
fn members(world: &World, at: usize) -> Vec<OwnedUserId> {
    let server = &world.servers[at];
    let joined = |user: &&OwnedUserId| replica::membership(&server.memory, user).as_deref() == Some("join");
    let users = server.users.iter().filter(|_| server.up);
    users.filter(joined).cloned().collect()
}

/// One of them.
fn member(world: &mut World, at: usize) -> Option<OwnedUserId> {
    let members = members(world, at);
    world.random.pick(&members).cloned()
}

fn act(
    world: &mut World,
    at: usize,
    sender: &OwnedUserId,
    event_type: &'static str,
    state_key: Option<&str>,
    content: Value,
) -> Act {
    let now = world.now;
    Act {
        sender: sender.clone(),
        event_type,
        state_key: state_key.map(ToOwned::to_owned),
        content,
        now_ms: world.servers[at].clock_ms(now),
    }
}

fn membership(world: &mut World, at: usize, sender: &OwnedUserId, target: &OwnedUserId, what: &str) -> Act {
    let content = json!({ "membership": what });
    act(world, at, sender, "m.room.member", Some(target.as_str()), content)
}

/// Somebody of a server joins, through any other if need be, or declines to.
fn joins(world: &mut World, at: usize) {
    let via = world.random.below(world.servers.len());
    if !world.servers[at].up {
        return;
    }
    let users = world.servers[at].users.clone();
    if let Some(user) = world.random.pick(&users).cloned() {
        let server = &world.servers[at];
        let invitation = server.disk.invitations.get(&user).filter(|_| !server.is_in());
        let is_invited = invitation.is_some_and(|invitation| invitation.is_open);
        if is_invited && via != at && world.random.chance(50) {
            let act = membership(world, at, &user, &user, "leave");
            return world.decline(at, via, act);
        }
        is_disturbed(world, at);
        let act = membership(world, at, &user, &user, "join");
        world.join(at, via, act);
    }
}

/// What a server does to come into the room, and to make its replica whole after that, may end in the middle.
fn is_disturbed(world: &mut World, at: usize) {
    if world.servers[at].is_in() {
        return;
    }
    if world.random.chance(30) {
        let dooms = [Doom::Past, Doom::Gap, Doom::Join];
        world.servers[at].doom = world.random.pick(&dooms).copied();
    }
    if world.random.chance(20) {
        let (pause, run) = (
            world.random.span(0, 4 * world.slowest_ms + 200),
            world.servers[at].run,
        );
        world.after(pause, Happening::GiveUp { at, run });
    }
}

fn happens(world: &mut World) {
    let count = world.servers.len();
    let at = world.random.below(count);
    match world.random.below(100) {
        0..58 => {
            for _ in 0..1 + world.random.below(4) {
                let at = world.random.below(count);
                users_act(world, at);
            }
        }
        // More than is sent to a peer that was away.
        58..62 => (0..30).for_each(|_| users_act(world, at)),
        62..72 => joins(world, at),
        72..80 => partition(world),
        80..84 => {
            let cut = std::mem::take(&mut world.cut);
            let wordless = cut.is_empty();
            if !wordless && world.verbose {
                println!("{:>10.3} the partition heals", world.now.as_secs_f64());
            }
        }
        84..89 => stops(world, at, false),
        // Whom it is asked of notices nothing: its connections stay.
        89 => world.servers[at].stalls = !world.servers[at].stalls,
        90..95 => {
            let server = &mut world.servers[at];
            if server.up {
                server.backup = Some(server.disk.clone());
            }
        }
        95..98 => stops(world, at, true),
        _ => leaves_for_good(world, at),
    }
}

/// Some servers do not hear the others any longer.
fn partition(world: &mut World) {
    let count = world.servers.len();
    let side: Vec<bool> = (0..count).map(|_| world.random.chance(50)).collect();
    for one in 0..count {
        for other in one + 1..count {
            if side[one] != side[other] {
                world.cut.insert((one, other));
                world.break_between(one, other);
            }
        }
    }
    if world.verbose {
        println!("{:>10.3} a partition: {:?}", world.now.as_secs_f64(), world.cut);
    }
}

/// A server stops without warning, and comes back after a while; perhaps from its backup.
fn stops(world: &mut World, at: usize, restored: bool) {
    if !world.servers[at].up || restored && world.servers[at].backup.is_none() {
        return;
    }
    if !restored && world.random.chance(50) {
        // In the middle of something that it comes to by itself.
        let dooms = [Doom::Commit, Doom::Past, Doom::Gap, Doom::Join];
        let doom = world.random.pick(&dooms).copied();
        world.servers[at].doom = doom;
        if doom != Some(Doom::Commit) {
            return;
        }
        // For whatever reason that comes: mostly since others have sent something.
        for from in (0..world.servers.len()).filter(|from| *from != at) {
            if world.servers[from].up && world.random.chance(70) {
                world.send_message(from, at);
            }
        }
        return;
    }
    if world.random.chance(60) {
        // In the middle of something, of which nothing or a part is on disk.
        (0..4).for_each(|_| users_act(world, at));
        let end = world.now + world.random.span(0, 30);
        while world.run_until(end).is_some() {}
    }
    world.stop(at);
    if restored {
        let log_id = LogId(world.random.bytes());
        world.servers[at].restore(log_id);
        world.forget_messages(at);
        if world.verbose {
            println!(
                "{:>10.3} s{at} is restored from its backup",
                world.now.as_secs_f64()
            );
        }
    }
}

/// A server never comes back. At least two stay.
fn leaves_for_good(world: &mut World, at: usize) {
    let staying = world.servers.iter().filter(|server| !server.gone).count();
    if staying > 2 && !world.servers[at].gone {
        world.crash(at);
        world.servers[at].gone = true;
        if world.verbose {
            println!("{:>10.3} s{at} is gone for good", world.now.as_secs_f64());
        }
    }
}

/// Somebody of a server does something in the room, if the rules allow it.
fn users_act(world: &mut World, at: usize) {
    if world.servers[at].up && world.random.chance(10) {
        let to = world.random.below(world.servers.len());
        if to != at {
            world.send_message(at, to);
        }
        return;
    }
    let Some(user) = member(world, at) else {
        return;
    };
    let everybody: Vec<_> = world
        .servers
        .iter()
        .flat_map(|server| server.users.clone())
        .collect();
    let Some(target) = world.random.pick(&everybody).cloned() else {
        return;
    };
    let act = match world.random.below(100) {
        0..6 => {
            let act = membership(world, at, &user, &target, "invite");
            return world.invite(at, &target, act);
        }
        6..45 => act(
            world,
            at,
            &user,
            "m.room.message",
            None,
            json!({ "body": world.now.as_millis().to_string() }),
        ),
        45..60 => {
            let topic = json!({ "topic": format!("{user} at {}", world.now.as_millis()) });
            act(world, at, &user, "m.room.topic", Some(""), topic)
        }
        60..74 => {
            let content = power_levels(world, at, &target);
            act(world, at, &user, "m.room.power_levels", Some(""), content)
        }
        74..81 => membership(world, at, &user, &target, "ban"),
        81..88 => membership(world, at, &user, &target, "leave"),
        88..91 => membership(world, at, &user, &user, "leave"),
        91..96 => {
            let content = json!({ "membership": "join", "displayname": world.now.as_millis().to_string() });
            act(world, at, &user, "m.room.member", Some(user.as_str()), content)
        }
        _ => {
            let rule = if world.random.chance(70) {
                "public"
            } else {
                "invite"
            };
            act(
                world,
                at,
                &user,
                "m.room.join_rules",
                Some(""),
                json!({ "join_rule": rule }),
            )
        }
    };
    world.user_acts(at, act);
}

/// The power levels as they are, with somebody's changed.
fn power_levels(world: &mut World, at: usize, target: &OwnedUserId) -> Value {
    let level = [0, 50, 50, 100].get(world.random.below(4)).copied().unwrap_or(0);
    let present = replica::at(&world.servers[at].memory, "m.room.power_levels", "");
    let mut content = present
        .and_then(|event| serde_json::from_str(event.content.as_str()).ok())
        .unwrap_or_else(|| json!({ "users": {} }));
    content["users"][target.as_str()] = json!(level);
    content
}
