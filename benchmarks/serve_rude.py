"""What ``benchmarks.serve --rude`` does: one rude client beside normal ones, who must hardly notice.

The rude one, a process of its own (``python -m benchmarks.serve_rude URL FILE ADDRESS``), holds connections
whose headers never end and others whose body comes a byte a second, and sends huge forms one after the other, until the
file appears. There are no keys. Calm and disturbed rounds take turns, and so do the ways to be rude: from the normal
ones' address, from another, and from another while its own work yields to everything else on the cores that it shares
with the endpoint, as that of a client on a machine of its own would.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.serve_load import Load
from dhdiff_ray.config import Config
from dhdiff_ray.on_ray.cluster.local import local_cluster
from dhdiff_ray.on_ray.serve import up as serve

HEADERS, BODIES, FORMS = 500, 300, 2
"""Connections of each kind that are held at once."""
FORM_MB = 48
ROUNDS, CALM, BESIDE, CLIENTS = 3, 100, 300, 2
SEEDS = 8
HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"
WAYS = {
    "same_address": {"address": HERE},
    "another_address": {"address": ELSEWHERE},
    "another_address_yielding": {"address": ELSEWHERE, "niceness": 19},
}
POST = "POST /v1/pairs HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n"
FORM = b'--x\r\nContent-Disposition: form-data; name="base"; filename="a.png"\r\n\r\n'


def rude(config: Config) -> dict:
    """Seconds of the normal clients' requests with and without the rude one, and what it was told."""
    rounds = {way: {"calm": [], "beside": [], "told": Counter()} for way in WAYS}
    with local_cluster(num_cpus=2):
        url = serve.up(config, port=0)
        calm, beside = (Load(requests, CLIENTS, {"steps": 2}, SEEDS) for requests in (CALM, BESIDE))
        answers = calm.run(url)["answers"]
        for _ in range(ROUNDS):
            for way, found in rounds.items():
                found["calm"].append(calm.run(url))
                with _rude_client(url, **WAYS[way]) as codes:
                    found["beside"].append(beside.run(url))
                found["told"].update(codes)
        serve.down()
    for found in rounds.values():
        for one in (*found["calm"], *found["beside"]):
            one["wrong"] += sum(answers[seed] != digest for seed, digest in one.pop("answers").items())
    held = {"half_headers": HEADERS, "slow_bodies": BODIES, "forms": FORMS, "form_mb": FORM_MB}
    return {"held": held, "ways": {way: _summary(found) for way, found in rounds.items()}}


def _summary(found: dict) -> dict:
    p95 = [sum(one["seconds"]["p95"] for one in found[kind]) / ROUNDS for kind in ("calm", "beside")]
    codes = Counter(code for one in found["beside"] for code in one["codes"] for _ in range(one["codes"][code]))
    return {
        "p95_against_calm": round(p95[1] / p95[0], 2),
        "p95_against_calm_by_round": [
            round(rude["seconds"]["p95"] / calm["seconds"]["p95"], 2)
            for calm, rude in zip(found["calm"], found["beside"], strict=True)
        ],
        "answered": round(codes["200"] / sum(codes.values()), 4),
        "server_errors": sum(n for code, n in codes.items() if code.startswith("5")),
        "calm": found["calm"],
        "beside_the_rude_one": found["beside"],
        "the_rude_one_was_told": dict(found["told"]),
    }


@contextlib.contextmanager
def _rude_client(url: str, address: str, niceness: int = 0) -> Iterator[dict[str, int]]:
    codes: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="dhdiff-") as folder:
        stop = Path(folder) / "stop"
        command = [sys.executable, "-m", "benchmarks.serve_rude", url, str(stop), address]
        command = ["nice", "-n", str(niceness), *command]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            process.stdout.readline()  # all connections are open
            yield codes
        finally:
            stop.touch()
            codes |= json.loads(process.communicate()[0])


async def _disturb(url: str, stop: Path, address: str) -> dict[str, int]:
    place, told, done = urlsplit(url), Counter(), asyncio.Event()
    head = POST.format(host=place.netloc, kind="application/json", size=10**6).encode()
    large = POST.format(host=place.netloc, kind="multipart/form-data; boundary=x", size=FORM_MB * 2**20).encode()
    form = large + b"\r\n" + FORM + bytes(FORM_MB * 2**20 - len(FORM))

    async def hold(name: str, begin: bytes, rest: bytes) -> None:
        """One connection after the other, a byte a second until it is closed; ``rest`` comes at once."""
        while not done.is_set():
            try:
                reader, writer = await asyncio.open_connection(place.hostname, place.port, local_addr=(address, 0))
                writer.write(begin + rest)
                answer = asyncio.ensure_future(reader.readline())
                while not rest and not answer.done() and not done.is_set():
                    await asyncio.wait([answer], timeout=1)
                    writer.write(b"a")
                first = await asyncio.wait_for(answer, None if rest and not done.is_set() else 1)
                told[f"{name}: {first.decode()[9:12] or 'closed'}"] += 1
                writer.close()
            except (OSError, TimeoutError):
                told[f"{name}: cut"] += not done.is_set()

    kinds = [("half headers", head, b"")] * HEADERS + [("slow body", head + b"\r\n", b"")] * BODIES
    holding = [asyncio.ensure_future(hold(*kind)) for kind in [*kinds, *[("huge form", b"", form)] * FORMS]]
    await asyncio.sleep(2)
    print("open", flush=True)
    while not stop.exists():
        await asyncio.sleep(0.2)
    done.set()
    await asyncio.wait(holding, timeout=20)
    return {name: count for name, count in sorted(told.items()) if count}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_disturb(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))))
