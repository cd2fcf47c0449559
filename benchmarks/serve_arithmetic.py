"""Why a pass of 8 pairs is, or is not, faster than 8 passes: arithmetic per second of the network by batch.

A process of its own with one thread; reads a configuration and prints figures. Both sizes are timed alternately.
"""

import json
import sys
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from dhdiff_ray.config import Config
from dhdiff_ray.model.domains import join
from dhdiff_ray.model.latents import latent_shape
from dhdiff_ray.on_ray.sampler import SamplerCore

BATCHES = (1, 8)
PIXELS = (16, 40, 64)
"""Windows in pixels; ``tiny`` works on 40."""
ROUNDS = 7


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    pipeline = SamplerCore(Config.model_validate_json(sys.stdin.read())).load("mesh")
    figures = {"matrix_gflop_per_second": round(_matrix_rate(), 1)}
    for pixels in PIXELS:
        figures[f"{pixels}_pixels"] = _by_batch(pipeline, pixels)
    ways = {"as it is": pipeline.unet}
    ways["channels last"] = _channels_last(pipeline)
    figures["ways_at_40_pixels"] = {name: _times(pipeline, unet, 40) for name, unet in ways.items()}
    torch.set_num_threads(2)
    figures["ways_at_40_pixels"]["two threads"] = _times(pipeline, pipeline.unet, 40)
    print(json.dumps(figures))


def _matrix_rate() -> float:
    """What one thread reaches in a product of large matrices."""
    a, b = torch.randn(2, 1024, 1024)
    a @ b
    return 2 * 1024**3 / min(_timed(lambda: a @ b) for _ in range(5)) / 1e9


def _step(pipeline, unet, pixels, batch):
    channels, factor = latent_shape(pipeline.vae)
    latent = torch.randn(batch, channels, pixels // factor, pixels // factor)
    t = torch.full((batch,), 500)
    text, marks = pipeline.encode_prompt(["a photo of a mesh with bent"] * batch, ["bent"] * batch, False)
    references = unet.encode_reference(latent, t, text)
    control = torch.ones(batch, 1, pixels, pixels)
    both = join(latent, latent)
    return lambda: unet(both, t, text, references=references, control_mask=control, defect_tokens=marks)


def _by_batch(pipeline, pixels):
    found = {}
    times = _times(pipeline, pipeline.unet, pixels)
    for batch in BATCHES:
        with FlopCounterMode(display=False) as counter:
            _step(pipeline, pipeline.unet, pixels, batch)()
        flops, seconds = counter.get_total_flops(), times[f"batch_{batch}_ms"] / 1e3
        found[f"batch_{batch}"] = {
            "mflop_per_pair": round(flops / batch / 1e6, 1),
            "ms": times[f"batch_{batch}_ms"],
            "gflop_per_second": round(flops / seconds / 1e9, 1),
        }
    return {**found, "8_against_1": times["8_against_1"]}


def _times(pipeline, unet, pixels):
    steps = {batch: _step(pipeline, unet, pixels, batch) for batch in BATCHES}
    taken = {batch: [] for batch in BATCHES}
    for step in steps.values():
        step()
    for _ in range(ROUNDS):
        for batch, step in steps.items():
            taken[batch].append(_timed(step))
    best = {batch: sorted(times)[ROUNDS // 2] for batch, times in taken.items()}
    told = {f"batch_{batch}_ms": round(best[batch] * 1e3, 2) for batch in BATCHES}
    return {**told, "8_against_1": round(8 * best[1] / best[8], 2)}


def _channels_last(pipeline):
    import copy

    return copy.deepcopy(pipeline.unet).to(memory_format=torch.channels_last)


def _timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
