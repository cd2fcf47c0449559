"""The endpoint under load beside a plain loop over the same model: throughput, what passes save, percentiles, faults.

Everything runs on this machine over loopback: the endpoint on a private cluster of two cores (one for the sampler), the
load from another process. Ratios of one run are told, never bare times of different runs.
"""

import asyncio
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil

from dhdiff_ray.config import Config
from dhdiff_ray.config_layers import load_config

RESULT = Path(__file__).parent / "results" / "serve.json"
CLIENTS, PAIRS = 16, 48
SIZES = (1, 8)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="dhdiff-") as storage:
        config = _run(storage)
        figures = {"plain": {str(size): _plain(config, size) for size in SIZES}}
        best = figures["plain"]["8"]["pairs_per_second"]
        figures["passes_of_8_against_1"] = round(best / figures["plain"]["1"]["pairs_per_second"], 2)
        figures["without_ray"] = _alone(config)
        if "--no-ray" not in sys.argv:
            figures["endpoint"] = _endpoint(config)
        for name in figures.keys() & {"without_ray", "endpoint"}:
            figures[f"saturation_{name}"] = round(figures[name]["load"]["pairs_per_second"] / best, 3)
    figures["targets"] = {"saturation": 0.9, "passes_of_8_against_1": 3}
    figures["conditions"] = {
        "model": "tiny preset, 64 x 64, 2 training steps, 25 steps of sampling, fp32, one thread",
        "cores": os.cpu_count(),
        "load_average": [round(x, 1) for x in os.getloadavg()],
        "processor": platform.processor() or platform.machine(),
        "clients": CLIENTS,
        "pairs": PAIRS,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


def _run(storage: str, steps: int = 2) -> Config:
    """A trained run; how well it draws does not matter here."""
    from dhdiff_ray.data.datasets.procedural import generate
    from dhdiff_ray.data.images import read_many
    from dhdiff_ray.data.registry import open_dataset
    from dhdiff_ray.data.split import make_split
    from dhdiff_ray.storage import RunFolder
    from dhdiff_ray.training.batches import BatchSource
    from dhdiff_ray.training.build import build
    from dhdiff_ray.training.checkpoint import publish
    from dhdiff_ray.training.loop import PlainEngine, fit

    root = Path(storage) / "images"
    generate(root, resolution=64, defects_per_type=6, train_good=6, test_good=2)
    places = (f'run.storage="{storage}"', f'data.root="{root}"', "run.name=bench", "data.dataset=procedural")
    served = ("serve.max_batch_size=8", f"serve.queue={4 * CLIENTS}", "serve.batch_wait_ms=50")
    config = load_config(preset="tiny", sets=(*places, *served, f"train.steps={steps}")).config
    folder = RunFolder.of(storage, "bench")
    split = make_split(open_dataset("procedural").scan(root), fraction=0.5, seed=0, root=root)
    folder.write_json("split.json", split.to_json())
    folder.write_json("config.json", config.model_dump(mode="json"))
    own = split.category("mesh")
    samples, pictures, masks = read_many(own.train, 64, False, print)
    parts = build(config, samples, pictures)
    source = BatchSource(config, samples, pictures, masks, parts.tokenizer)
    fit(PlainEngine(parts.objective, config.train), source, config.train, average=None)
    publish(parts, None, folder, "mesh", config, {"defects": sorted({s.defect for s in own.train if not s.is_good})})
    return config


def _plain(config: Config, size: int, pairs: int = 24) -> dict[str, float]:
    """The model in a loop, in a process of its own: no queue, no HTTP."""
    config = config.model_copy(update={"serve": config.serve.model_copy(update={"max_batch_size": size})})
    code = (
        "import json, os, sys, time; from dhdiff_ray.config import Config; os.nice(int(sys.argv[2]));"
        "from dhdiff_ray.on_ray.sampler import SamplerCore; from dhdiff_ray.on_ray.asks import Ask;"
        "core = SamplerCore(Config.model_validate_json(sys.stdin.read())); core.warm_up(); n = int(sys.argv[1]);"
        "asks = [core.orders(Ask(category='mesh', defect='bent', seed=i))[0] for i in range(n)];"
        "size = core.config.serve.max_batch_size; start = time.perf_counter();"
        "[core.draw(asks[i:i + size]) for i in range(0, n, size)];"
        "print(json.dumps(time.perf_counter() - start))"
    )
    command = [sys.executable, "-c", code, str(pairs), "15"]  # Ray gives its workers the same niceness
    done = subprocess.run(command, input=config.model_dump_json(), capture_output=True, text=True, check=True)
    seconds = float(done.stdout.strip().splitlines()[-1])
    return {"pairs_per_second": round(pairs / seconds, 3), "seconds_per_pass": round(seconds / pairs * size, 3)}


def _alone(config: Config) -> dict:
    """The same application and sampler in one process of their own, served by uvicorn."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = (
        "import os, sys, uvicorn; from dhdiff_ray.config import Config; os.nice(15);"
        "from dhdiff_ray.on_ray.service import Service; from dhdiff_ray.on_ray.api import make_app;"
        "config = Config.model_validate_json(sys.stdin.read()); service = Service(config); service.core.warm_up();"
        "uvicorn.run(make_app(service, limits=config.serve), port=int(sys.argv[1]), log_level='error')"
    )
    server = subprocess.Popen([sys.executable, "-c", code, str(port)], stdin=subprocess.PIPE, text=True)
    try:
        server.stdin.write(config.model_dump_json())
        server.stdin.close()
        url = f"http://127.0.0.1:{port}"
        _wait(url)
        load = _other_process(url)
        before = _held(server.pid)
        leaving = asyncio.run(_leave(url))
        for _ in range(2):
            _other_process(url, pairs=0)  # 50 small requests each
        return {"load": load, "clients_that_leave": leaving, "held_before": before, "held_after": _held(server.pid)}
    finally:
        server.kill()
        server.wait()


def _wait(url: str, seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        try:
            if httpx.get(f"{url}/readyz", trust_env=False).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise SystemExit(f"nothing answers at {url}")


def _held(pid: int) -> dict[str, int]:
    process = psutil.Process(pid)
    return {"memory_mb": process.memory_info().rss >> 20, "files": process.num_fds()}


def _other_process(url: str, pairs: int = PAIRS) -> dict:
    command = [sys.executable, __file__, "--load", str(pairs), url]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _endpoint(config: Config) -> dict:
    from dhdiff_ray.on_ray import serve
    from dhdiff_ray.on_ray.cluster import local_cluster

    with local_cluster(num_cpus=2) as cluster:
        url = serve.up(config, port=0, block=False)
        sampler = _sampler(cluster)
        before = sampler.memory_info().rss
        load = _other_process(url)
        leaving = asyncio.run(_leave(url))
        after = _sampler(cluster).memory_info().rss
        killed = asyncio.run(_killed(url, sampler))
        serve.down()
    memory = {"before_mb": before >> 20, "after_mb": after >> 20}
    return {"load": load, "clients_that_leave": leaving, "memory": memory, "killed_sampler": killed}


def _sampler(cluster):
    return next(p for p in cluster.processes() if "Sampler" in " ".join(p.cmdline()))


async def _load(url: str, pairs: int) -> dict:
    """So many clients that each ask for one pair after the other."""
    rest, seconds, codes = iter(range(pairs)), [], {}

    async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False) as client:

        async def ask():
            for seed in rest:
                start = time.perf_counter()
                answer = await client.post("/v1/pairs", json={"category": "mesh", "defect": "bent", "seed": seed})
                seconds.append(time.perf_counter() - start)
                codes[answer.status_code] = codes.get(answer.status_code, 0) + 1

        start = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(CLIENTS)))
        whole = time.perf_counter() - start
        small = []
        for _ in range(50):
            begun = time.perf_counter()
            await client.get("/v1/models/mesh")
            small.append(time.perf_counter() - begun)
    return {
        "pairs_per_second": round(pairs / whole, 3),
        "codes": codes,
        "seconds": {f"p{at}": round(_percentile(seconds, at), 3) for at in (50, 95, 99) if seconds},
        "seconds_of_a_request_without_drawing": {f"p{at}": round(_percentile(small, at), 4) for at in (50, 95)},
    }


async def _leave(url: str, clients: int = 200) -> dict:
    """Clients that ask for long work and go away: how soon another is served."""
    long = {"category": "mesh", "defect": "bent", "steps": 200}
    async with httpx.AsyncClient(base_url=url, timeout=1.0, trust_env=False) as client:
        left = await asyncio.gather(
            *(client.post("/v1/pairs", json={**long, "seed": i}) for i in range(clients)), return_exceptions=True
        )
    refused = sum(not isinstance(answer, BaseException) and answer.status_code == 503 for answer in left)
    async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False) as client:
        start = time.perf_counter()
        answer = await client.post("/v1/pairs", json={"category": "mesh", "defect": "bent", "steps": 1})
        seconds = time.perf_counter() - start
    return {"clients": clients, "refused_503": refused, "next_status": answer.status_code, "next_s": round(seconds, 2)}


async def _killed(url: str, sampler) -> dict:
    """The only sampler is killed while 4 clients ask: what they are told, and how long nobody is served."""
    codes, times = {}, []
    async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False) as client:

        async def ask():
            while len(times) < 8:
                answer = await client.post("/v1/pairs", json={"category": "mesh", "defect": "bent", "steps": 2})
                codes[answer.status_code] = codes.get(answer.status_code, 0) + 1
                if answer.status_code == 200:
                    times.append(time.perf_counter())
                else:
                    await asyncio.sleep(0.2)

        work = [asyncio.ensure_future(ask()) for _ in range(4)]
        await asyncio.sleep(0.5)
        sampler.kill()
        killed = time.perf_counter()
        first = None
        while first is None:
            await asyncio.sleep(0.05)
            first = next((at for at in times if at > killed), None)
            if all(task.done() for task in work) and first is None:
                break
        await asyncio.gather(*work)
    return {"codes": codes, "seconds_without_service": None if first is None else round(first - killed, 2)}


def _percentile(values: list[float], at: int) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * at / 100))]


if __name__ == "__main__":
    if "--load" in sys.argv:
        print(json.dumps(asyncio.run(_load(sys.argv[-1], int(sys.argv[-2])))))
    else:
        main()
