"""Work on a cluster: a pool of actors over fixed units, and a few tasks side by side.

Not in the paper. Decided: units are drawn from an iterable as actors become free, so that a driver holds a few of them
and not a job's worth, and the first is begun before the last is planned; what a unit holds never depends on how many
actors there are; one that fails three times, as it raises, its process dies or its time is up, is told and the others
go on. Not Ray Data, which was only a queue here and held each unit as a block.
"""

from __future__ import annotations

import itertools
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dhdiff_ray.on_ray.deadline import longest_wait

TRIES = 3
"""How often a unit is begun before it counts as failed."""
PAUSE_SECONDS = 0.5
"""Wait before a unit that raised is tried again: what it needs may be there then."""
LOOK_SECONDS = 1.0
"""How often deadlines are looked at."""

Unit = TypeVar("Unit")
Answer = TypeVar("Answer")
Key = TypeVar("Key")


class RemoteMethod(Protocol):
    """A task, or a method of an actor; Ray's own types do not say which methods an actor has."""

    def remote(self, *arguments: object) -> ray.ObjectRef:
        """Call it; returns a reference to the answer."""
        ...


def map_units(
    units: Iterable[Unit],
    worker: Callable[..., Callable[[Unit], Answer]],
    arguments: Mapping[str, object],
    *,
    workers: int = 0,
    cpus: float = 1,
    gpus: float = 0,
    seconds: float = 0,
    batches: Callable[[Unit], int] = lambda _: 1,
) -> Iterator[tuple[int, Answer, str]]:
    """Hand each unit to one of a pool of actors.

    Args:
        units: what is to be done; anything that pickles. Drawn one by one as actors become free.
        worker: a class; each actor makes one from ``arguments`` and calls it with a unit at a time.
        arguments: of the class.
        workers: actors; 0 means as many as the cluster has room for.
        cpus: cores of one actor.
        gpus: GPUs of one actor.
        seconds: longest a batch may take before its actor is ended and the unit is begun elsewhere; 0 follows the units
            so far.
        batches: how much of it a unit is.

    Yields:
        (position of the unit, answer, "") or (position, None, why it failed), in the order they are done.

    Raises:
        ray.exceptions.RayError: no actor can be made.
    """
    needs = {"num_cpus": cpus, "num_gpus": gpus, "scheduling_strategy": "SPREAD"}
    actor = PoolActor.options(**needs)
    most = min(room(cpus, gpus), workers or room(cpus, gpus))
    pool = Pool(units, lambda: actor.remote(worker, dict(arguments)), most, seconds, batches)
    try:
        yield from pool.run()
    finally:
        pool.close()


@ray.remote(max_restarts=0, max_task_retries=0)
class PoolActor:
    """One actor of the pool, around a worker that knows nothing of Ray."""

    def __init__(self, worker: Callable[..., Callable[[Any], Any]], arguments: dict[str, Any]) -> None:
        self.worker = worker(**arguments)

    def ready(self) -> None:
        """Return once the actor has started."""

    def work(self, unit: bytes) -> tuple[str, Any]:
        """Do one unit: ("", answer), or why it cannot be done and whether another try may help."""
        try:
            return "", self.worker(pickle.loads(unit))
        except ValueError as caught:  # wrong input does not mend itself
            return str(caught) or "ValueError", False
        except Exception as caught:  # noqa: BLE001  whatever it is, the driver tells it with the unit's name
            time.sleep(PAUSE_SECONDS)
            return f"{type(caught).__name__}: {caught}", True


@dataclass(eq=False)
class Ticket:
    """A unit that was taken from the iterable and is not done."""

    at: int
    """Position among all units."""
    data: bytes
    batches: int = 1
    """How much work it is."""
    begun: int = 0
    """Tries that were begun and did not end."""


@dataclass(eq=False)
class Member:
    """An actor and what it works on: one unit and no next one, so that a death is never put down to another."""

    handle: Any
    ready: ray.ObjectRef[None]
    is_ready: bool = False
    ticket: Ticket | None = None
    since: float = 0.0
    """When it was given its unit."""


class Pool:
    """Actors, the units they have, and those to be begun again.

    Args:
        units: drawn as actors become free.
        make: starts an actor.
        most: actors at once.
        seconds: longest a batch may take; 0 follows the units so far.
        batches: how much of it a unit is.
    """

    def __init__(
        self,
        units: Iterable[Any],
        make: Callable[[], Any],
        most: int,
        seconds: float = 0,
        batches: Callable[[Any], int] = lambda _: 1,
    ) -> None:
        self.units, self.make, self.most, self.seconds, self.batches = enumerate(units), make, most, seconds, batches
        self.again: deque[Ticket] = deque()
        """Units that wait: drawn already, or begun by an actor that is gone."""
        self.members: list[Member] = []
        self.longest = 0.0
        """Seconds of the longest batch so far."""
        self._stillborn = 0
        self._waiting: dict[Any, Member] = {}
        """What is waited for: an actor's beginning, and every unit."""

    def run(self) -> Iterator[tuple[int, Any, str]]:
        """Every unit's position with its answer or why it failed."""
        while True:
            self._feed()
            if not self.again and not any(member.ticket for member in self.members):
                return  # an actor that is still to start may wait for the core that an idle one here holds
            done, _ = ray.wait(list(self._waiting), num_returns=1, timeout=LOOK_SECONDS)
            for reference in done:
                member = self._waiting.get(reference)
                if member is not None:  # else it went with its actor
                    yield from self._taken(member, reference)
            for member in self._late():
                words = f"it was not done within {self.limit(cast(Ticket, member.ticket)):.0f} s, {TRIES} times"
                yield from self._lost(member, words)

    def _late(self) -> list[Member]:
        """Members over their time; those whose answer is there already waited for the driver."""
        late = [m for m in self.members if m.ticket and time.monotonic() - m.since > self.limit(m.ticket)]
        if not late:
            return []
        ready, _ = ray.wait(list(self._waiting), num_returns=len(self._waiting), timeout=0)
        punctual = {id(self._waiting[reference]) for reference in ready}
        return [member for member in late if id(member) not in punctual]

    def close(self) -> None:
        """End all actors."""
        for member in self.members:
            ray.kill(member.handle)
        self.members, self._waiting = [], {}

    def limit(self, ticket: Ticket) -> float:
        """Seconds that a unit may take."""
        return longest_wait(self.seconds, self.longest, ticket.batches)

    def _feed(self) -> None:
        """Give units to actors that have none; start actors while there are units for them."""
        for member in self.members:
            if member.is_ready and member.ticket is None and self._has(1):
                self._give(member, self.again.popleft())
        while len(self.members) < self.most and self._has(1 + sum(not member.is_ready for member in self.members)):
            handle = self.make()
            member = Member(handle, handle.ready.remote())
            self.members.append(member)
            self._waiting[member.ready] = member

    def _has(self, count: int) -> bool:
        """Whether so many units wait; draws them if not."""
        for at, unit in itertools.islice(self.units, max(0, count - len(self.again))):
            self.again.append(Ticket(at, pickle.dumps(unit), self.batches(unit)))
        return len(self.again) >= count

    def _give(self, member: Member, ticket: Ticket) -> None:
        member.ticket, member.since = ticket, time.monotonic()
        self._waiting[member.handle.work.remote(ticket.data)] = member

    def _taken(self, member: Member, reference: Any) -> Iterator[tuple[int, Any, str]]:
        """The result of a finished call."""
        try:
            answer = ray.get(reference)
        except (ActorDiedError, ActorUnavailableError):
            if not member.is_ready:
                self._stillborn += 1
                if self._stillborn >= TRIES and not any(other.is_ready for other in self.members):
                    raise
            yield from self._lost(member)
            return
        except RayTaskError as error:  # an answer that does not travel
            answer = reason(error), False
        del self._waiting[reference]
        if reference == member.ready:
            member.is_ready, self._stillborn = True, 0
            return
        ticket, member.ticket = cast(Ticket, member.ticket), None
        self.longest = max(self.longest, (time.monotonic() - member.since) / ticket.batches)
        error, content = answer
        if not error:
            yield ticket.at, content, ""
        elif content and ticket.begun + 1 < TRIES:
            ticket.begun += 1
            self.again.append(ticket)
        else:
            yield ticket.at, None, error

    def _lost(self, member: Member, words: str = "") -> Iterator[tuple[int, Any, str]]:
        """An actor is gone, or ended here: the unit it worked on counts one more beginning."""
        ray.kill(member.handle)
        self.members.remove(member)
        for reference in [reference for reference, owner in self._waiting.items() if owner is member]:
            del self._waiting[reference]
        if (ticket := member.ticket) is None:
            return
        ticket.begun += 1
        if ticket.begun < TRIES:
            self.again.appendleft(ticket)
            return
        died = f"its process died {TRIES} times; out of memory? See the logs of its worker"
        yield ticket.at, None, words or died


def room(cpus: float, gpus: float = 0) -> int:
    """How many workers of that size the cluster holds; at least one, so that Ray says what is missing."""
    resources = ray.cluster_resources()
    rooms = [resources.get(name, 0) // need for name, need in (("CPU", cpus), ("GPU", gpus)) if need]
    return max(1, int(min(rooms, default=1)))


def one_core(work: Callable[..., object], gpus: float) -> RemoteMethod:
    """A function as a task of one core and at most one GPU, begun again where its process or node is lost."""
    return cast(RemoteMethod, ray.remote(num_cpus=1, num_gpus=min(1.0, gpus), max_retries=2)(work))


def beside_driver() -> NodeAffinitySchedulingStrategy:
    """The node this process runs on, which a job cannot do without anyway: for what must not be lost with another."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)


def side_by_side(tasks: Mapping[Key, ray.ObjectRef[Answer]]) -> tuple[dict[Key, Answer], dict[Key, str]]:
    """Wait for running tasks, given by a key; one that fails does not stop the others.

    Returns:
        Values, and reasons of failure, both by key.
    """
    values: dict[Key, Answer] = {}
    errors: dict[Key, str] = {}
    for key, reference in tasks.items():
        try:
            values[key] = ray.get(reference)
        except RayError as error:
            errors[key] = reason(error)
    return values, errors


def reason(error: RayError) -> str:
    """One line that says why: the words of the error raised in the task, or Ray's last line."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    text = str(cause).strip()
    if isinstance(cause, ValueError):
        return text
    return f"{type(cause).__name__}: {(text.splitlines() or [''])[-1]}"
