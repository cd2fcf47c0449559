"""Why a pass of 8 pairs is, or is not, faster than 8 passes: arithmetic per second by batch; and what looking costs.

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
from dhdiff_ray.serving.questions import PairQuery
from dhdiff_ray.serving.sampler import SamplerCore

BATCHES = (1, 8, 16)
PIXELS = (16, 40, 64)
"""Windows in pixels; ``tiny`` works on 40."""
ROUNDS = 7


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    core = SamplerCore(Config.model_validate_json(sys.stdin.read()))
    pipeline = core.load("mesh")
    figures = {"matrix_gflop_per_second": round(_matrix_rate(), 1), "looking": _looking(core)}
    for pixels in PIXELS:
        figures[f"{pixels}_pixels"] = _by_batch(pipeline, pixels)
    ways = {"as it is": pipeline.unet}
    ways["channels last"] = _channels_last(pipeline)
    figures["ways_at_40_pixels"] = {name: _times(pipeline, unet, 40) for name, unet in ways.items()}
    torch.set_num_threads(2)
    figures["ways_at_40_pixels"]["two threads"] = _times(pipeline, pipeline.unet, 40)
    print(json.dumps(figures))


def _looking(core, rounds=3):
    """What previews and score maps of all pairs add to a pass of 25 steps; timed alternately."""
    kinds = {"nothing": {}, "previews": {"previews": True}, "score_maps": {"score_maps": True}}
    taken, seen = {kind: [] for kind in kinds}, []
    for _ in range(rounds):
        for kind, more in kinds.items():
            query = PairQuery(category="mesh", defect="bent", n=core.config.serve.max_batch_size, **more)
            orders, looks = core.orders(query), []
            taken[kind].append(_timed(lambda o=orders, k=looks: core.draw(o, lambda *what: k.append(what[2]))))
            seen += [sum(look is not None for look in looks)] if kind == "previews" else []
    middle = {kind: sorted(times)[rounds // 2] for kind, times in taken.items()}
    told = {f"{kind}_adds": round(middle[kind] / middle["nothing"] - 1, 3) for kind in ("previews", "score_maps")}
    return {"seconds_of_a_pass": round(middle["nothing"], 3), **told, "previews_of_a_pair": seen}


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
    return {**found, **{name: value for name, value in times.items() if "against" in name}}


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
    return {**told, **{f"{batch}_against_1": round(batch * best[1] / best[batch], 2) for batch in BATCHES[1:]}}


def _channels_last(pipeline):
    import copy

    return copy.deepcopy(pipeline.unet).to(memory_format=torch.channels_last)


def _timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
