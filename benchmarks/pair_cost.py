"""What one sampling step of a pair costs against one step of the plain backbone for one image, at equal size and batch.

``python -m benchmarks.pair_cost [small|sd15] [--compile]``: times both side by side and alternately in one run, counts
the arithmetic on the meta device, and on a GPU adds bf16 (autocast, as ``synthesize.precision`` has it), pairs per
second by batch, and the share of the card's matrix rate: that of one large product, measured in the same run.
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
    latent = torch.randn(batch, config.get("in_channels", 4), LATENT, LATENT, device=device, dtype=dtype)
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


def flops(config, switches=None):
    """Multiply-adds times two, counted on the meta device; ``switches`` are what a pair's network has beside it."""
    with torch.device("meta"), torch.no_grad():
        plain, pair = UNet2DConditionModel(**config).eval(), DHDiffUNet(config, **(switches or {})).eval()
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


def by_batch(plain, pair, config, counted, device, precision, rate):
    """Seconds, ratios and rates of a step at each batch size; all in one precision."""
    found = {}
    for batch in (1, 8, 32, 64) if device == "cuda" else (1, 4) if config is SMALL else (1,):
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            seconds = timed(steps(plain, pair, config, batch, device), device)
        least = {name: s["least"] for name, s in seconds.items()}
        speed = {name: counted[name] * batch / least[name] / 1e9 for name in least}
        found[batch] = {
            "seconds": {name: round(s["median"], 4) for name, s in seconds.items()},
            "ratio": {name: round(value / least["plain"], 3) for name, value in least.items()},
            "pairs_per_second_per_step": round(batch / least["pair"], 2),
            "gflop_per_second": {name: round(value, 1) for name, value in speed.items()},
        }
        if rate:
            found[batch]["of_matrix_rate"] = {name: round(value / rate, 3) for name, value in speed.items()}
        print(precision, batch, found[batch], flush=True)
    return found


@torch.no_grad()
def main(size="small", compiled=False):
    config = SMALL if size == "small" else SD15
    device = "cuda" if torch.cuda.is_available() else "cpu"
    counted = flops(config)
    torch.manual_seed(0)
    plain, pair = (model.to(device).eval() for model in (UNet2DConditionModel(**config), DHDiffUNet(config)))
    on_gpu = device == "cuda"
    figures = {
        "size": size,
        "device": torch.cuda.get_device_name() if on_gpu else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "target": TARGET,
        "gflop": {name: round(value / 1e9, 1) for name, value in counted.items()},
        "flop_ratio": {name: round(value / counted["plain"], 3) for name, value in counted.items()},
    }
    rates = {"fp32": matrix_rate(device, torch.float32), "bf16": matrix_rate(device, torch.bfloat16)} if on_gpu else {}
    figures |= {"matrix_gflop_per_second": rates} if on_gpu else {}
    figures["batches"] = by_batch(plain, pair, config, counted, device, "fp32", rates.get("fp32"))
    if on_gpu:
        figures["batches_bf16"] = by_batch(plain, pair, config, counted, device, "bf16", rates["bf16"])
    figures["variants"] = variants(pair, config, device, compiled)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"pair_cost_{size}_{device}.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


def variants(pair, config, device, compiled):
    """Ways to make a step faster, each against the call as it is; below one is faster."""
    batch = 32 if device == "cuda" else 4
    latent, t, text = inputs(config, batch, device)
    references = pair.encode_reference(latent, t, text)
    both = join(latent, latent)

    def step(model=pair, x=both, half=False):
        def run():
            with torch.autocast(device, torch.bfloat16, enabled=half):
                return model(x, t, text, references=references)

        return run

    functions = {"as_it_is": step(), "bf16": step(half=True)}
    functions["channels_last_input"] = step(x=both.to(memory_format=torch.channels_last))
    if compiled:
        functions |= {"compile": step(torch.compile(pair)), "compile_bf16": step(torch.compile(pair), half=True)}
    seconds = timed(functions, device)
    if device == "cuda":
        pair.to(memory_format=torch.channels_last)  # the weights too, from here on
        functions = {"channels_last": step(), "channels_last_bf16": step(half=True)}
        seconds |= timed(functions, device)
    return {name: round(s["least"] / seconds["as_it_is"]["least"], 3) for name, s in seconds.items()}


def matrix_rate(device, dtype, side=8192):
    """The card's measured rate of one large matrix product, in GFLOP/s."""
    a = torch.randn(side, side, device=device, dtype=dtype)
    least = timed({"matmul": lambda: a @ a}, device)["matmul"]["least"]
    return round(2 * side**3 / least / 1e9)


if __name__ == "__main__":
    words = [w for w in sys.argv[1:] if not w.startswith("-")]
    main(*(words or ["small"]), compiled="--compile" in sys.argv)
