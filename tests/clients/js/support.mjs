// What every story step leans on: accounts made through the SDK, steps with names, and waiting for
// conditions instead of for time.

// The SDK is written for Node 22; this is the one language built-in it uses that Node 20 lacks.
Promise.withResolvers ??= function withResolvers() {
    let resolve;
    let reject;
    const promise = new this((yes, no) => ([resolve, reject] = [yes, no]));
    return { promise, resolve, reject };
};

// After the shim above, hence no static import.
const sdk = await import("matrix-js-sdk");
export const { SlidingSync } = await import("matrix-js-sdk/lib/sliding-sync.js");

// The SDK's loggers look these up at every call; the story itself reports through `console.log`.
if (!process.env.STORY_VERBOSE) {
    for (const level of ["trace", "debug", "info", "warn", "error"]) console[level] = () => {};
}

export const { Direction, InteractiveAuth, Method, createClient } = sdk;

/** How long a condition may take to come true, in milliseconds. */
const DEADLINE = Number(process.env.STORY_DEADLINE_MS ?? 20_000);

/** Stops the story with one line when `condition` does not hold. */
export function expect(condition, complaint) {
    if (!condition) throw new Error(complaint);
}

/** Steps that failed while the story went on, with STORY_KEEP_GOING. */
export const failures = [];

/** Runs one named step and reports it. A failure names the step and ends the story. */
export async function step(name, action) {
    try {
        await within(action(), `the step did not finish within ${3 * DEADLINE} ms`, 3 * DEADLINE);
    } catch (error) {
        const failure = new Error(`${name}: ${describe(error)}`, { cause: error });
        if (!process.env.STORY_KEEP_GOING) throw failure;
        failures.push(failure);
        return;
    }
    console.log(`ok ${name}`);
}

/**
 * Waits until `probe` gives something truthy and returns it. The probe is asked again whenever the client
 * has taken in an answer to a sync request or has changed its view of a room, a user or its own data.
 */
export function until(client, what, probe) {
    const events = [
        sdk.ClientEvent.Sync,
        sdk.ClientEvent.AccountData,
        sdk.RoomEvent.Timeline,
        sdk.RoomEvent.Receipt,
        sdk.RoomEvent.MyMembership,
        sdk.RoomEvent.UnreadNotifications,
        sdk.RoomStateEvent.Events,
        sdk.RoomMemberEvent.Typing,
        sdk.UserEvent.Presence,
        sdk.MatrixEventEvent.Decrypted,
        sdk.MatrixEventEvent.Replaced,
    ];
    const { promise, resolve, reject } = Promise.withResolvers();
    const look = () => {
        try {
            const found = probe();
            if (found) resolve(found);
        } catch (error) {
            reject(error);
        }
    };
    // Listeners of the same event run in turn; looking once they are all done sees the finished picture.
    const soon = () => setImmediate(look);
    for (const event of events) client.on(event, soon);
    look();
    return within(promise, `waited ${DEADLINE} ms for ${what}`, DEADLINE).finally(() => {
        for (const event of events) client.off(event, soon);
    });
}

/** Checks that `request` is refused with this status and errcode. */
export async function refused(request, status, errcode) {
    try {
        await request;
    } catch (error) {
        expect(
            error.httpStatus === status && error.errcode === errcode,
            `expected ${status} ${errcode}, got ${describe(error)}`,
        );
        return;
    }
    throw new Error(`expected ${status} ${errcode}, but the request succeeded`);
}

/** Registers an account by the interactive dummy stage and returns a client for its first device. */
export async function register(baseUrl, username, password) {
    const guest = createClient({ baseUrl });
    const auth = new InteractiveAuth({
        matrixClient: guest,
        supportedStages: ["m.login.dummy"],
        // The first request carries no `auth`, so that the server names its flows.
        doRequest: (auth) =>
            guest.registerRequest({ username, password, initial_device_display_name: "first", auth: auth ?? undefined }),
        stateUpdated: (stage) => {
            throw new Error(`registration asks for ${stage}, which this story cannot do`);
        },
        requestEmailToken: () => Promise.reject(new Error("registration asks for an e-mail address")),
    });
    return session(baseUrl, await auth.attemptAuth());
}

/** Logs in by password, which makes another device. */
export async function login(baseUrl, username, password) {
    const answer = await createClient({ baseUrl }).loginRequest({
        type: "m.login.password",
        identifier: { type: "m.id.user", user: username },
        password,
        initial_device_display_name: "second",
    });
    return session(baseUrl, answer);
}

/** Makes the device's keys, starts syncing and waits until the first answer has been taken in. */
export async function start(client, options = {}) {
    await client.initRustCrypto({ useIndexedDB: false });
    await client.startClient({ initialSyncLimit: 20, ...options });
    await until(client, "the first sync", () => client.isInitialSyncComplete());
}

/** One line about an error, with the server's status and errcode when there are any. */
export function describe(error) {
    if (error?.errcode) return `${error.httpStatus} ${error.errcode} (${error.data?.error ?? "no text"})`;
    return error?.message ?? String(error);
}

function session(baseUrl, { user_id: userId, device_id: deviceId, access_token: accessToken }) {
    expect(userId && deviceId && accessToken, "the answer lacks user_id, device_id or access_token");
    return createClient({ baseUrl, userId, deviceId, accessToken });
}

async function within(promise, complaint, milliseconds) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(complaint)), milliseconds);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
