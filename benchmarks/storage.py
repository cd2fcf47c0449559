"""What pairs cost an object store in either layout: requests and objects per pair, a kill, and going on after it.

    python -m benchmarks.storage [--archived 100000] [--files 1000]

The store is moto's S3 server on this machine, with every request counted; the pairs are tiny noise, since no model is
asked. Per layout: one process writes and is killed with SIGKILL after a third of its objects, a second one goes on to
the end, a third finds nothing to do, a fourth counts the rows and compares 100 pairs with what was drawn.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import platform
import random
import signal
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import fs as pafs

from dhdiff_ray.data.encode import png_bytes
from dhdiff_ray.on_ray.verbs.synthesize import Maker
from dhdiff_ray.pairs.lots import lot_of
from dhdiff_ray.pairs.writer import Encoded, PairWriter, read_encoded, read_pair_rows, write_card
from dhdiff_ray.records import Request, Sample
from dhdiff_ray.run.run import Run

RESULT = Path(__file__).parent / "results" / "storage.json"
CATEGORY, DEFECTS, SIDE, LOOKED_AT = "mesh", ("bent", "broken", "scratch", "stain"), 16, 100
BUCKET = "pairs"


class Store:
    """An S3 server with every request counted by its method."""

    def __enter__(self) -> Store:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.requests: Counter[str] = Counter()
        app = DomainDispatcherApplication(create_backend_app)

        def counted(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
            self.requests[environ["REQUEST_METHOD"]] += 1
            return app(environ, start)

        self.server = make_server("127.0.0.1", 0, counted, True, request_handler=MotoRequestHandler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        with urllib.request.urlopen(f"http://{self.address}/", timeout=600) as answer:  # it loads itself with the first
            answer.read()
        self.filesystem.create_dir(BUCKET)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()

    @property
    def filesystem(self) -> pafs.S3FileSystem:
        """The store as pyarrow sees it."""
        address = f"http://{self.address}"
        return pafs.S3FileSystem(endpoint_override=address, region="us-east-1", allow_bucket_creation=True)

    def uri(self, path: str) -> str:
        """Address of a place in the store."""
        return (
            f"s3://{BUCKET}/{path}?endpoint_override=http%3A%2F%2F{self.address.replace(':', '%3A')}&region=us-east-1"
        )

    def objects(self, path: str) -> list[int]:
        """Sizes of all objects below a place."""
        infos = self.filesystem.get_file_info(pafs.FileSelector(f"{BUCKET}/{path}", recursive=True))
        return [info.size for info in infos if info.type == pafs.FileType.File]


class Tiny(Maker):
    """A sampler that draws noise: a pair follows from its seed."""

    def __init__(self, run: Run) -> None:  # no network is asked, so none is loaded
        self.run, self.config, self.writer = run, run.config, PairWriter(run.folder)

    def _drawn(self, requests: Sequence[Request]) -> list[tuple[Request, dict[str, Any], Encoded]]:
        told = ({"index": r.index, "seed": r.seed, "attempt": 0} for r in requests)
        return [(request, row, noise(request.seed)) for request, row in zip(requests, told, strict=True)]


def noise(seed: int) -> Encoded:
    """A pair of noise."""
    draw = np.random.default_rng(seed)
    mask = draw.integers(0, 2, (SIDE, SIDE), dtype=np.uint8) * 255
    return Encoded(png_bytes(draw.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)), png_bytes(mask))


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--archived", type=int, default=100_000)
    arguments.add_argument("--files", type=int, default=1000)
    arguments.add_argument("--result", type=Path, default=RESULT)
    asked = arguments.parse_args()
    os.environ |= {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
    conditions = {"store": "moto's S3 server on this machine", "cores": os.cpu_count(), "machine": platform.machine()}
    conditions |= {"python": platform.python_version(), "pyarrow": pa.__version__, "pairs_per_batch": 8}
    conditions["beside"] = "much other work: counts are exact, seconds are no speed"
    rows = {}
    with Store() as store:
        for layout, pairs in (("webdataset", asked.archived), ("mvtec", asked.files)):
            rows[layout] = measured(store, layout, pairs)
            print(layout, json.dumps(rows[layout], indent=2), flush=True)
    asked.result.write_text(json.dumps({"conditions": conditions, "layouts": rows}, indent=2) + "\n")


def measured(store: Store, layout: str, pairs: int) -> dict[str, Any]:
    """One layout, written, killed, gone on with, looked at."""
    with tempfile.TemporaryDirectory(prefix="dhdiff-") as temporary:
        run = laid_out(store.uri(layout), Path(temporary), layout, pairs)
        expected = pairs * 2 if layout == "mvtec" else 3 * -(-pairs // 512)
        figures: dict[str, Any] = {"pairs": pairs}
        figures["killed"] = phase(store, run, "make", kill_at=lambda: len(store.objects(layout)) > expected / 3)
        figures["gone_on"] = phase(store, run, "make")
        figures["nothing_to_do"] = phase(store, run, "make")
        figures["looked_at"] = phase(store, run, "look")
    sizes = store.objects(layout)
    figures |= {"objects": len(sizes), "largest_object_mb": round(max(sizes) / 1e6, 2)}
    made = figures["gone_on"]["made"]
    figures["requests_per_pair_written"] = round(figures["gone_on"]["requests"] / made, 4)
    figures["requests_per_pair_to_find_nothing_to_do"] = round(figures["nothing_to_do"]["requests"] / pairs, 4)
    return figures


def phase(store: Store, run: Run, part: str, kill_at: Callable[[], bool] | None = None) -> dict[str, Any]:
    """One process, and the requests it took; killed at a moment if asked."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dhdiff_ray.on_ray.verbs.synthesize"])
    told, telling = context.Pipe(duplex=False)
    before, begun = sum(store.requests.values()), time.monotonic()
    process = context.Process(target=inside, args=(part, run, telling))
    process.start()
    telling.close()
    while kill_at and process.is_alive():
        time.sleep(0.5)
        if kill_at():
            process.kill()
    process.join()
    if kill_at:
        return {"killed": process.exitcode == -signal.SIGKILL}
    if process.exitcode:
        raise SystemExit(f"{part} left with {process.exitcode}")
    requests = sum(store.requests.values()) - before
    return {**told.recv(), "requests": requests, "seconds": round(time.monotonic() - begun, 1)}


def inside(part: str, run: Run, telling: Connection) -> None:
    """What a process does."""
    telling.send({"make": make, "look": look}[part](run))


def laid_out(storage: str, place: Path, layout: str, pairs: int) -> Run:
    """A run with a split of a few tiny images and what is told of a model that nobody opens."""
    from dhdiff_ray.config import Config
    from dhdiff_ray.data.split import Split

    samples = []
    for defect in ("good", *DEFECTS):
        for at in range(4):
            file = place / f"{CATEGORY}/{defect}/{at}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(noise(at).image)
            key = file.relative_to(place).as_posix()
            samples.append(Sample(key, CATEGORY, defect, "train", str(file), None, None))
    synthesize = {"pairs_per_defect": pairs // len(DEFECTS), "layout": layout}
    data = {"root": str(place), "resolution": SIDE}
    config = {"run": {"storage": storage, "name": "run"}, "data": data, "synthesize": synthesize}
    run = Run(Config.model_validate(config))
    split = Split(tuple(samples), (), 0, 0.5, str(place))
    run.folder.write_json("split.json", split.to_json(hashes=False))
    facts = {"category": CATEGORY, "defects": list(DEFECTS), "weights_sha256": "0" * 64}
    run.folder.write_json(f"models/{CATEGORY}/dhdiff.json", facts)
    return run


def make(run: Run) -> dict[str, int]:
    """What the verb does with one sampler, without a cluster."""
    lot, maker = lot_of(run, CATEGORY), Tiny(run)
    missing = lot.total - lot.done
    for unit in lot.units:
        maker(unit)
    lot.finish(run)
    write_card(run.folder)
    return {"there": lot.done, "made": missing}


def look(run: Run) -> dict[str, Any]:
    """Count the rows, and compare some pairs with what was drawn."""
    rows = read_pair_rows(run.folder, CATEGORY)
    once = len({(row["defect"], row["index"]) for row in rows}) == len(rows)
    some = random.Random(0).sample(rows, min(LOOKED_AT, len(rows)))
    same = sum(read_encoded(run.folder, row) == noise(row["seed"]) for row in some)
    return {"rows": len(rows), "each_once": once, "compared": len(some), "as_drawn": same}


if __name__ == "__main__":
    main()
