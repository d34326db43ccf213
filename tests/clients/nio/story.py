"""Two people and one server, told through an unmodified matrix-nio.

    python story.py BASE_URL

Prints `ok <step>` for every step; the first failure ends the story with one line and status 1.
"""

import asyncio
import io
import logging
import os
import sys
import time
import uuid

from nio import MessageDirection, RedactedEvent, RoomPreset
from nio.api import RelationshipType

from support import Failure, Person, expect, failures, good, refused, step

PASSWORD = "a long enough passphrase 27"
LINES = [f"line {index}" for index in range(100)]


class Story:
    """The people, the room they meet in, and the chapters in order."""

    def __init__(self, base_url):
        self.base_url = base_url
        # Names nobody else has, so that the story can be told again to the same server.
        self.suffix = f"{int(time.time()):x}{uuid.uuid4().hex[:6]}"
        self.alice = self.laptop = self.bob = None
        self.room_id = None

    async def tell(self):
        try:
            await step("register", self.register)
            await step("first sync", self.first_sync)
            await step("second device", self.second_device)
            await step("profile", self.profile)
            await step("create room", self.create_room)
            await step("invite", self.invite)
            await step("join", self.join)
            await step("send and receive", self.send_and_receive)
            await step("send a hundred", self.send_a_hundred)
            await step("page back", self.page_back)
            await step("context", self.context)
            await step("state", self.state)
            await step("typing", self.typing)
            await step("read receipt and unread count", self.receipt)
            await step("presence", self.presence)
            await step("redaction", self.redaction)
            await step("reaction", self.reaction)
            await step("edit", self.edit)
            await step("thread", self.thread)
            await step("upload and download", self.media)
            await step("direct room", self.direct)
            await step("leave", self.leave)
            await step("logout", self.logout)
        finally:
            for person in (self.alice, self.laptop, self.bob):
                if person:
                    await person.stop()

    async def say(self, person, body, **extra):
        """Sends a text message and returns its id."""
        content = {"msgtype": "m.text", "body": body, **extra}
        return good(await person.client.room_send(self.room_id, "m.room.message", content)).event_id

    async def heard(self, person, event_id):
        """Waits until sync has brought this event and returns it."""
        return await person.until(f"event {event_id}", lambda: person.event(self.room_id, event_id))

    async def stored(self, person, event_id):
        """The event as the server hands it out by itself."""
        return good(await person.client.room_get_event(self.room_id, event_id)).event

    # Accounts

    async def register(self):
        self.alice, answer = await Person.register(self.base_url, f"alice-nio-{self.suffix}", PASSWORD)
        good(answer)
        self.bob, answer = await Person.register(self.base_url, f"bob-nio-{self.suffix}", PASSWORD)
        good(answer)
        me = good(await self.alice.client.whoami())
        expect(me.user_id == self.alice.id, "whoami names somebody else")
        expect(me.device_id == self.alice.client.device_id, "whoami names another device")
        _, again = await Person.register(self.base_url, f"alice-nio-{self.suffix}", PASSWORD)
        refused(again, 400, "M_USER_IN_USE")

    async def first_sync(self):
        await asyncio.gather(self.alice.start(), self.bob.start())

    async def second_device(self):
        name = f"alice-nio-{self.suffix}"
        self.laptop, answer = await Person.login(self.base_url, name, PASSWORD)
        good(answer)
        expect(self.laptop.client.device_id != self.alice.client.device_id, "two logins share one device")
        devices = good(await self.alice.client.devices()).devices
        names = sorted(device.display_name for device in devices)
        expect(names == ["first", "second"], f"devices are {names}")
        _, answer = await Person.login(self.base_url, name, "wrong")
        refused(answer, 403, "M_FORBIDDEN")

    async def profile(self):
        good(await self.bob.client.set_displayname("Bob 🦊"))
        seen = good(await self.alice.client.get_displayname(self.bob.id)).displayname
        expect(seen == "Bob 🦊", f"the display name came back as {seen}")

    # The room

    async def create_room(self):
        answer = good(await self.alice.client.room_create(name="Harbour", preset=RoomPreset.private_chat))
        self.room_id = answer.room_id
        await self.alice.until("the new room", lambda: self.alice.room(self.room_id))

    async def invite(self):
        good(await self.alice.client.room_invite(self.room_id, self.bob.id))
        invitation = await self.bob.until(
            "the invitation", lambda: self.bob.client.invited_rooms.get(self.room_id)
        )
        expect(invitation.name == "Harbour", f"the invitation names the room {invitation.name}")
        expect(invitation.inviter == self.alice.id, f"the invitation comes from {invitation.inviter}")

    async def join(self):
        good(await self.bob.client.join(self.room_id))
        await self.bob.until("the joined room", lambda: self.bob.room(self.room_id))

        def member():
            user = self.alice.room(self.room_id).users.get(self.bob.id)
            return user and not user.invited and user.display_name == "Bob 🦊"

        await self.alice.until("Bob among the members", member)
        members = good(await self.bob.client.joined_members(self.room_id)).members
        expect({m.user_id for m in members} == {self.alice.id, self.bob.id}, "joined_members differs")

    async def send_and_receive(self):
        hello = await self.heard(self.bob, await self.say(self.alice, "hello, Bob"))
        expect(hello.body == "hello, Bob" and hello.sender == self.alice.id, "the message was changed")
        await self.heard(self.alice, await self.say(self.bob, "hello, Alice ✓"))
        content = {"msgtype": "m.text", "body": "once"}
        send = self.alice.client.room_send
        one, two = await asyncio.gather(
            send(self.room_id, "m.room.message", content, tx_id="one-transaction"),
            send(self.room_id, "m.room.message", content, tx_id="one-transaction"),
        )
        expect(good(one).event_id == good(two).event_id, "one transaction id made two messages")

    # History

    async def send_a_hundred(self):
        for line in LINES:
            last = await self.say(self.bob, line)
        await self.heard(self.alice, last)
        heard = [e.body for e in self.alice.events[self.room_id] if getattr(e, "body", "").startswith("line ")]
        expect(heard == LINES, f"the sync brought {len(heard)} lines, or in another order")

    async def page_back(self):
        # The second device starts with the last few events only and reads the rest page by page.
        await self.laptop.start(timeline_limit=5)
        shown = self.laptop.events[self.room_id]
        expect(0 < len(shown) <= 5, f"the first sync brought {len(shown)} events instead of 5")
        read, start = list(reversed(shown)), self.laptop.prev_batch[self.room_id]
        while start:
            page = good(await self.laptop.client.room_messages(self.room_id, start, limit=30))
            expect(len(page.chunk) <= 30, f"a page has {len(page.chunk)} events")
            read += page.chunk
            start = page.end
        bodies = [e.body for e in reversed(read) if getattr(e, "body", "").startswith("line ")]
        expect(bodies == LINES, f"paging brought {len(bodies)} of {len(LINES)} lines, or in another order")
        oldest = read[-1].source["type"]
        expect(oldest == "m.room.create", f"the oldest event is {oldest}")
        first = good(
            await self.laptop.client.room_messages(
                self.room_id, None, direction=MessageDirection.front, limit=10
            )
        )
        kind = first.chunk[0].source["type"]
        expect(len(first.chunk) == 10 and kind == "m.room.create", f"forwards paging begins with {kind}")

    async def context(self):
        middle = next(e for e in self.alice.events[self.room_id] if getattr(e, "body", "") == "line 50")
        around = good(await self.laptop.client.room_context(self.room_id, middle.event_id, limit=10))
        before = [e.body for e in around.events_before]
        after = [e.body for e in around.events_after]
        expect(around.event.body == "line 50", f"the event itself is {around.event.body}")
        expect(before and before == LINES[50 - len(before) : 50][::-1], f"before it come {before}")
        expect(after and after == LINES[51 : 51 + len(after)], f"after it come {after}")

    # State and what does not last

    async def state(self):
        put, get = self.alice.client.room_put_state, self.bob.client.room_get_state_event
        good(await put(self.room_id, "m.room.name", {"name": "Harbour Café"}))
        good(await self.alice.client.update_room_topic(self.room_id, "Ships & tides"))
        room = self.bob.room(self.room_id)
        await self.bob.until("the new name", lambda: room.name == "Harbour Café")
        await self.bob.until("the new topic", lambda: room.topic == "Ships & tides")
        good(await put(self.room_id, "org.example.berth", {"number": 7}, "north"))
        berth = good(await get(self.room_id, "org.example.berth", "north")).content
        expect(berth == {"number": 7}, f"the state came back as {berth}")
        kinds = {e["type"] for e in good(await self.bob.client.room_get_state(self.room_id)).events}
        expect({"m.room.create", "m.room.topic", "org.example.berth"} <= kinds, f"the state has {kinds}")
        rename = self.bob.client.room_put_state(self.room_id, "m.room.name", {"name": "Bob's"})
        refused(await rename, 403, "M_FORBIDDEN")
        refused(await get(self.room_id, "org.example.berth", "south"), 404, "M_NOT_FOUND")

    async def typing(self):
        users = lambda: self.alice.room(self.room_id).typing_users  # noqa: E731
        good(await self.bob.client.room_typing(self.room_id, True, 30_000))
        await self.alice.until("Bob typing", lambda: users() == [self.bob.id])
        good(await self.bob.client.room_typing(self.room_id, False))
        await self.alice.until("Bob at rest", lambda: users() == [])

    async def receipt(self):
        event_id = await self.say(self.alice, "are you there?")
        await self.heard(self.bob, event_id)
        mine = self.bob.room(self.room_id)
        await self.bob.until("an unread message", lambda: mine.unread_notifications > 0)
        good(await self.bob.client.room_read_markers(self.room_id, event_id, event_id))

        def seen():
            receipt = self.alice.room(self.room_id).read_receipts.get(self.bob.id)
            return receipt and receipt.event_id == event_id

        await self.alice.until("Bob's receipt", seen)
        await self.bob.until("no unread message", lambda: mine.unread_notifications == 0)
        await self.bob.until("the read marker", lambda: mine.fully_read_marker == event_id)

    async def presence(self):
        good(await self.bob.client.set_presence("online", "mending nets"))

        def seen():
            user = self.alice.room(self.room_id).users[self.bob.id]
            return user.presence == "online" and user.status_msg == "mending nets"

        await self.alice.until("Bob's presence", seen)

    # Relations

    async def redaction(self):
        event_id = await self.say(self.alice, "a slip of the tongue")
        await self.heard(self.bob, event_id)
        redaction = good(await self.alice.client.room_redact(self.room_id, event_id, "a slip")).event_id
        seen = await self.heard(self.bob, redaction)
        expect(seen.redacts == event_id and seen.reason == "a slip", "the redaction names something else")
        stored = await self.stored(self.bob, event_id)
        expect(isinstance(stored, RedactedEvent), f"the server hands out a {type(stored).__name__}")
        expect(stored.source["content"] == {}, "the server still has the content")

    async def related(self, event_id, relation, kind):
        walk = self.alice.client.room_get_event_relations(self.room_id, event_id, relation, kind)
        return [event.event_id async for event in walk]

    async def reaction(self):
        event_id = await self.say(self.alice, "fish on Friday?")
        content = {"m.relates_to": {"rel_type": "m.annotation", "event_id": event_id, "key": "👍"}}
        sent = good(await self.bob.client.room_send(self.room_id, "m.reaction", content)).event_id
        seen = await self.heard(self.alice, sent)
        expect(seen.key == "👍" and seen.reacts_to == event_id, "the reaction was changed")
        listed = await self.related(event_id, RelationshipType.annotation, "m.reaction")
        expect(listed == [sent], f"the server lists {len(listed)} reactions")
        status, answer = await self.bob.put(f"/rooms/{self.room_id}/send/m.reaction/{uuid.uuid4()}", content)
        expect(status == 400 and answer["errcode"] == "M_DUPLICATE_ANNOTATION", f"twice: {status} {answer}")

    async def edit(self):
        event_id = await self.say(self.alice, "seven o'clok")
        edit = {
            "m.new_content": {"msgtype": "m.text", "body": "seven o'clock"},
            "m.relates_to": {"rel_type": "m.replace", "event_id": event_id},
        }
        edit_id = await self.say(self.alice, "* seven o'clock", **edit)
        await self.heard(self.bob, edit_id)
        bundled = (await self.stored(self.bob, event_id)).source["unsigned"].get("m.relations", {})
        expect(bundled.get("m.replace", {}).get("event_id") == edit_id, "the edit is not bundled")

    async def thread(self):
        root = await self.say(self.alice, "about the nets")
        relation = {"rel_type": "m.thread", "event_id": root}
        reply = await self.say(self.bob, "which?", **{"m.relates_to": relation})
        listed = await self.related(root, RelationshipType.thread, "m.room.message")
        expect(listed == [reply], f"the server lists {len(listed)} replies in the thread")
        roots = [e.event_id async for e in self.alice.client.room_get_threads(self.room_id)]
        expect(roots == [root], f"the server lists {len(roots)} threads")

    # Media, direct rooms, farewell

    async def media(self):
        data = bytes(index * 31 % 251 for index in range(70_000))
        upload, _ = await self.alice.client.upload(
            lambda *_: io.BytesIO(data), "application/octet-stream", "tide table.bin", filesize=len(data)
        )
        uri = good(upload).content_uri
        file = good(await self.bob.client.download(uri))
        expect(file.body == data, "the bytes differ")
        expect(file.content_type == "application/octet-stream", f"the type is {file.content_type}")
        expect(file.filename == "tide table.bin", f"the file name is {file.filename}")
        refused(await self.bob.client.download(f"{uri}x"), 404, "M_NOT_FOUND")
        good(await self.bob.client.content_repository_config())

    async def direct(self):
        answer = good(
            await self.alice.client.room_create(
                is_direct=True, preset=RoomPreset.trusted_private_chat, invite=[self.bob.id]
            )
        )
        direct = {self.bob.id: [answer.room_id]}
        status, _ = await self.alice.put(f"/user/{self.alice.id}/account_data/m.direct", direct)
        expect(status == 200, f"setting m.direct answers {status}")
        await self.laptop.until("m.direct", lambda: self.laptop.account_data.get("m.direct") == direct)
        listed = good(await self.alice.client.list_direct_rooms()).rooms
        expect(listed == direct, f"m.direct came back as {listed}")
        await self.bob.until("the invitation", lambda: answer.room_id in self.bob.client.invited_rooms)
        good(await self.bob.client.join(answer.room_id))
        await self.alice.until(
            "Bob in the direct room", lambda: self.alice.room(answer.room_id).joined_count == 2
        )

    async def leave(self):
        good(await self.bob.client.room_leave(self.room_id))
        await self.alice.until("Bob gone", lambda: self.bob.id not in self.alice.room(self.room_id).users)
        content = {"msgtype": "m.text", "body": "still here?"}
        refused(await self.bob.client.room_send(self.room_id, "m.room.message", content), 403, "M_FORBIDDEN")
        good(await self.bob.client.room_forget(self.room_id))

    async def logout(self):
        await self.laptop.stop_syncing()
        token = self.laptop.client.access_token
        good(await self.laptop.client.logout())
        self.laptop.client.access_token = token
        refused(await self.laptop.client.whoami(), 401, "M_UNKNOWN_TOKEN")
        devices = good(await self.alice.client.devices()).devices
        expect(len(devices) == 1, "the device outlived its logout")


def main():
    if len(sys.argv) != 2:
        print("usage: story.py BASE_URL", file=sys.stderr)
        return 2
    # The library reports every refusal, the expected ones too, as an answer it cannot read.
    if not os.environ.get("STORY_VERBOSE"):
        logging.disable(logging.CRITICAL)
    try:
        asyncio.run(Story(sys.argv[1]).tell())
    except Failure as failure:
        failures.append(failure)
    for failure in failures:
        print(f"FAILED {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
