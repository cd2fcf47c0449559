"""The endpoint under load beside a plain loop over the same model: throughput, what passes save, percentiles, faults.

``python -m benchmarks.serve [--no-ray]`` is the load; ``--faults`` kills a sampler, redeploys and lets clients go away
instead, ``--soak N`` asks ``N`` times in a row, ``--rude`` has one client hold connections and send huge forms beside
normal ones. Everything runs on this machine over loopback: the endpoint on a private cluster of two cores (one for the
sampler), the load from another process. Ratios of one run are told; times of different runs on a shared machine do not
compare. Each part replaces its own figures in the result.
"""

import argparse
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

from benchmarks.serve_load import Load
from dhdiff_ray.config import Config
from dhdiff_ray.config.load import load_config

RESULT = Path(__file__).parent / "results" / "serve.json"
CLIENTS, PAIRS = 16, 160
TARGETS = {
    "saturation": 0.9,
    "passes_of_8_against_1": 3,
    "seconds_without_service": 5,
    "drained_s": 2,
    "memory_growth": 0.05,
    "p95_beside_a_rude_client": 2,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-ray", action="store_true", help="only what needs no cluster")
    parser.add_argument("--faults", action="store_true", help="instead: killed, redeployed, left")
    parser.add_argument("--rude", action="store_true", help="instead: a rude client beside normal ones")
    parser.add_argument("--soak", type=int, metavar="N", default=0, help="instead: so many requests in a row")
    asked = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dhdiff-") as storage:
        config = trained_run(storage)
        if asked.faults or asked.soak or asked.rude:
            from benchmarks import serve_faults, serve_rude

            found = {}
            if asked.rude:
                found["rude"] = serve_rude.rude(config)
            if asked.faults:
                found["faults"] = serve_faults.faults(config)
            if asked.soak:
                found["soak"] = serve_faults.soak(config, asked.soak)
        else:
            found = {"load": _load(config, asked.no_ray)}
    for part in found.values():
        part["conditions"] = _conditions(time.monotonic() - start)
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    figures = {"targets": TARGETS, **{name: part for name, part in known.items() if name != "targets"}, **found}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def _load(config: Config, no_ray: bool) -> dict:
    plain = {"8": [_plain(config, 8)], "1": _plain(config, 1), "16": _plain(config, 16, 32)}
    figures = {"plain": plain, "arithmetic": _arithmetic(config), "without_ray": _alone(config)}
    plain["8"].append(_plain(config, 8))
    if not no_ray:
        figures["endpoint"] = _endpoint(config)
        plain["8"].append(_plain(config, 8))
    best = sum(each["pairs_per_second"] for each in plain["8"]) / len(plain["8"])
    for size, rate in (("8", best), ("16", plain["16"]["pairs_per_second"])):
        figures[f"passes_of_{size}_against_1"] = round(rate / plain["1"]["pairs_per_second"], 2)
    for name in ("without_ray", "endpoint"):
        if name in figures:
            figures[f"saturation_{name}"] = round(figures[name]["saturated"]["pairs_per_second"] / best, 3)
    return figures


def _conditions(seconds: float) -> dict:
    return {
        "model": "tiny preset, 64 x 64 (40-pixel window), 2 training steps, 25 steps of sampling, fp32, one thread",
        "cores": os.cpu_count(),
        "load_average": [round(x, 1) for x in os.getloadavg()],
        "processor": platform.processor() or platform.machine(),
        "clients": CLIENTS,
        "pairs": PAIRS,
        "seconds": round(seconds),
    }


def trained_run(storage: str, steps: int = 2) -> Config:
    """A trained run; how well it draws does not matter here."""
    from dhdiff_ray.data.datasets.procedural import generate
    from dhdiff_ray.data.images import read_many
    from dhdiff_ray.data.registry import open_dataset
    from dhdiff_ray.data.split import make_split
    from dhdiff_ray.run.folder import RunFolder
    from dhdiff_ray.run.run import Run
    from dhdiff_ray.training.build import build, build_source
    from dhdiff_ray.training.checkpoint import publish
    from dhdiff_ray.training.loop import PlainEngine, fit

    root = Path(storage) / "images"
    generate(root, resolution=64, defects_per_type=6, train_good=6, test_good=2)
    places = (f'run.storage="{storage}"', f'data.root="{root}"', "run.name=bench", "data.dataset=procedural")
    served = ("serve.max_batch_size=8", f"serve.queue={4 * CLIENTS}", "synthesize.steps=25")
    config = load_config(preset="tiny", sets=(*places, *served, f"train.steps={steps}")).config
    folder = RunFolder.of(storage, "bench")
    split = make_split(open_dataset("procedural").scan(root), fraction=0.5, seed=0, root=root)
    folder.write_json("split.json", split.to_json())
    folder.write_json("config.json", config.model_dump(mode="json"))
    own = split.category("mesh")
    samples, pictures, masks = read_many(own.train, 64, False, print)
    parts = build(config, samples, pictures)
    source = build_source(parts, config, samples, pictures, masks)
    fit(PlainEngine(parts.objective, config.train), source, config.train, average=None)
    defects = sorted({s.defect for s in own.train if not s.is_good})
    publish(parts, None, Run(config), "mesh", {"defects": defects})
    return config


def _plain(config: Config, size: int, pairs: int = 24) -> dict[str, float]:
    """The model in a loop, in a process of its own: no queue, no HTTP; and its time for a pair of one step."""
    config = config.model_copy(update={"serve": config.serve.model_copy(update={"max_batch_size": size})})
    code = (
        "import json, os, sys, time; from dhdiff_ray.config import Config; os.nice(int(sys.argv[2]));"
        "from dhdiff_ray.serving.sampler import SamplerCore; from dhdiff_ray.serving.questions import PairQuery;"
        "core = SamplerCore(Config.model_validate_json(sys.stdin.read())); core.warm_up(); n = int(sys.argv[1]);"
        "orders = [core.orders(PairQuery(category='mesh', defect='bent', seed=i))[0] for i in range(n)];"
        "size = core.config.serve.max_batch_size; start = time.perf_counter();"
        "[core.draw(orders[i:i + size]) for i in range(0, n, size)]; whole = time.perf_counter() - start;"
        "one = core.orders(PairQuery(category='mesh', defect='bent', steps=1)); start = time.perf_counter();"
        "[core.draw(one) for _ in range(10)];"
        "print(json.dumps([whole, (time.perf_counter() - start) / 10]))"
    )
    command = [sys.executable, "-c", code, str(pairs), "15"]  # Ray gives its workers the same niceness
    done = subprocess.run(command, input=config.model_dump_json(), stdout=subprocess.PIPE, text=True, check=True)
    seconds, one_step = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        "pairs_per_second": round(pairs / seconds, 3),
        "seconds_per_pass": round(seconds / pairs * size, 3),
        "seconds_per_pass_of_one_step": round(one_step, 4),
    }


def _arithmetic(config: Config) -> dict:
    command = [sys.executable, "-m", "benchmarks.serve_arithmetic"]
    done = subprocess.run(command, input=config.model_dump_json(), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def _alone(config: Config) -> dict:
    """The same application and sampler in one process of their own, served by uvicorn."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = (
        "import os, sys, uvicorn; from dhdiff_ray.config import Config; os.nice(15);"
        "from dhdiff_ray.serving.service import Service; from dhdiff_ray.serving.api import make_app;"
        "config = Config.model_validate_json(sys.stdin.read()); service = Service(config); service.core.warm_up();"
        "uvicorn.run(make_app(service, limits=config.serve), port=int(sys.argv[1]), log_level='error')"
    )
    server = subprocess.Popen([sys.executable, "-c", code, str(port)], stdin=subprocess.PIPE, text=True)
    try:
        server.stdin.write(config.model_dump_json())
        server.stdin.close()
        url = f"http://127.0.0.1:{port}"
        _wait(url)
        return _asked(url)
    finally:
        server.kill()
        server.wait()


def _endpoint(config: Config) -> dict:
    from dhdiff_ray.on_ray.cluster.local import local_cluster
    from dhdiff_ray.on_ray.serve import up as serve

    with local_cluster(num_cpus=2):
        url = serve.up(config, port=0)
        found = _asked(url)
        serve.down()
    return found


def _asked(url: str) -> dict:
    """Many clients at once; then one alone, whose answer takes a pass of one step and whatever is around it."""
    saturated = Load(PAIRS, CLIENTS).run(url)
    alone = Load(15, 1, {"steps": 1}, small=50).run(url)
    del saturated["answers"], alone["answers"]
    return {"saturated": saturated, "one_client_one_step": alone}


def _wait(url: str, seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        try:
            if httpx.get(f"{url}/readyz", trust_env=False).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise SystemExit(f"nothing answers at {url}")


if __name__ == "__main__":
    main()
