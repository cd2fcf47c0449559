"""What ``benchmarks.serve --rude`` does: one rude client beside normal ones, who must hardly notice.

The rude one, a process of its own (``python -m benchmarks.serve_rude URL FILE``), holds connections whose headers never
end and others whose body comes a byte a second, and sends huge forms one after the other, until the file appears. There
are no keys, so that it shares the limits of the normal ones. Calm and disturbed rounds take turns.
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
ROUNDS, REQUESTS, CLIENTS = 3, 60, 2
SEEDS = 8
POST = "POST /v1/pairs HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n"
FORM = b'--x\r\nContent-Disposition: form-data; name="base"; filename="a.png"\r\n\r\n'


def rude(config: Config) -> dict:
    """Seconds of the normal clients' requests with and without the rude one, and what it was told."""
    calm, beside, told = [], [], Counter()
    with local_cluster(num_cpus=2):
        url = serve.up(config, port=0)
        normal = Load(REQUESTS, CLIENTS, {"steps": 2}, SEEDS)
        answers = normal.run(url)["answers"]
        for _ in range(ROUNDS):
            calm.append(normal.run(url))
            with _rude_client(url) as codes:
                beside.append(normal.run(url))
            told.update(codes)
        serve.down()
    for one in (*calm, *beside):
        one["wrong"] += sum(answers[seed] != digest for seed, digest in one.pop("answers").items())
    p95 = [sum(one["seconds"]["p95"] for one in kind) / ROUNDS for kind in (calm, beside)]
    return {
        "held": {"half_headers": HEADERS, "slow_bodies": BODIES, "forms": FORMS, "form_mb": FORM_MB},
        "calm": calm,
        "beside_the_rude_one": beside,
        "the_rude_one_was_told": dict(told),
        "p95_against_calm": round(p95[1] / p95[0], 2),
        "server_errors": sum(n for one in beside for code, n in one["codes"].items() if code.startswith("5")),
    }


@contextlib.contextmanager
def _rude_client(url: str) -> Iterator[dict[str, int]]:
    codes: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="dhdiff-") as folder:
        stop = Path(folder) / "stop"
        command = [sys.executable, "-m", "benchmarks.serve_rude", url, str(stop)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            process.stdout.readline()  # all connections are open
            yield codes
        finally:
            stop.touch()
            codes |= json.loads(process.communicate()[0])


async def _disturb(url: str, stop: Path) -> dict[str, int]:
    place, told, done = urlsplit(url), Counter(), asyncio.Event()
    head = POST.format(host=place.netloc, kind="application/json", size=10**6).encode()
    large = POST.format(host=place.netloc, kind="multipart/form-data; boundary=x", size=FORM_MB * 2**20).encode()
    form = large + b"\r\n" + FORM + bytes(FORM_MB * 2**20 - len(FORM))

    async def hold(name: str, begin: bytes, rest: bytes) -> None:
        """One connection after the other, a byte a second until it is closed; ``rest`` comes at once."""
        while not done.is_set():
            try:
                reader, writer = await asyncio.open_connection(place.hostname, place.port)
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
    print(json.dumps(asyncio.run(_disturb(sys.argv[1], Path(sys.argv[2])))))
