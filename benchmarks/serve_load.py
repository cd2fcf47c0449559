"""Clients of the endpoint, in a process of their own: ``python -m benchmarks.serve_load URL '{"requests": 48}'``.

Each asks for one pair after the other. Answers are compared: a seed that ever had other bytes is told as wrong.
"""

import asyncio
import hashlib
import itertools
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx

ASK = {"category": "mesh", "defect": "bent"}


@dataclass
class Load:
    """What the clients do; ``leave`` makes them go away after so many seconds instead of waiting."""

    requests: int = 0
    clients: int = 16
    ask: dict = field(default_factory=dict)
    seeds: int = 0
    """Seeds repeat after so many; 0 takes a new one each time."""
    until: str = ""
    """Go on until this file appears, instead of a number of requests."""
    small: int = 0
    """Requests without drawing afterwards, one at a time."""
    leave: float = 0

    def start(self, url: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "benchmarks.serve_load", url, json.dumps(asdict(self))]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def run(self, url: str) -> dict:
        return result(self.start(url))


def result(process: subprocess.Popen) -> dict:
    told, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the load failed with {process.returncode}")
    return json.loads(told)


async def ask_all(url: str, load: Load) -> dict:
    seconds, codes, done, answers, wrong = [], {}, [], {}, 0
    stop = Path(load.until) if load.until else None
    left = iter(range(load.requests)) if stop is None else iter(range(10**9))
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False, limits=limits) as client:

        async def one():
            nonlocal wrong
            for number in left:
                if stop is not None and stop.exists():
                    return
                seed = number % load.seeds if load.seeds else number
                begun = time.perf_counter()
                try:
                    answer = await client.post("/v1/pairs", json={**ASK, **load.ask, "seed": seed})
                    code = str(answer.status_code)
                except httpx.HTTPError as error:
                    code = type(error).__name__
                codes[code] = codes.get(code, 0) + 1
                if code == "200":
                    seconds.append(time.perf_counter() - begun)
                    done.append(time.perf_counter())
                    digest = hashlib.sha256(answer.content).hexdigest()[:16]
                    wrong += answers.setdefault(seed, digest) != digest
                else:
                    await asyncio.sleep(0.2)

        begun = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(load.clients)))
        whole = time.perf_counter() - begun
        small = []
        for _ in range(load.small):
            start = time.perf_counter()
            await client.get("/v1/models/mesh")
            small.append(time.perf_counter() - start)
    gaps = [b - a for a, b in itertools.pairwise(done)]
    return {
        "pairs_per_second": round(len(done) / whole, 3),
        "codes": codes,
        "wrong": wrong,
        "seconds": percentiles(seconds),
        **({"seconds_without_drawing": percentiles(small)} if small else {}),
        "longest_gap_s": round(max(gaps, default=0), 2),
        "answers": answers if load.seeds else {},
    }


async def leave(url: str, load: Load) -> dict:
    """All at once, and all gone after so many seconds."""
    limits = httpx.Limits(max_connections=None)
    timeout = httpx.Timeout(load.leave, connect=30, pool=30)
    async with httpx.AsyncClient(base_url=url, timeout=timeout, trust_env=False, limits=limits) as client:
        asks = (client.post("/v1/pairs", json={**ASK, **load.ask, "seed": i}) for i in range(load.clients))
        ends = await asyncio.gather(*asks, return_exceptions=True)
    gone_at = time.time()
    told = [type(end).__name__ if isinstance(end, BaseException) else str(end.status_code) for end in ends]
    return {"clients": load.clients, "gone_at": gone_at, "ends": {kind: told.count(kind) for kind in sorted(set(told))}}


def percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        f"p{at}": round(ordered[min(len(ordered) - 1, len(ordered) * at // 100)], 4) for at in (50, 95, 99) if ordered
    }


if __name__ == "__main__":
    wanted = Load(**json.loads(sys.argv[2]))
    print(json.dumps(asyncio.run((leave if wanted.leave else ask_all)(sys.argv[1], wanted))))
