// Two people and one server, told through an unmodified matrix-js-sdk.
//
//     node story.mjs BASE_URL
//
// Prints `ok <step>` for every step; the first failure ends the story with one line and status 1.

import { Direction, Method, SlidingSync, describe, expect, failures, login, refused, register, start, step, until } from "./support.mjs";

const baseUrl = process.argv[2];
if (!baseUrl) {
    process.stderr.write("usage: node story.mjs BASE_URL\n");
    process.exit(2);
}

// Names nobody else has, so that the story can be told again to the same server.
const suffix = `${Date.now().toString(36)}${Math.floor(Math.random() * 1e6).toString(36)}`;
const aliceName = `alice-js-${suffix}`;
const password = "a long enough passphrase 27";

let alice;
let laptop; // Alice's second device.
let bob;
let roomId;

const text = (event) => event.getContent().body;
const find = (client, eventId) => client.getRoom(roomId)?.findEventById(eventId);
const messages = (client) =>
    client
        .getRoom(roomId)
        .getLiveTimeline()
        .getEvents()
        .filter((event) => event.getType() === "m.room.message")
        .map(text);

/** Sends a text message and returns its id. */
async function say(client, body) {
    const { event_id: eventId } = await client.sendTextMessage(roomId, body);
    return eventId;
}

async function accounts() {
    await step("register", async () => {
        alice = await register(baseUrl, aliceName, password);
        bob = await register(baseUrl, `bob-js-${suffix}`, password);
        expect(alice.getUserId() !== bob.getUserId(), "two accounts have one id");
        const { user_id: userId, device_id: deviceId } = await alice.whoami();
        expect(userId === alice.getUserId() && deviceId === alice.getDeviceId(), "whoami names somebody else");
        await refused(register(baseUrl, aliceName, password), 400, "M_USER_IN_USE");
    });
    await step("first sync", () => Promise.all([start(alice), start(bob)]));
    await step("second device", async () => {
        laptop = await login(baseUrl, aliceName, password);
        expect(laptop.getDeviceId() !== alice.getDeviceId(), "two logins share one device");
        const { devices } = await alice.getDevices();
        const names = devices.map((device) => device.display_name).sort();
        expect(names.join() === "first,second", `devices are ${names}`);
        await refused(login(baseUrl, aliceName, "wrong"), 403, "M_FORBIDDEN");
    });
    await step("profile", async () => {
        await bob.setDisplayName("Bob 🦊");
        const { displayname } = await alice.getProfileInfo(bob.getUserId());
        expect(displayname === "Bob 🦊", `the display name came back as ${displayname}`);
    });
}

async function room() {
    await step("create room", async () => {
        ({ room_id: roomId } = await alice.createRoom({ name: "Harbour", preset: "private_chat" }));
        await until(alice, "the new room", () => alice.getRoom(roomId)?.getMyMembership() === "join");
    });
    await step("invite", async () => {
        await alice.invite(roomId, bob.getUserId());
        await until(bob, "the invitation", () => bob.getRoom(roomId)?.getMyMembership() === "invite");
        expect(bob.getRoom(roomId).name === "Harbour", "the invitation does not name the room");
    });
    await step("join", async () => {
        await bob.joinRoom(roomId);
        await until(alice, "Bob among the members", () => {
            const member = alice.getRoom(roomId).getMember(bob.getUserId());
            return member?.membership === "join" && member.rawDisplayName === "Bob 🦊";
        });
        await until(bob, "the joined room", () => bob.getRoom(roomId).getMyMembership() === "join");
    });
    await step("send and receive", async () => {
        const hello = await say(alice, "hello, Bob");
        const heard = await until(bob, "Alice's message", () => find(bob, hello));
        expect(text(heard) === "hello, Bob" && heard.getSender() === alice.getUserId(), "the message was changed");
        const reply = await say(bob, "hello, Alice ✓");
        await until(alice, "Bob's reply", () => find(alice, reply));
        // Below the SDK's own bookkeeping, which would not send one transaction twice.
        const path = `/rooms/${encodeURIComponent(roomId)}/send/m.room.message/one-transaction`;
        const put = () => alice.http.authedRequest(Method.Put, path, undefined, { msgtype: "m.text", body: "once" });
        const [one, two] = await Promise.all([put(), put()]);
        expect(one.event_id === two.event_id, "one transaction id made two messages");
    });
}

async function history() {
    const count = 100;
    const expected = Array.from({ length: count }, (_, index) => `line ${index}`);
    await step("send a hundred", async () => {
        let last;
        for (const line of expected) last = await say(bob, line);
        await until(alice, "the last line", () => find(alice, last));
        const heard = messages(alice).filter((body) => body.startsWith("line "));
        expect(heard.join() === expected.join(), `the sync brought ${heard.length} lines, or in another order`);
    });
    await step("page back", async () => {
        // The second device starts with the last few events only and reads the rest page by page.
        await start(laptop, { initialSyncLimit: 5 });
        const room = await until(laptop, "the room", () => laptop.getRoom(roomId));
        expect(messages(laptop).length <= 5, "the first sync ignored its limit");
        while (room.oldState.paginationToken) await laptop.scrollback(room, 30);
        const read = messages(laptop).filter((body) => body.startsWith("line "));
        expect(read.join() === expected.join(), `paging brought ${read.length} of ${count} lines, or in another order`);
        const first = room.getLiveTimeline().getEvents()[0];
        expect(first.getType() === "m.room.create", `the oldest event is ${first.getType()}`);
    });
    await step("page forwards", async () => {
        const page = await laptop.createMessagesRequest(roomId, null, 10, Direction.Forward);
        expect(page.chunk.length === 10, `the first page has ${page.chunk.length} events`);
        expect(page.chunk[0].type === "m.room.create", `the first event is ${page.chunk[0].type}`);
    });
}

async function state() {
    await step("state", async () => {
        await alice.setRoomName(roomId, "Harbour Café");
        await alice.setRoomTopic(roomId, "Ships & tides");
        await until(bob, "the new name", () => bob.getRoom(roomId).name === "Harbour Café");
        const topic = await bob.getStateEvent(roomId, "m.room.topic", "");
        expect(topic.topic === "Ships & tides", `the topic is ${JSON.stringify(topic)}`);
        await alice.sendStateEvent(roomId, "org.example.berth", { number: 7 }, "north");
        const berth = await bob.getStateEvent(roomId, "org.example.berth", "north");
        expect(berth.number === 7, `the state came back as ${JSON.stringify(berth)}`);
        await refused(bob.setRoomName(roomId, "Bob's"), 403, "M_FORBIDDEN");
        await refused(bob.getStateEvent(roomId, "org.example.berth", "south"), 404, "M_NOT_FOUND");
    });
}

async function ephemeral() {
    await step("typing", async () => {
        const typing = () => alice.getRoom(roomId).getMember(bob.getUserId()).typing;
        await bob.sendTyping(roomId, true, 30_000);
        await until(alice, "Bob typing", typing);
        await bob.sendTyping(roomId, false, 0);
        await until(alice, "Bob at rest", () => !typing());
    });
    await step("read receipt and unread count", async () => {
        const eventId = await say(alice, "are you there?");
        const event = await until(bob, "the message", () => find(bob, eventId));
        await until(bob, "an unread message", () => bob.getRoom(roomId).getUnreadNotificationCount("total") > 0);
        await bob.sendReadReceipt(event);
        const seen = () => alice.getRoom(roomId).getReadReceiptForUserId(bob.getUserId(), true)?.eventId === eventId;
        await until(alice, "Bob's receipt", seen);
        await until(bob, "no unread message", () => bob.getRoom(roomId).getUnreadNotificationCount("total") === 0);
    });
    await step("presence", async () => {
        await bob.setPresence({ presence: "online", status_msg: "mending nets" });
        await until(alice, "Bob's presence", () => {
            const user = alice.getUser(bob.getUserId());
            return user?.presence === "online" && user.presenceStatusMsg === "mending nets";
        });
    });
}

async function relations() {
    await step("redaction", async () => {
        const eventId = await say(alice, "a slip of the tongue");
        await until(bob, "the message", () => find(bob, eventId));
        await alice.redactEvent(roomId, eventId, undefined, { reason: "a slip" });
        const event = await until(bob, "the redaction", () => find(bob, eventId)?.isRedacted() && find(bob, eventId));
        expect(text(event) === undefined, "Bob's client still shows the body");
        const stored = await bob.fetchRoomEvent(roomId, eventId);
        expect(Object.keys(stored.content).length === 0, "the server still has the content");
        expect(stored.unsigned?.redacted_because?.content?.reason === "a slip", "the reason of the redaction is lost");
    });
    await step("reaction", async () => {
        const eventId = await say(alice, "fish on Friday?");
        const reaction = { "m.relates_to": { rel_type: "m.annotation", event_id: eventId, key: "👍" } };
        const { event_id: reactionId } = await bob.sendEvent(roomId, "m.reaction", reaction);
        await until(alice, "the reaction", () => {
            const tally = alice
                .getRoom(roomId)
                .relations.getChildEventsForEvent(eventId, "m.annotation", "m.reaction")
                ?.getSortedAnnotationsByKey();
            return tally?.some(([key, events]) => key === "👍" && events.size === 1);
        });
        const { events } = await alice.relations(roomId, eventId, "m.annotation", "m.reaction");
        expect(events.map((event) => event.getId()).join() === reactionId, "the server lists other reactions");
    });
    await step("edit", async () => {
        const eventId = await say(alice, "seven o'clok");
        const { event_id: editId } = await alice.sendMessage(roomId, {
            msgtype: "m.text",
            body: "* seven o'clock",
            "m.new_content": { msgtype: "m.text", body: "seven o'clock" },
            "m.relates_to": { rel_type: "m.replace", event_id: eventId },
        });
        await until(bob, "the edited text", () => find(bob, eventId) && text(find(bob, eventId)) === "seven o'clock");
        const bundled = await bob.fetchRoomEvent(roomId, eventId);
        const replacement = bundled.unsigned?.["m.relations"]?.["m.replace"];
        expect(replacement?.event_id === editId, "the edit is not bundled with the message");
    });
    await step("thread", async () => {
        const root = await say(alice, "about the nets");
        const relation = { rel_type: "m.thread", event_id: root };
        await bob.sendMessage(roomId, { msgtype: "m.text", body: "which?", "m.relates_to": relation });
        const bundled = await alice.fetchRoomEvent(roomId, root);
        const summary = bundled.unsigned?.["m.relations"]?.["m.thread"];
        expect(summary?.count === 1, `the thread is summed up as ${JSON.stringify(summary)}`);
        expect(summary.latest_event.content.body === "which?", "the summary shows another message");
        expect(summary.current_user_participated === true, "the author of the root does not take part");
    });
}

async function searching() {
    await step("search", async () => {
        const first = await say(alice, "내일 회의실에서 그물을 고칩니다");
        const second = await say(bob, "회의실은 닫혔습니다");
        const search = () => alice.searchRoomEvents({ term: "회의", filter: { rooms: [roomId], limit: 1 } });
        let found = await search();
        // The index follows the room within a second.
        for (let tries = 0; tries < 100 && found.count < 2; tries += 1) {
            await new Promise((resolve) => setTimeout(resolve, 100));
            found = await search();
        }
        const ids = () => found.results.map((result) => result.context.getEvent().getId()).join();
        expect(ids() === second, `the newest result is ${ids()}`);
        expect(found.highlights.join() === "회의", `the highlights are ${found.highlights}`);
        const around = found.results[0].context.getTimeline().map((event) => event.getId());
        expect(around.includes(first), "the message before the result is not shown with it");
        found = await alice.backPaginateRoomEventsSearch(found);
        expect(ids() === [second, first].join(), `the results are ${ids()}`);
        await alice.redactEvent(roomId, first);
        found = await search();
        expect(ids() === second && !found.next_batch, "a redacted message is found");
    });
}

async function media() {
    await step("upload and download", async () => {
        const bytes = Uint8Array.from({ length: 70_000 }, (_, index) => (index * 31) % 251);
        const file = new Blob([bytes], { type: "application/octet-stream" });
        const { content_uri: uri } = await alice.uploadContent(file, { name: "tide table.bin" });
        expect(uri.startsWith("mxc://"), `the content URI is ${uri}`);
        const url = bob.mxcUrlToHttp(uri, undefined, undefined, undefined, undefined, true, true);
        expect((await fetch(url)).status === 401, "media is served without a token");
        const answer = await fetch(url, { headers: { Authorization: `Bearer ${bob.getAccessToken()}` } });
        expect(answer.status === 200, `the download answers ${answer.status}`);
        expect(answer.headers.get("content-type") === "application/octet-stream", "the content type is lost");
        expect(Buffer.compare(Buffer.from(await answer.arrayBuffer()), Buffer.from(bytes)) === 0, "bytes differ");
    });
}

async function direct() {
    await step("direct room", async () => {
        const bobId = bob.getUserId();
        const options = { is_direct: true, preset: "trusted_private_chat", invite: [bobId] };
        const { room_id: directId } = await alice.createRoom(options);
        await alice.setAccountData("m.direct", { [bobId]: [directId] });
        await until(laptop, "m.direct on the other device", () => {
            const direct = laptop.getAccountData("m.direct")?.getContent();
            return direct?.[bobId]?.[0] === directId;
        });
        await until(bob, "the invitation", () => bob.getRoom(directId)?.getDMInviter() === alice.getUserId());
        await bob.joinRoom(directId);
        await until(alice, "Bob in the direct room", () => alice.getRoom(directId)?.getJoinedMemberCount() === 2);
    });
}

async function encrypted() {
    await step("encrypted room", async () => {
        const initialState = [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }];
        const options = { preset: "private_chat", invite: [bob.getUserId()], initial_state: initialState };
        const { room_id: secretId } = await alice.createRoom(options);
        await until(bob, "the invitation", () => bob.getRoom(secretId)?.getMyMembership() === "invite");
        await bob.joinRoom(secretId);
        await until(alice, "Bob in the room", () => alice.getRoom(secretId)?.getJoinedMemberCount() === 2);
        const { event_id: eventId } = await alice.sendTextMessage(secretId, "the tide is at four");
        const stored = await bob.fetchRoomEvent(secretId, eventId);
        expect(stored.type === "m.room.encrypted" && stored.content.body === undefined, "it was sent in the clear");
        for (const reader of [bob, laptop]) {
            await until(reader, "the decrypted text", () => {
                const event = reader.getRoom(secretId)?.findEventById(eventId);
                return event && text(event) === "the tide is at four";
            });
        }
    });
}

async function farewell() {
    await step("sliding sync", async () => {
        const tablet = await login(baseUrl, aliceName, password);
        const room = { timeline_limit: 5, required_state: [["*", "*"]] };
        const lists = new Map([["all", { ranges: [[0, 19]], ...room }]]);
        const slidingSync = new SlidingSync(baseUrl, lists, room, tablet, 10_000);
        await start(tablet, { slidingSync });
        await until(tablet, "the room", () => tablet.getRoom(roomId)?.getMyMembership() === "join");
        const eventId = await say(bob, "to the tablet");
        await until(tablet, "the message", () => find(tablet, eventId));
        expect(slidingSync.getListData("all").joinedCount > 1, "the list does not count its rooms");
        tablet.stopClient();
        await tablet.logout();
    });
    await step("leave", async () => {
        await bob.leave(roomId);
        await until(alice, "Bob gone", () => alice.getRoom(roomId).getMember(bob.getUserId()).membership === "leave");
        await refused(bob.sendTextMessage(roomId, "still here?"), 403, "M_FORBIDDEN");
    });
    await step("logout", async () => {
        const token = laptop.getAccessToken();
        await laptop.logout(true);
        const headers = { Authorization: `Bearer ${token}` };
        await refused(
            alice.http.requestOtherUrl(Method.Get, new URL("/_matrix/client/v3/account/whoami", baseUrl), undefined, { headers }),
            401,
            "M_UNKNOWN_TOKEN",
        );
        const { devices } = await alice.getDevices();
        expect(devices.length === 1, "the device outlived its logout");
    });
}

try {
    await accounts();
    await room();
    await history();
    await state();
    await ephemeral();
    await relations();
    await searching();
    await media();
    await direct();
    await encrypted();
    await farewell();
} catch (error) {
    failures.push(error);
} finally {
    for (const client of [alice, laptop, bob]) client?.stopClient();
}
for (const failure of failures) {
    process.stderr.write(`FAILED ${describe(failure)}\n`);
    if (process.env.STORY_VERBOSE) console.error(failure);
    process.exitCode = 1;
}
// Timers of the SDK must not keep a finished story alive.
process.exit();
