"""A bridge and a person, told through the AppService of an unmodified mautrix, which mautrix bridges and maubot stand on.

    python story.py register FOLDER        writes the bridge's registration, with a free port
    python story.py tell BASE_URL FOLDER   tells the story to a server that was started with it

Prints `ok <step>` for every step; the first failure ends the story with one line and status 1.
"""

import asyncio
import json
import os
import pathlib
import socket
import sys
import time

import aiohttp
from mautrix.appservice import AppService
from mautrix.appservice.state_store import FileASStateStore
from mautrix.types import EventType, Format, Membership, MessageType, RoomCreatePreset

# How long a condition may take to come true, in seconds.
DEADLINE = int(os.environ.get("STORY_DEADLINE_MS", "20000")) / 1000
SUFFIX = f"{time.time_ns():x}"


class Failure(Exception):
    """A step that did not go as it should; the text is the one line to show."""


def expect(condition, complaint):
    """Stops the story with one line when `condition` does not hold."""
    if not condition:
        raise Failure(complaint)


async def step(name, action):
    """Runs one named step and reports it."""
    try:
        await asyncio.wait_for(action(), 2 * DEADLINE)
    except Exception as error:
        raise Failure(f"{name}: {type(error).__name__}: {error}") from error
    print(f"ok {name}", flush=True)


def register(folder):
    """Writes a registration as bridges do; its port is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    registration = {
        "id": "puppets",
        "url": f"http://127.0.0.1:{port}",
        "as_token": "as_token_of_the_story",
        "hs_token": "hs_token_of_the_story",
        "sender_localpart": "puppetbot",
        "namespaces": {
            "users": [{"exclusive": True, "regex": "@puppet_.*"}],
            "aliases": [{"exclusive": True, "regex": "#puppet_.*"}],
        },
        "rate_limited": False,
        "receive_ephemeral": True,
        "de.sorunome.msc2409.push_ephemeral": True,
        "org.matrix.msc3202": True,
        "io.element.msc4190": True,
    }
    (pathlib.Path(folder) / "puppets.yaml").write_text(json.dumps(registration, indent=2))


class Person:
    """Somebody with a client of a few lines."""

    def __init__(self, session, base_url):
        self.session, self.base_url, self.token = session, base_url, None
        self.user_id = self.domain = None

    async def call(self, method, path, body=None):
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        url = f"{self.base_url}/_matrix/client/v3/{path}"
        async with self.session.request(method, url, json=body, headers=headers) as answer:
            expect(answer.status == 200, f"{path}: {answer.status} {await answer.text()}")
            return await answer.json()

    async def register(self, name):
        body = {"username": name, "password": "a long enough one", "auth": {"type": "m.login.dummy"}}
        session = await self.call("POST", "register", body)
        self.token, self.user_id = session["access_token"], session["user_id"]
        self.domain = self.user_id.split(":", 1)[1]


class Story:
    """The bridge, the person, the room where they meet, and the chapters in order."""

    def __init__(self, base_url, folder):
        self.base_url, self.folder = base_url, pathlib.Path(folder)
        self.registration = json.loads((self.folder / "puppets.yaml").read_text())
        self.heard, self.news = [], asyncio.Event()
        self.room_id = self.bridge = self.puppet = None

    async def tell(self):
        async with aiohttp.ClientSession() as session:
            self.alice = Person(session, self.base_url)
            await self.alice.register(f"alice{SUFFIX}")
            await self.start()
            try:
                await step("ping", self.ping)
                await step("portal room", self.portal)
                await step("hear a person", self.hear)
                await step("puppet speaks", self.speak)
                await step("message from the past", self.past)
                await step("state and redaction", self.state)
                await step("typing and receipts", self.passing)
                await step("messages to a device", self.devices)
                await step("a puppet is asked for", self.asked_for)
            finally:
                await self.bridge.stop()

    async def start(self):
        port = int(self.registration["url"].rsplit(":", 1)[1])
        self.bridge = AppService(
            id=self.registration["id"],
            server=self.base_url,
            domain=self.alice.domain,
            as_token=self.registration["as_token"],
            hs_token=self.registration["hs_token"],
            bot_localpart=self.registration["sender_localpart"],
            state_store=FileASStateStore(path=str(self.folder / f"state{SUFFIX}.json"), binary=False),
            ephemeral_events=True,
            encryption_events=True,
        )
        self.bridge.matrix_event_handler(self.keep)
        self.bridge.to_device_handler = self.keep
        self.bridge.query_user = self.make
        self.asked = []
        await self.bridge.start("127.0.0.1", port)
        self.puppet = self.bridge.intent.user(f"@puppet_{SUFFIX}:{self.alice.domain}")

    async def keep(self, event):
        self.heard.append(event)
        self.news.set()

    async def make(self, user_id):
        self.asked.append(user_id)
        await self.bridge.intent.user(user_id).ensure_registered()
        # What is empty mautrix takes for no.
        return {"made": True}

    async def until(self, what, found):
        """Waits until the bridge has heard something."""
        deadline = time.monotonic() + DEADLINE
        while True:
            self.news.clear()
            for event in list(self.heard):
                if found(event):
                    return event
            left = deadline - time.monotonic()
            expect(left > 0, f"waited in vain for {what}")
            try:
                await asyncio.wait_for(self.news.wait(), left)
            except asyncio.TimeoutError:
                pass

    async def ping(self):
        expect(await self.bridge.ping_self("t1") >= 0, "no time for the ping")
        who = await self.bridge.intent.whoami()
        expect(who.user_id == self.bridge.bot_mxid, f"the bot is {who.user_id}")

    async def portal(self):
        self.room_id = await self.bridge.intent.create_room(
            alias_localpart=f"puppet_{SUFFIX}",
            preset=RoomCreatePreset.PRIVATE,
            invitees=[self.alice.user_id],
            name="Portal",
        )
        await self.puppet.set_displayname("A puppet")
        await self.puppet.ensure_joined(self.room_id)
        await self.alice.call("POST", f"rooms/{self.room_id}/join", {})
        joined = lambda event: event.type == EventType.ROOM_MEMBER and (
            event.state_key == self.alice.user_id and event.content.membership == Membership.JOIN
        )
        await self.until("the join", joined)
        members = await self.bridge.intent.get_room_members(self.room_id)
        expect(set(members) == {self.bridge.bot_mxid, self.puppet.mxid, self.alice.user_id}, f"{members}")

    async def hear(self):
        for number in range(20):
            body = {"msgtype": "m.text", "body": f"number {number}"}
            await self.alice.call("PUT", f"rooms/{self.room_id}/send/m.room.message/{number}", body)
        said = lambda event: event.type == EventType.ROOM_MESSAGE and event.content.body == "number 19"
        last = await self.until("the last message", said)
        expect(last.sender == self.alice.user_id and last.room_id == self.room_id, f"{last}")
        texts = [event.content.body for event in self.heard if event.type == EventType.ROOM_MESSAGE]
        expect(texts == [f"number {number}" for number in range(20)], f"{texts}")

    async def speak(self):
        event_id = await self.puppet.send_text(self.room_id, text="from elsewhere", html="<b>from</b> elsewhere")
        own = await self.until("the puppet's own message", lambda event: getattr(event, "event_id", "") == event_id)
        expect(own.sender == self.puppet.mxid and own.content.msgtype == MessageType.TEXT, f"{own}")
        expect(own.content.format == Format.HTML, f"{own}")
        seen = await self.alice.call("GET", f"rooms/{self.room_id}/event/{event_id}")
        expect(seen["sender"] == self.puppet.mxid, f"{seen}")

    async def past(self):
        event_id = await self.puppet.send_text(self.room_id, text="long ago", timestamp=1_000_000_000_000)
        seen = await self.alice.call("GET", f"rooms/{self.room_id}/event/{event_id}")
        expect(seen["origin_server_ts"] == 1_000_000_000_000, f"{seen}")

    async def state(self):
        await self.bridge.intent.set_room_topic(self.room_id, "A topic")
        topic = await self.alice.call("GET", f"rooms/{self.room_id}/state/m.room.topic")
        expect(topic["topic"] == "A topic", f"{topic}")
        event_id = await self.puppet.send_text(self.room_id, text="a slip")
        await self.puppet.redact(self.room_id, event_id, reason="slipped")
        redacted = lambda event: event.type == EventType.ROOM_REDACTION and event.redacts == event_id
        await self.until("the redaction", redacted)

    async def passing(self):
        typing = f"rooms/{self.room_id}/typing/{self.alice.user_id}"
        await self.alice.call("PUT", typing, {"typing": True, "timeout": 20000})
        types = lambda event: event.type == EventType.TYPING and self.alice.user_id in event.content.user_ids
        await self.until("the typing", types)
        event_id = await self.puppet.send_text(self.room_id, text="read this")
        await self.alice.call("POST", f"rooms/{self.room_id}/receipt/m.read/{event_id}", {})
        await self.until("the receipt", lambda event: event.type == EventType.RECEIPT and event_id in event.content)
        await self.puppet.set_typing(self.room_id, timeout=5000)
        await self.puppet.mark_read(self.room_id, event_id)

    async def devices(self):
        api = self.bridge.intent.api
        made = await api.request("PUT", f"_matrix/client/v3/devices/BRIDGE{SUFFIX}", {"display_name": "Bridge"})
        expect(made == {}, f"{made}")
        content = {"messages": {self.bridge.bot_mxid: {f"BRIDGE{SUFFIX}": {"secret": 1}}}}
        await self.alice.call("PUT", "sendToDevice/m.dummy/1", content)
        message = await self.until("the message", lambda event: hasattr(event, "to_device_id"))
        expect(message.to_device_id == f"BRIDGE{SUFFIX}" and message.sender == self.alice.user_id, f"{message}")

    async def asked_for(self):
        unknown = f"@puppet_new{SUFFIX}:{self.alice.domain}"
        await self.alice.call("POST", f"rooms/{self.room_id}/invite", {"user_id": unknown})
        expect(self.asked == [unknown], f"asked for {self.asked}")
        invited = lambda event: event.type == EventType.ROOM_MEMBER and event.state_key == unknown
        await self.until("the invitation", invited)
        await self.bridge.intent.user(unknown).ensure_joined(self.room_id)


def main():
    if sys.argv[1] == "register":
        return register(sys.argv[2])
    try:
        asyncio.run(Story(sys.argv[2], sys.argv[3]).tell())
    except Failure as failure:
        print(f"FAILED {failure}", file=sys.stderr)
        sys.exit(1)


main()
