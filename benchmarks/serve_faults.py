"""What ``benchmarks.serve --faults`` and ``--soak N`` do to the endpoint, and what its clients are told meanwhile."""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
from ray import serve as ray_serve

from benchmarks.serve_load import ASK, Load, result
from dhdiff_ray.config import Config
from dhdiff_ray.on_ray.cluster.local import local_cluster
from dhdiff_ray.on_ray.serve import up as serve
from dhdiff_ray.on_ray.serve.replicas import APP, build

SHORT = {"steps": 2}
SEEDS = 8
LEAVING = 200
PARTS = {"sampler": "Sampler", "ingress": "Ingress", "proxy": "ProxyActor"}
CHUNKS = 20


def faults(config: Config) -> dict:
    with local_cluster(num_cpus=2) as cluster:
        url = serve.up(config, port=0)
        before = Load(2 * SEEDS, 4, SHORT, SEEDS).run(url)
        found = {"left_by_clients": _left(url, cluster)}
        with _under_load(url, before) as told:
            _processes(cluster, "Sampler")[0].kill()
            _until_ready(url, told)
        found["one_sampler_killed"] = told
        with _under_load(url, before) as told:
            redeploy(config, batch_wait_ms=11)
        found["redeployed"] = told
        with _under_load(url, before) as told:
            redeploy(config, batch_wait_ms=12, surge_percent=100)
        found["redeployed_with_surge"] = told
        with _under_load(url, before) as told:
            redeploy(config, replicas=2, batch_wait_ms=12)
        found["scaled_to_two"] = told
        with _under_load(url, before) as told:
            _processes(cluster, "Sampler")[0].kill()
            time.sleep(20)
        found["one_of_two_samplers_killed"] = told
        serve.down()
    return found


def soak(config: Config, requests: int) -> dict:
    """So many requests of one step, eight clients; memory and files after each twentieth, and what stays behind."""
    with _temporary_folder() as folder, local_cluster(num_cpus=2) as cluster:
        at_first = set(Path(folder).iterdir())
        url = serve.up(config, port=0)
        parts = {name: _processes(cluster, word)[0] for name, word in PARTS.items()}
        history, codes, wrong, answers, start = [], {}, 0, {}, time.monotonic()
        for _ in range(CHUNKS):
            told = Load(requests // CHUNKS, 8, {"steps": 1}, SEEDS).run(url)
            history.append({name: held(process) for name, process in parts.items()})
            wrong += told["wrong"] + sum(answers.setdefault(k, v) != v for k, v in told["answers"].items())
            for code, count in told["codes"].items():
                codes[code] = codes.get(code, 0) + count
        seconds = time.monotonic() - start
        left = sorted(path.name for path in set(Path(folder).iterdir()) - at_first)
        serve.down()
    warm = history[CHUNKS // 4 - 1]
    return {
        "requests": sum(codes.values()),
        "codes": codes,
        "wrong": wrong,
        "requests_per_second": round(sum(codes.values()) / seconds, 1),
        "first_chunk": history[0],
        "after_a_quarter": warm,
        "end": history[-1],
        "left_in_the_temporary_folder": left,
        "memory_growth_after_a_quarter": {
            name: round(history[-1][name]["memory_mb"] / warm[name]["memory_mb"] - 1, 4) for name in PARTS
        },
        "memory_mb_of_the_sampler": [row["sampler"]["memory_mb"] for row in history],
    }


@contextlib.contextmanager
def _temporary_folder() -> Iterator[str]:
    """An empty temporary folder of this process and all that it starts."""
    before = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="dhs-", dir="/tmp") as folder:  # short: Ray's sockets lie below it
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        try:
            yield folder
        finally:
            tempfile.tempdir = None
            os.environ.pop("TMPDIR")
            os.environ |= {"TMPDIR": before} if before else {}


def redeploy(config: Config, **changed) -> None:
    """The same application with other settings; back when every old replica is replaced."""
    served = config.model_copy(update={"serve": config.serve.model_copy(update=changed)})
    ray_serve.run(build(served), name=APP, route_prefix="/")


@contextlib.contextmanager
def _under_load(url: str, before: dict, clients: int = 4) -> Iterator[dict]:
    """Four clients ask all the time; what they were told is in the dictionary at the end."""
    told: dict = {}
    with tempfile.TemporaryDirectory() as folder:
        stop = Path(folder) / "stop"
        asking = Load(0, clients, SHORT, SEEDS, str(stop)).start(url)
        try:
            time.sleep(4)
            begun = time.perf_counter()
            yield told
            told["took_s"] = round(time.perf_counter() - begun, 1)
            time.sleep(2)
        finally:
            stop.touch()
            found = result(asking)
    answers = found.pop("answers")
    found["wrong"] += sum(before["answers"].get(seed, digest) != digest for seed, digest in answers.items())
    told.update(found)


def _until_ready(url: str, told: dict, limit: float = 90) -> None:
    start = time.perf_counter()
    time.sleep(1)
    while time.perf_counter() - start < limit:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.post(f"{url}/v1/pairs", json={**ASK, **SHORT}, timeout=60, trust_env=False).is_success:
                told["answered_again_after_s"] = round(time.perf_counter() - start, 2)
                return
        time.sleep(0.1)


def _left(url: str, cluster) -> list[dict]:
    """Two waves of clients that ask for long work and go away after 1.5 s."""
    sampler, waves = _processes(cluster, "Sampler")[0], []
    for _ in range(2):
        before = held(sampler)
        told = Load(clients=LEAVING, ask={"steps": 200}, leave=1.5).run(url)
        gone, looked = told.pop("gone_at"), time.time()
        while _busy(sampler) and looked - gone < 30:
            looked = time.time()
        told["drained_s"] = round(looked - gone, 2)
        start = time.perf_counter()
        answer = httpx.post(f"{url}/v1/pairs", json={**ASK, "steps": 1}, timeout=120, trust_env=False)
        told["next"] = {"status": answer.status_code, "seconds": round(time.perf_counter() - start, 2)}
        waves.append({**told, "before": before, "after": held(sampler)})
    return waves


def held(process: psutil.Process) -> dict[str, float]:
    """Memory in MB and open files of a process."""
    return {"memory_mb": round(process.memory_info().rss / 2**20, 1), "files": process.num_fds()}


def _busy(process: psutil.Process, seconds: float = 0.3) -> bool:
    """Whether it computes: more than a fifth of the time that is looked at."""

    def used() -> float:
        times = process.cpu_times()
        return times.user + times.system

    before = used()
    time.sleep(seconds)
    return used() - before > seconds / 5


def _processes(cluster, word: str) -> list[psutil.Process]:
    found = []
    for process in cluster.processes():
        with contextlib.suppress(psutil.Error):
            if word in " ".join(process.cmdline()) or word in process.name():
                found.append(process)
    return found
