//! What a person with Element X does: two users on `matrix-sdk-ui`, its `SyncService` and `RoomListService`, find and read
//! each other in an encrypted room. The argument is the base URL of a server with open registration.

#![recursion_limit = "256"]

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, pin_mut};
use matrix_sdk::ruma::api::client::account::register::v3::Request as Register;
use matrix_sdk::ruma::api::client::room::create_room::v3::{Request as CreateRoom, RoomPreset};
use matrix_sdk::ruma::api::client::uiaa::{AuthData, Dummy};
use matrix_sdk::ruma::events::InitialStateEvent;
use matrix_sdk::ruma::events::room::encryption::RoomEncryptionEventContent;
use matrix_sdk::ruma::events::room::message::RoomMessageEventContent;
use matrix_sdk::ruma::{OwnedRoomId, RoomId, UserId};
use matrix_sdk::{Client, Room, RoomState};
use matrix_sdk_ui::room_list_service::filters::new_filter_all;
use matrix_sdk_ui::sync_service::{State, SyncService};
use matrix_sdk_ui::timeline::RoomExt as _;

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long rooms are looked at again after.
const PAUSE: Duration = Duration::from_millis(100);

/// A user with an app.
struct Person {
    name: String,
    client: Client,
    sync: SyncService,
}

/// Waits until something can be said.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let looked = async {
        loop {
            if let Some(found) = look().await? {
                return Ok::<_, anyhow::Error>(found);
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, looked).await;
    found.with_context(|| format!("never: {what}"))?
}

impl Person {
    async fn register(base: &str, name: &str) -> Result<Self> {
        let client = Client::builder().homeserver_url(base).build().await?;
        let mut request = Register::new();
        request.username = Some(name.to_owned());
        request.password = Some("a long enough password".to_owned());
        request.auth = Some(AuthData::Dummy(Dummy::new()));
        client.matrix_auth().register(request).await?;
        Self::begin(name, client).await
    }

    async fn begin(name: &str, client: Client) -> Result<Self> {
        ensure!(client.user_id().is_some(), "{name} is not logged in");
        let sync = SyncService::builder(client.clone()).build().await?;
        sync.start().await;
        let mut state = sync.state();
        let name = name.to_owned();
        until("the app syncs", async || match state.next_now() {
            State::Running => Ok(Some(())),
            State::Error(error) => bail!("the sync of {name} fails: {error:?}"),
            _ => Ok(None),
        })
        .await?;
        Ok(Self { name, client, sync })
    }

    fn user_id(&self) -> &UserId {
        self.client.user_id().expect("who is registered has an id")
    }

    /// The ids of the first rooms of the room list.
    async fn room_list(&self) -> Result<Vec<OwnedRoomId>> {
        let list = self.sync.room_list_service().all_rooms().await?;
        let (entries, controller) = list.entries_with_dynamic_adapters(100);
        controller.set_filter(Box::new(new_filter_all(vec![])));
        pin_mut!(entries);
        let diffs = tokio::time::timeout(PATIENCE, entries.next()).await?;
        let mut rooms = matrix_sdk_ui::eyeball_im::Vector::new();
        for diff in diffs.unwrap_or_default() {
            diff.apply(&mut rooms);
        }
        Ok(rooms.iter().map(|room| room.room_id().to_owned()).collect())
    }

    async fn room(&self, room_id: &RoomId, state: RoomState) -> Result<Room> {
        let what = format!("{} has {room_id} as {state:?}", self.name);
        until(&what, async || {
            let room = self.client.get_room(room_id);
            Ok(room.filter(|room| room.state() == state))
        })
        .await
    }

    async fn say(&self, room_id: &RoomId, text: &str) -> Result<()> {
        let room = self.room(room_id, RoomState::Joined).await?;
        room.send(RoomMessageEventContent::text_plain(text)).await?;
        Ok(())
    }

    /// Opens a room, as when a person taps on it, and waits until its timeline shows a text.
    async fn reads(&self, room_id: &RoomId, text: &str) -> Result<()> {
        self.sync.room_list_service().subscribe_to_rooms(&[room_id]).await;
        let room = self.room(room_id, RoomState::Joined).await?;
        let timeline = Arc::new(room.timeline().await?);
        let what = format!("{} reads {text}", self.name);
        let read = until(&what, async || {
            let items = timeline.items().await;
            let shows = items.iter().any(|item| {
                let event = item.as_event();
                let message = event.and_then(|event| event.content().as_message());
                message.is_some_and(|message| message.body() == text)
            });
            Ok(shows.then_some(()))
        })
        .await;
        let items = timeline.items().await;
        read.with_context(|| format!("the timeline of {} is {items:#?}", self.name))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let base = std::env::args().nth(1).context("which server?")?;
    let run = std::process::id();
    let alice = Person::register(&base, &format!("alice{run}")).await?;
    let bob = Person::register(&base, &format!("bob{run}")).await?;
    println!("two users register and their apps sync");

    let mut request = CreateRoom::new();
    request.preset = Some(RoomPreset::PrivateChat);
    request.name = Some("Tea".to_owned());
    request.invite = vec![bob.user_id().to_owned()];
    request.is_direct = true;
    let encryption =
        InitialStateEvent::with_empty_state_key(RoomEncryptionEventContent::with_recommended_defaults());
    request.initial_state = vec![encryption.to_raw_any()];
    let room_id = alice.client.create_room(request).await?.room_id().to_owned();
    let invited = bob.room(&room_id, RoomState::Invited).await?;
    ensure!(
        invited.name().as_deref() == Some("Tea"),
        "the invitation says what it is to"
    );
    invited.join().await?;
    bob.room(&room_id, RoomState::Joined).await?;
    println!("one invites the other to an encrypted room, and is joined");

    let alices = alice.room(&room_id, RoomState::Joined).await?;
    until("the inviter sees who joined", async || {
        Ok((alices.joined_members_count() == 2).then_some(()))
    })
    .await?;
    for number in 0..5 {
        alice.say(&room_id, &format!("안녕 {number}")).await?;
    }
    bob.reads(&room_id, "안녕 4").await?;
    bob.reads(&room_id, "안녕 0").await?;
    bob.say(&room_id, "hello yourself").await?;
    alice.reads(&room_id, "hello yourself").await?;
    println!("they read each other, encrypted");

    // More rooms than fit in the first window of the list.
    for number in 0..30 {
        let mut request = CreateRoom::new();
        request.name = Some(format!("Room {number}"));
        alice.client.create_room(request).await?;
    }
    until("the list has all rooms", async || {
        Ok((alice.room_list().await?.len() == 31).then_some(()))
    })
    .await?;
    bob.say(&room_id, "up").await?;
    until("the room that somebody speaks in is on top", async || {
        Ok((alice.room_list().await?.first() == Some(&room_id)).then_some(()))
    })
    .await?;
    println!("the room list holds all rooms, the liveliest on top");

    // The app is closed and opened again; its connections go on.
    alice.sync.stop().await;
    bob.say(&room_id, "while you were away").await?;
    alice.sync.start().await;
    alice.reads(&room_id, "while you were away").await?;
    println!("an app that was closed catches up");

    bob.client
        .get_room(&room_id)
        .context("bob's room")?
        .leave()
        .await?;
    bob.room(&room_id, RoomState::Left).await?;
    until("the other sees who left", async || {
        Ok((alices.joined_members_count() == 1).then_some(()))
    })
    .await?;
    println!("who leaves is gone");
    alice.sync.stop().await;
    bob.sync.stop().await;
    Ok(())
}
