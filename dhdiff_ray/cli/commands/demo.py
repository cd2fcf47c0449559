"""``demo``: the whole line on one private cluster, through the same jobs any cluster would get.

Draw images; train, synthesise, score and detect in one job; ask the endpoint for a pair, write the page. Decided: a
rerun replaces the demo's run and nothing else; whatever happens, no process is left.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dhdiff_ray.cli import options
from dhdiff_ray.cli.commands.serve import wait_for_interrupt
from dhdiff_ray.cli.follow import attend, private_cluster
from dhdiff_ray.cli.output import Output, table
from dhdiff_ray.cli.resolve import resolve, run_folder

if TYPE_CHECKING:
    from dhdiff_ray.config import Config
    from dhdiff_ray.run.folder import RunFolder

SEED = 0
"""Seed of the drawn images and of the pair asked of the endpoint."""
MEASURE = "PSS" if Path("/proc/self/smaps_rollup").exists() else "RSS"
"""How memory is counted: PSS counts a page shared by n processes as 1/n in each, so that the sum is what the machine
gave; where the kernel does not tell it, RSS counts shared pages again and again."""


def demo(
    storage: Annotated[str, typer.Option(metavar="FOLDER", help="Folder that holds runs.")] = "runs",
    run: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the run; an earlier demo of that name is replaced.")
    ] = "demo",
    sets: options.Sets = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the endpoint up until Ctrl-C.")] = False,
    as_json: options.Json = False,
) -> None:
    """Run the whole line on drawn images, on this machine.

    Train, synthesise, score, detect, ask the endpoint for a pair, and write the page.

    Example: dhdiff-ray demo --storage runs
    """
    from dhdiff_ray.data.datasets.procedural import generate
    from dhdiff_ray.on_ray.cluster.jobs import Jobs
    from dhdiff_ray.report.page import write_report

    output = Output(as_json)
    seconds: dict[str, float] = {}
    root = str(Path(storage).expanduser().resolve() / ".data" / f"procedural-{SEED}")
    typed = options.Typed(preset="tiny", dataset="procedural", root=root, run=run, storage=storage, sets=sets)
    _clear(typed)
    config = resolve("all", typed).config
    folder = run_folder(config)
    with _timed("draw", seconds, output):
        generate(Path(config.data.root), resolution=config.data.resolution, seed=SEED)
    with contextlib.ExitStack() as stack:
        with _timed("start Ray", seconds, output):
            cluster = stack.enter_context(private_cluster(output))
            jobs = Jobs(cluster)
        pids = lambda: [process.pid for process in cluster.processes()]  # noqa: E731
        memory = stack.enter_context(MemoryWatch(pids))
        with _timed("all", seconds, output):
            info = attend(jobs, jobs.submit("all", config), output)
        if info.exit_code:
            output.fail(f"the demo's job failed: {info.message.splitlines()[0][:300]}", info.exit_code)
            raise typer.Exit(info.exit_code)
        with _timed("serve", seconds, output):
            served = _ask_endpoint(config, folder)
        timings = {
            "seconds": seconds,
            "total_seconds": round(sum(seconds.values()), 1),
            "peak_memory_bytes": memory.peak_bytes,
            "memory_measure": MEASURE,
        }
        folder.write_json("timings.json", timings)
        with _timed("report", seconds, output):
            page = write_report(config)
        timings = timings | {"total_seconds": round(sum(seconds.values()), 1)}
        folder.write_json("timings.json", timings)
        _summary(output, folder, timings, page, served)
        if keep:
            output.note(f"the endpoint stays at {served['url']}; Ctrl-C ends it")
            wait_for_interrupt()


def _clear(typed: options.Typed) -> None:
    """Remove the run of an earlier demo; a folder that is no run is left alone."""
    from dhdiff_ray.config.load import ConfigError, load_config

    folder = run_folder(load_config(flags=typed.flags()).config)
    if not folder.is_local:
        raise ConfigError("the demo writes to this machine; pass --storage FOLDER")
    if not any(True for _ in folder.files()):
        return
    if not (folder.exists("config.json") or folder.exists("events.jsonl")):
        raise ConfigError(f"{folder.uri} is not a run and will not be replaced; pass another --run or --storage")
    folder.delete("")


@contextlib.contextmanager
def _timed(name: str, seconds: dict[str, float], output: Output) -> Iterator[None]:
    output.note(name, style="bold")
    start = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - start, 1)
    output.note(f"{name}: {seconds[name]} s")


def _ask_endpoint(config: Config, folder: RunFolder) -> dict[str, Any]:
    """Start the endpoint on the same cluster, ask it for one pair, lay the answer into ``served/``."""
    from dhdiff_ray.client import Client
    from dhdiff_ray.on_ray.serve import up as serve
    from dhdiff_ray.serving.access import first_token

    url = serve.up(config, address=None, port=0)
    file = serve.checked_token(config.serve.host)
    category = sorted(p.split("/")[1] for p in folder.files("models") if p.endswith("/dhdiff.json"))[0]
    defect = folder.read_json(f"models/{category}/dhdiff.json")["defects"][0]
    request = {"category": category, "defect": defect, "seed": SEED, "n": 1}
    with Client(url, first_token(file) if file else None, timeout=300) as client:
        models = client.models()
        start = time.monotonic()
        (pair,) = client.pairs(category, defect=defect, seed=SEED)
    folder.write_json("served/request.json", {"request": request, "models": {"models": models}})
    for name in ("image", "mask"):
        folder.write_bytes(f"served/{name}.png", getattr(pair, name))
    return {"url": url, "request": request, "seconds": round(time.monotonic() - start, 2)}


def _summary(output: Output, folder: RunFolder, timings: dict[str, Any], page: str, served: dict[str, Any]) -> None:
    scores = folder.read_json("scores.json") if folder.exists("scores.json") else {}
    detection = folder.read_json("detection.json") if folder.exists("detection.json") else {}
    rows: list[tuple[str, Any]] = []
    for category, agreement in scores.get("pair_alignment", {}).items():
        rows += [(f"{category}: pair alignment, {key}", agreement.get(key)) for key in ("iou", "ap", "nonempty")]
    shown = ("image_auroc", "pixel_auroc", "pixel_ap", "ratio")
    rows += [(name, number) for name, number in _numbers(detection) if name.split(" ")[-1].endswith(shown)]
    rows += [(f"{name}: seconds", value) for name, value in timings["seconds"].items()]
    rows.append(("all: seconds", timings["total_seconds"]))
    rows.append((f"peak memory ({timings['memory_measure']}), GB", timings["peak_memory_bytes"] / 1e9))
    rows.append(("one pair from the endpoint: seconds", served["seconds"]))
    rows.append(("page", page))
    value = {
        "folder": folder.uri,
        "report": page,
        "pair_alignment": scores.get("pair_alignment"),
        "detection": detection,
        "timings": timings,
        "served": served,
    }
    output.data(value, table=table("demo", ("what", "value"), rows))


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a nested document with the words that lead to them."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{path} {key}".strip())
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


class MemoryWatch:
    """Samples the sum over processes every few seconds (reading PSS takes time) while the context is open."""

    def __init__(self, pids: Callable[[], Iterable[int]], every: float = 5.0) -> None:
        """Watch.

        Args:
            pids: the processes to add to the calling one, asked anew for each sample.
            every: seconds between samples.
        """
        self.peak_bytes = 0
        self._pids, self._every = pids, every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            total = sum(memory_of(pid) for pid in [os.getpid(), *self._pids()])
            self.peak_bytes = max(self.peak_bytes, total)
            if self._stop.wait(self._every):
                return


def memory_of(pid: int) -> int:
    """Bytes of one process by ``MEASURE``; 0 if it has ended or is somebody else's."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process.memory_full_info().pss if MEASURE == "PSS" else process.memory_info().rss
    except psutil.Error:
        return 0
