"""Work on a cluster: a pool of actors over fixed units through Ray Data, and a few tasks side by side.

Not in the paper. Decided: a unit is one row and one block, so what a batch holds never depends on how many actors there
are; a unit that fails three times, be it that it raises or that its process dies, is told and the others go on (Ray
Data's own default is to try for ever, or to end the job).
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dhdiff_ray.on_ray.ray_private import finished_rows

TRIES = 3
"""How often a unit is begun before it counts as failed."""
PAUSE_SECONDS = 0.5
"""Wait before a unit that raised is tried again: what it needs may be there then."""

Unit = TypeVar("Unit")
Answer = TypeVar("Answer")
Key = TypeVar("Key")


class RemoteMethod(Protocol):
    """A task, or a method of an actor; Ray's own types do not say which methods an actor has."""

    def remote(self, *arguments: object) -> ray.ObjectRef:
        """Call it; the answer is there later."""
        ...


def map_units(
    units: Sequence[Unit],
    worker: Callable[..., Callable[[Unit], Answer]],
    arguments: Mapping[str, object],
    *,
    workers: int = 0,
    cpus: float = 1,
    gpus: float = 0,
) -> Iterator[tuple[int, Answer, str]]:
    """Hand each unit to one of a pool of actors.

    Args:
        units: what is to be done; anything that pickles.
        worker: a class; each actor makes one from ``arguments`` and calls it with a unit at a time.
        arguments: of the class.
        workers: actors; 0 means as many as the cluster has room for.
        cpus: cores of one actor.
        gpus: GPUs of one actor.

    Yields:
        (position of the unit, answer, "") or (position, None, why it failed), in the order they are done.

    Raises:
        ray.exceptions.RayError: the cluster itself failed.
    """
    if not units:
        return
    from ray.data import ActorPoolStrategy, DataContext, from_items

    DataContext.get_current().enable_progress_bars = False  # the events are the progress; bars would fill the log
    size = min(room(cpus, gpus), len(units), workers or len(units))
    rows = [{"at": at, "unit": pickle.dumps(unit)} for at, unit in enumerate(units)]
    ledger = Ledger.remote()
    try:
        answers = from_items(rows, override_num_blocks=len(rows)).map(
            cast(Any, Actor),  # Ray's types know functions alone
            fn_constructor_kwargs={"worker": worker, "arguments": dict(arguments), "ledger": ledger},
            compute=ActorPoolStrategy(size=size),
            num_cpus=cpus,
            num_gpus=gpus or None,
            max_restarts=-1,  # the ledger ends it
            max_task_retries=-1,
        )
        for row in finished_rows(answers):
            yield row["at"], pickle.loads(row["answer"]), row["error"]
    finally:
        ray.kill(cast(ActorHandle, ledger))


class Actor:
    """One actor of the pool, around a worker that knows nothing of Ray."""

    def __init__(self, worker: Callable[..., Callable[[Any], Any]], arguments: dict[str, Any], ledger: Any) -> None:
        self.ledger = ledger
        self.work = worker(**arguments)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Do one unit, or say why it cannot be done."""
        error = ""
        while cast(int, ray.get(self.ledger.begin.remote(row["at"]))) <= TRIES:
            try:
                answer = self.work(pickle.loads(row["unit"]))
                return {"at": row["at"], "answer": pickle.dumps(answer), "error": ""}
            except ValueError as caught:  # wrong input does not mend itself
                error = str(caught)
                break
            except Exception as caught:  # noqa: BLE001  whatever it is, the driver tells it with the unit's name
                error = f"{type(caught).__name__}: {caught}"
                time.sleep(PAUSE_SECONDS)
        error = error or f"its process died {TRIES} times; out of memory? See the logs of its worker"
        return {"at": row["at"], "answer": pickle.dumps(None), "error": error}


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Ledger:
    """Remembers how often each unit was begun, also when the process that began it is no more."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}

    def begin(self, at: int) -> int:
        """Count one more beginning; returns how many there are now."""
        self._begun[at] = self._begun.get(at, 0) + 1
        return self._begun[at]


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
