"""What one sampling step of a pair costs against one step of the plain backbone for one image, at equal size and batch.

``python -m benchmarks.pair_cost [small|sd15] [--compile]``: times both side by side and alternately in one run, counts
the arithmetic on the meta device, and on a GPU adds pairs per second by batch and the share of the card's matrix rate.
"""

import json
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from dhdiff_ray.model.domains import join
from dhdiff_ray.model.unet import DHDiffUNet

RESULTS = Path(__file__).parent / "results"
TARGET = 2.4
SD15 = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
SMALL = SD15 | {"block_out_channels": (64, 128, 256, 256), "norm_num_groups": 16, "cross_attention_dim": 256}
ROUNDS = 4
LATENT = 32
"""256 pixels."""


def inputs(config, batch, device, dtype=torch.float32):
    width = config["cross_attention_dim"]
    latent = torch.randn(batch, 4, LATENT, LATENT, device=device, dtype=dtype)
    return latent, torch.full((batch,), 500, device=device), torch.randn(batch, 77, width, device=device, dtype=dtype)


def steps(plain, pair, config, batch, device, dtype=torch.float32):
    """The three things that are compared, as functions without arguments."""
    latent, t, text = inputs(config, batch, device, dtype)
    both = join(latent, latent)
    clean = pair.encode_reference(latent, t, text)
    return {
        "plain": lambda: plain(latent, t, text).sample,
        "pair_with_cached_reference": lambda: pair(both, t, text, references=clean),
        "pair": lambda: pair(both, t, text, references=pair.encode_reference(latent, t, text)),
    }


def flops(config):
    """Multiply-adds times two, counted on the meta device."""
    with torch.device("meta"), torch.no_grad():
        plain, pair = UNet2DConditionModel(**config).eval(), DHDiffUNet(config).eval()
        counted = {}
        for name, step in steps(plain, pair, config, 1, "meta").items():
            with FlopCounterMode(display=False) as counter:
                step()
            counted[name] = counter.get_total_flops()
    return counted


def timed(functions, device, rounds=ROUNDS):
    """Least and median seconds of each function, called in turn so that noise hits all alike."""
    seconds = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            if device == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            function()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    return {name: {"least": min(s), "median": statistics.median(s)} for name, s in seconds.items()}


@torch.no_grad()
def main(size="small", compiled=False):
    config = SMALL if size == "small" else SD15
    device = "cuda" if torch.cuda.is_available() else "cpu"
    counted = flops(config)
    torch.manual_seed(0)
    plain, pair = (kind.to(device).eval() for kind in (UNet2DConditionModel(**config), DHDiffUNet(config)))
    batches = (1, 8, 32, 64) if device == "cuda" else (1, 4) if size == "small" else (1,)
    figures = {
        "size": size,
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "target": TARGET,
        "gflop": {name: round(value / 1e9, 1) for name, value in counted.items()},
        "flop_ratio": {name: round(value / counted["plain"], 3) for name, value in counted.items()},
        "batches": {},
    }
    for batch in batches:
        seconds = timed(steps(plain, pair, config, batch, device), device)
        least = {name: s["least"] for name, s in seconds.items()}
        figures["batches"][batch] = {
            "seconds": {name: round(s["median"], 4) for name, s in seconds.items()},
            "ratio": {name: round(value / least["plain"], 3) for name, value in least.items()},
            "pairs_per_second_per_step": round(batch / least["pair"], 2),
            "gflop_per_second": {n: round(counted[n] * batch / least[n] / 1e9, 1) for n in least},
        }
    figures["variants"] = variants(pair, config, device, compiled)
    if device == "cuda":
        figures["matrix_gflop_per_second"] = matrix_rate(device)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"pair_cost_{size}_{device}.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


def variants(pair, config, device, compiled):
    """Ways to make a step faster, each against the plain call of the same run; below one is faster."""
    batch = 32 if device == "cuda" else 4
    latent, t, text = inputs(config, batch, device)
    references = pair.encode_reference(latent, t, text)
    both = join(latent, latent)

    def step(model=pair, x=both):
        return lambda: model(x, t, text, references=references)

    functions = {"as_it_is": step()}
    functions["channels_last_input"] = step(x=both.to(memory_format=torch.channels_last))

    def half():
        with torch.autocast(device, torch.bfloat16):
            return pair(both, t, text, references=references)

    functions["bf16"] = half
    if compiled:
        functions["compile"] = step(torch.compile(pair))
    seconds = timed(functions, device)
    return {name: round(s["least"] / seconds["as_it_is"]["least"], 3) for name, s in seconds.items()}


def matrix_rate(device, side=8192):
    """The card's measured rate of one large fp32 matrix product, in GFLOP/s."""
    a = torch.randn(side, side, device=device)
    least = timed({"matmul": lambda: a @ a}, device)["matmul"]["least"]
    return round(2 * side**3 / least / 1e9)


if __name__ == "__main__":
    words = [w for w in sys.argv[1:] if not w.startswith("-")]
    main(*(words or ["small"]), compiled="--compile" in sys.argv)
