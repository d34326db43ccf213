// Somebody who uses a browser, told through a page on an unmodified matrix-js-sdk in headless Chromium: registers,
// chats, reloads the page and still sees everything.
//
//     node browser.mjs BASE_URL
//
// Prints `ok <step>` for every step; the first failure ends the story with one line and status 1. CHROMIUM names the
// browser where it is not /usr/bin/chromium.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";
import { chromium } from "playwright-core";

import { describe, expect, failures, register, start, step, until } from "./support.mjs";

const baseUrl = process.argv[2];
if (!baseUrl) {
    process.stderr.write("usage: node browser.mjs BASE_URL\n");
    process.exit(2);
}

const suffix = `${Date.now().toString(36)}${Math.floor(Math.random() * 1e6).toString(36)}`;
const password = "a long enough passphrase 27";

/** How long something may take to be seen, in milliseconds. */
const DEADLINE = Number(process.env.STORY_DEADLINE_MS ?? 20_000);

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

let files;
let browser;
let page;
let alice; // Her user id; she is in the browser.
let bob;
let carol;
let roomId;
let secretId;

/** Serves the page on a free port of this machine: another origin than the server's, as with real clients. */
async function serve() {
    const bundle = await build({
        entryPoints: [here("page.mjs")],
        bundle: true,
        format: "esm",
        target: "chrome120",
        write: false,
        define: { global: "globalThis", "process.env.NODE_ENV": '"production"' },
        logLevel: "error",
    });
    const wasm = "node_modules/@matrix-org/matrix-sdk-crypto-wasm/pkg/matrix_sdk_crypto_wasm_bg.wasm";
    const served = {
        "/": ["text/html", '<!doctype html><meta charset="utf-8"><body><script type="module" src="page.js"></script></body>'],
        "/page.js": ["text/javascript", bundle.outputFiles[0].contents],
        "/pkg/matrix_sdk_crypto_wasm_bg.wasm": ["application/wasm", await readFile(here(wasm))],
    };
    files = createServer((request, response) => {
        const [type, content] = served[new URL(request.url, "http://page").pathname] ?? [];
        if (type) response.setHeader("Content-Type", type);
        else response.statusCode = 404;
        response.end(content);
    });
    await new Promise((listening) => files.listen(0, "127.0.0.1", listening));
    return `http://127.0.0.1:${files.address().port}/?server=${encodeURIComponent(baseUrl)}`;
}

/** Calls one of the page's functions. */
const app = (name, ...args) => page.evaluate(([name, args]) => window.app[name](...args), [name, args]);

/** Waits until the page shows all of these lines and none of those. */
async function sees(lines, not = []) {
    const wanted = ([lines, not]) => {
        const shown = document.body.innerText.split("\n");
        return lines.every((line) => shown.includes(line)) && !not.some((line) => shown.includes(line));
    };
    try {
        await page.waitForFunction(wanted, [lines, not], { timeout: DEADLINE });
    } catch {
        const shown = await page.evaluate(() => document.body.innerText);
        throw new Error(`the page shows, instead of ${JSON.stringify(lines)} without ${JSON.stringify(not)}:\n${shown}`);
    }
}

/** What the page complained of where nobody waited for it. */
async function noErrors() {
    const errors = await page.evaluate(() => window.app.errors);
    expect(errors.length === 0, `the page had errors: ${errors.join("; ")}`);
}

/** Reloads the page and waits until it has heard from the server. */
async function reload() {
    await noErrors();
    await page.reload();
    await page.waitForFunction(() => document.body.dataset.sync === "SYNCING", undefined, { timeout: DEADLINE });
}

async function arrive(url) {
    await step("open the page", async () => {
        browser = await chromium.launch({
            executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
            args: [
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        });
        page = await browser.newPage();
        if (process.env.STORY_VERBOSE) page.on("console", (message) => console.error(message.text()));
        await page.goto(url);
    });
    await step("register in the browser", async () => {
        alice = await app("register", `alice-page-${suffix}`, password);
        await page.waitForFunction(() => document.body.dataset.sync === "SYNCING", undefined, { timeout: DEADLINE });
        await app("setDisplayName", "Alice");
    });
    await step("others", async () => {
        bob = await register(baseUrl, `bob-page-${suffix}`, password);
        carol = await register(baseUrl, `carol-page-${suffix}`, password);
        await Promise.all([bob.setDisplayName("Bob 🦊"), carol.setDisplayName("Carol")]);
        await Promise.all([start(bob), start(carol)]);
    });
}

async function chat() {
    await step("room", async () => {
        roomId = await app("createRoom", { name: "Harbour", preset: "private_chat", invite: [bob.getUserId()] });
        await until(bob, "the invitation", () => bob.getRoom(roomId)?.getMyMembership() === "invite");
        await bob.joinRoom(roomId);
        await sees(["[join] Harbour"]);
    });
    await step("threads", async () => {
        const { event_id: root } = await bob.sendTextMessage(roomId, "about the nets");
        await sees(["Bob 🦊: about the nets"]);
        // The SDK knows of no thread yet, so an echo that comes before the answer makes it throw. Often enough for that.
        for (let count = 1; count <= 20; count += 1) await app("say", roomId, `net ${count}`, root);
        await noErrors();
        // It shows the thread as soon as somebody else has answered.
        await bob.sendMessage(roomId, root, { msgtype: "m.text", body: "that one" });
        await sees(["Alice: net 1", "Alice: net 20", "Bob 🦊: that one"]);
    });
    await step("chat", async () => {
        await app("say", roomId, "hello, Bob");
        await until(bob, "Alice's message", () =>
            bob.getRoom(roomId).getLiveTimeline().getEvents().some((event) => event.getContent().body === "hello, Bob"),
        );
        await bob.sendTextMessage(roomId, "hello, Alice");
        await sees(["Alice: hello, Bob", "Bob 🦊: hello, Alice"]);
    });
    await step("encrypted room", async () => {
        const encryption = { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };
        const options = { name: "Secret", invite: [bob.getUserId()], initial_state: [encryption] };
        secretId = await app("createRoom", options);
        await until(bob, "the invitation", () => bob.getRoom(secretId)?.getMyMembership() === "invite");
        await bob.joinRoom(secretId);
        await sees(["[join] Secret"]);
        await until(bob, "the joined room", () => bob.getRoom(secretId)?.getMyMembership() === "join");
        await bob.sendTextMessage(secretId, "the tide is at four");
        await sees(["Bob 🦊: the tide is at four"]);
    });
}

async function comeBack() {
    const newest = ["Alice: hello, Bob", "Bob 🦊: hello, Alice", "Bob 🦊: the tide is at four"];
    await step("reload", async () => {
        // The store is written when the page opens and then every five minutes: it knows of no room. More was said than a
        // sync brings, so that what it brings must do by itself.
        await reload();
        await sees(["[join] Harbour", "[join] Secret", ...newest]);
        await app("scrollBack", roomId);
        await sees(["Bob 🦊: about the nets", "Alice: net 1", "Alice: net 20"]);
        await bob.sendTextMessage(roomId, "still there?");
        await sees(["Bob 🦊: still there?"]);
        await app("say", roomId, "of course");
        await sees(["Alice: of course"]);
    });
    await step("reload with newcomers", async () => {
        // Now the store knows the rooms, and not who has come since.
        await bob.invite(roomId, carol.getUserId());
        await until(carol, "the invitation", () => carol.getRoom(roomId)?.getMyMembership() === "invite");
        await carol.joinRoom(roomId);
        await carol.sendTextMessage(roomId, "good morning");
        await sees(["Carol: good morning"]);
        for (let count = 1; count <= 30; count += 1) await carol.sendTextMessage(roomId, `wave ${count}`);
        await sees(["Carol: wave 30"]);
        await reload();
        await sees(["[join] Harbour", "[join] Secret", "Carol: wave 30"]);
        await noErrors();
    });
}

async function invitations() {
    await step("declined invitation", async () => {
        const invite = [alice];
        const { room_id: unwanted } = await bob.createRoom({ name: "Bilge", preset: "private_chat", invite });
        await sees(["[invite] Bilge"]);
        await app("leave", unwanted);
        await sees([], ["[invite] Bilge"]);
        await reload();
        await sees(["[join] Harbour"], ["[invite] Bilge"]);
    });
    await step("withdrawn invitation", async () => {
        const invite = [alice];
        const { room_id: withdrawn } = await bob.createRoom({ name: "Keel", preset: "private_chat", invite });
        await sees(["[invite] Keel"]);
        await bob.kick(withdrawn, alice);
        await sees([], ["[invite] Keel"]);
        await noErrors();
    });
}

try {
    await arrive(await serve());
    await chat();
    await comeBack();
    await invitations();
} catch (error) {
    failures.push(error);
} finally {
    for (const client of [bob, carol]) client?.stopClient();
    await browser?.close();
    files?.close();
}
for (const failure of failures) {
    process.stderr.write(`FAILED ${describe(failure)}\n`);
    if (process.env.STORY_VERBOSE) console.error(failure);
    process.exitCode = 1;
}
// Timers of the SDK must not keep a finished story alive.
process.exit();
