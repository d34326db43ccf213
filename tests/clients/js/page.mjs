// A small chat client in a browser: matrix-js-sdk with its IndexedDB store and its crypto, members loaded lazily, threads
// on. It shows rooms and messages as text; the story in browser.mjs drives it through `window.app` and reads what a person
// would see.

import * as sdk from "matrix-js-sdk";

const baseUrl = new URLSearchParams(location.search).get("server");
const stored = localStorage.getItem("session");

/** What went wrong where nobody waited for it. */
const errors = [];
window.addEventListener("error", ({ message }) => errors.push(message));
window.addEventListener("unhandledrejection", ({ reason }) => errors.push(String(reason?.message ?? reason)));

let client;

/** Registers as clients do that know nothing of the server: the first request asks for the flows. */
async function register(username, password) {
    const guest = sdk.createClient({ baseUrl });
    const asked = await guest.registerRequest({}).then(
        () => undefined,
        (error) => error,
    );
    if (asked?.httpStatus !== 401 || !asked.data?.flows?.length) {
        throw new Error(`the server does not say how to register: ${asked?.httpStatus} ${asked?.errcode}`);
    }
    const auth = new sdk.InteractiveAuth({
        matrixClient: guest,
        authData: asked.data,
        supportedStages: ["m.login.dummy"],
        doRequest: (auth) => guest.registerRequest({ username, password, auth: auth ?? undefined }),
        stateUpdated: (stage) => {
            throw new Error(`registration asks for ${stage}`);
        },
        requestEmailToken: () => Promise.reject(new Error("registration asks for an e-mail address")),
    });
    const answer = await auth.attemptAuth();
    const session = { userId: answer.user_id, deviceId: answer.device_id, accessToken: answer.access_token };
    localStorage.setItem("session", JSON.stringify(session));
    await start(session);
    return session.userId;
}

/** Starts the client on what the store has, as after a reload of the page. */
async function start(session) {
    const store = new sdk.IndexedDBStore({ indexedDB, localStorage, dbName: "story" });
    client = sdk.createClient({ baseUrl, store, timelineSupport: true, ...session });
    await store.startup();
    await client.initRustCrypto();
    const changes = [
        sdk.ClientEvent.Sync,
        sdk.ClientEvent.Room,
        sdk.RoomEvent.Name,
        sdk.RoomEvent.Timeline,
        sdk.RoomEvent.MyMembership,
        sdk.RoomMemberEvent.Name,
        sdk.MatrixEventEvent.Decrypted,
    ];
    for (const event of changes) client.on(event, render);
    await client.startClient({ lazyLoadMembers: true, threadSupport: true, initialSyncLimit: 20 });
}

/** Writes down what there is to see: a line a room, and below it a line a message. */
function render() {
    const lines = [];
    for (const room of client.getRooms()) {
        const membership = room.getMyMembership();
        if (membership !== "join" && membership !== "invite") continue;
        lines.push(`[${membership}] ${room.name}`);
        const events = [...room.getLiveTimeline().getEvents()];
        for (const thread of room.getThreads()) events.push(...thread.events.filter((event) => event.getId() !== thread.id));
        for (const event of events) {
            if (event.getType() !== "m.room.message") continue;
            const name = room.getMember(event.getSender())?.name ?? "somebody unknown";
            lines.push(`${name}: ${event.getContent().body}`);
        }
    }
    document.body.dataset.sync = client.getSyncState() ?? "";
    document.body.innerText = lines.join("\n");
}

/** Sends a text, in a thread where one is named. */
async function say(roomId, body, threadId = null) {
    const { event_id: eventId } = await client.sendMessage(roomId, threadId, { msgtype: "m.text", body });
    return eventId;
}

window.app = {
    errors,
    register,
    say,
    createRoom: async (options) => (await client.createRoom(options)).room_id,
    joinRoom: (roomId) => client.joinRoom(roomId),
    scrollBack: async (roomId) => {
        await client.scrollback(client.getRoom(roomId), 50);
        render();
    },
    leave: (roomId) => client.leave(roomId),
    setDisplayName: (name) => client.setDisplayName(name),
};

if (stored) start(JSON.parse(stored)).catch((error) => errors.push(error.message));
