"""What every story step leans on: accounts, steps with names, and waiting for conditions, not for time."""

import asyncio
import json
import os
from collections import defaultdict

from nio import (
    AccountDataEvent,
    AsyncClient,
    AsyncClientConfig,
    ErrorResponse,
    Event,
    LoginResponse,
    RegisterResponse,
    SyncError,
    SyncResponse,
)

# How long a condition may take to come true, in seconds.
DEADLINE = int(os.environ.get("STORY_DEADLINE_MS", "20000")) / 1000


class Failure(Exception):
    """A step that did not go as it should; the text is the one line to show."""


def expect(condition, complaint):
    """Stops the story with one line when `condition` does not hold."""
    if not condition:
        raise Failure(complaint)


# Steps that failed while the story went on, with STORY_KEEP_GOING.
failures = []


async def step(name, action):
    """Runs one named step and reports it. A failure names the step and ends the story."""
    try:
        await asyncio.wait_for(action(), 3 * DEADLINE)
    except Exception as error:
        failure = Failure(f"{name}: {describe(error)}")
        if not os.environ.get("STORY_KEEP_GOING"):
            raise failure from error
        failures.append(failure)
    else:
        print(f"ok {name}", flush=True)


def describe(error):
    """One line about an error."""
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return f"the step did not finish within {3 * DEADLINE:.0f} s"
    return str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"


def good(response):
    """Hands back an answer that the library understood; anything else ends the step."""
    expect(not isinstance(response, ErrorResponse), str(response))
    return response


def refused(response, status, errcode):
    """Checks that a request was refused with this status and errcode."""
    expect(isinstance(response, ErrorResponse), f"expected {errcode}, but the request succeeded")
    seen = response.transport_response.status
    expect(
        seen == status and response.status_code == errcode,
        f"expected {status} {errcode}, got {seen} {response.status_code} ({response.message})",
    )


class Person:
    """One device of one account: the library's client, kept syncing, and what it has seen."""

    def __init__(self, base_url):
        config = AsyncClientConfig(max_limit_exceeded=0, max_timeouts=0)
        self.client = AsyncClient(base_url, config=config)
        # Timeline events by room, in the order in which sync brought them.
        self.events = defaultdict(list)
        # Where paging back begins: before the events of the first sync.
        self.prev_batch = {}
        self.account_data = {}
        self._changed = asyncio.Condition()
        self._syncing = None
        self.client.add_event_callback(self._on_event, Event)
        self.client.add_global_account_data_callback(self._on_account_data, AccountDataEvent)
        self.client.add_response_callback(self._on_sync, (SyncResponse, SyncError))

    @classmethod
    async def register(cls, base_url, username, password):
        """Registers an account by the dummy stage."""
        person = cls(base_url)
        person.client.user = username
        answer = await person.client.register(username, password, "first")
        if not isinstance(answer, RegisterResponse):
            await person.client.close()
        return person, answer

    @classmethod
    async def login(cls, base_url, username, password):
        """Logs in by password, which makes another device."""
        person = cls(base_url)
        person.client.user = username
        answer = await person.client.login(password, "second")
        if not isinstance(answer, LoginResponse):
            await person.client.close()
        return person, answer

    @property
    def id(self):
        return self.client.user_id

    def room(self, room_id):
        return self.client.rooms.get(room_id)

    def event(self, room_id, event_id):
        """The event of this id, if sync has brought it."""
        return next((e for e in self.events[room_id] if e.event_id == event_id), None)

    async def start(self, timeline_limit=50):
        """Starts syncing and returns when the first answer has been taken in."""
        chosen = {"room": {"timeline": {"limit": timeline_limit}}}
        self._syncing = asyncio.create_task(
            self.client.sync_forever(timeout=10_000, sync_filter=chosen, full_state=True)
        )
        await self.until("the first sync", lambda: self.client.next_batch)

    async def until(self, what, probe):
        """Waits until `probe` gives something true and returns it; it is asked again after every sync."""

        async def wait():
            async with self._changed:
                while not (found := probe()):
                    await self._changed.wait()
                return found

        waiting = asyncio.create_task(wait())
        try:
            done, _ = await asyncio.wait(
                {waiting, self._syncing}, timeout=DEADLINE, return_when=asyncio.FIRST_COMPLETED
            )
            if waiting in done:
                return waiting.result()
            if self._syncing in done:
                self._syncing.result()
            raise Failure(f"waited {DEADLINE:.0f} s for {what}")
        finally:
            waiting.cancel()

    async def put(self, path, content):
        """Sends what the library has no call for; returns the status and the answer."""
        headers = {"Authorization": f"Bearer {self.client.access_token}"}
        answer = await self.client.send("PUT", f"/_matrix/client/v3{path}", json.dumps(content), headers)
        async with answer:
            return answer.status, await answer.json()

    async def stop_syncing(self):
        """Ends the sync."""
        if self._syncing:
            self._syncing.cancel()
            await asyncio.gather(self._syncing, return_exceptions=True)

    async def stop(self):
        """Ends the sync and closes the connections."""
        await self.stop_syncing()
        await self.client.close()

    async def _on_event(self, room, event):
        self.events[room.room_id].append(event)

    async def _on_account_data(self, event):
        # The library keeps the content of types it does not know only.
        self.account_data[getattr(event, "type", type(event).__name__)] = getattr(event, "content", None)

    async def _on_sync(self, response):
        if isinstance(response, SyncError):
            raise Failure(f"sync was refused: {response}")
        for room_id, room in response.rooms.join.items():
            self.prev_batch.setdefault(room_id, room.timeline.prev_batch)
        async with self._changed:
            self._changed.notify_all()
