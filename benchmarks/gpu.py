"""What a GPU makes of this in ten minutes: whole pairs per second, training steps, and shares of its matrix rate.

    python -m benchmarks.gpu                    Stable Diffusion 1.5's size, 256 x 256
    python -m benchmarks.gpu --size taef2       the size of that preset
    python -m benchmarks.gpu --size tiny        a small network: tries the script, also on a CPU

Random weights, TAEF2's autoencoder. A pair is the whole call of a published pipeline: prompt, reference encoded once,
every step, decode, bytes on the host; from noise, and from a placed reference at strengths of .15 to .6; by batch and
precision, compiled and with channels-last. Beside it, as peers do, a plain U-Net, one image at a time, in fp32. What no
longer fits into the time or the memory is told as such.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel

from benchmarks.memory import training
from benchmarks.pair_cost import SD15, SMALL, flops, matrix_rate
from dhdiff_ray.model.latents import decode
from dhdiff_ray.model.pipeline import DHDiffPipeline
from dhdiff_ray.model.taef2 import TinyAutoencoder
from dhdiff_ray.model.text import small_text_encoder, word_tokenizer
from dhdiff_ray.model.unet import DHDiffUNet

LATENT = {"in_channels": 32, "out_channels": 32, "sample_size": 32}
"""TAEF2's of 256 pixels."""
TINY = SMALL | {"block_out_channels": (32, 32, 32, 32), "norm_num_groups": 8, "cross_attention_dim": 32}
TAEF2 = {
    "block_out_channels": (96, 128, 192),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 64,
    "attention_head_dim": 4,
    "sample_size": 32,
}
PLACES = {"dda_encoder": (0, 1, 2), "dda_decoder": (0,), "ssm_encoder": (0, 1, 2), "ssm_decoder": (0,)}
SIZES = {
    "sd15": (SD15, {}, (8, 32, 64, 128), 12),
    "taef2": (TAEF2, PLACES, (8, 32, 128), 2),
    "tiny": (TINY, {}, (1, 2), 2),
}
"""Network, what a pair's has beside it, batches, layers of the text encoder."""
PROMPT = "a photo of a capsule with crack"
GOALS = {"pairs_per_second": 50, "of_matrix_rate_in_training": 0.45}
STRENGTHS = (0.15, 0.6)
"""Of the presets for photographs."""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=list(SIZES), default="sd15")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--batches", type=int, nargs="+")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--result")
    asked = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size, switches, batches, layers = SIZES[asked.size]
    bench = Bench(size | LATENT, switches, layers, asked.steps, device, time.monotonic() + 60 * asked.minutes)
    batches = asked.batches or batches
    figures = {
        "size": asked.size,
        "steps": asked.steps,
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "goals": GOALS,
        "matrix_gflop_per_second": bench.rates,
        "gflop": {name: round(value / 1e9, 1) for name, value in bench.counted.items()},
        "one_image_at_a_time": bench.peers(),
        "training": bench.training(),
        "pairs": bench.pairs(batches, compiled=not asked.no_compile),
        "training_compiled": [] if asked.no_compile else bench.training(compiled=True),
    }
    place = Path(asked.result or Path(__file__).parent / "results" / f"gpu_{asked.size}_{device}.json")
    place.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"written: {place}")


class Bench:
    """One network, and a time by which the last cell is begun."""

    def __init__(self, config, switches, layers, steps, device, until):
        self.config, self.switches, self.steps, self.device, self.until = config, switches, steps, device, until
        self.calls = 0
        torch.manual_seed(0)
        side = 8192 if device == "cuda" else 1024
        self.rates = {
            name: matrix_rate(device, dtype, side)
            for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
        }
        self.counted = flops(config, switches)
        tokenizer = word_tokenizer(PROMPT.split(), 77)
        self.pipeline = DHDiffPipeline(
            unet=DHDiffUNet(config, **switches),
            vae=TinyAutoencoder(),
            text_encoder=small_text_encoder(tokenizer, config["cross_attention_dim"], layers),
            tokenizer=tokenizer,
            scheduler=DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", timestep_spacing="trailing"),
        ).to(device)
        self.pipeline.set_progress_bar_config(disable=True)

    def pairs(self, batches, compiled):
        """A row per way and batch; channels-last comes last, since it changes the weights."""
        starts, some = ("noise", "reference"), batches[len(batches) // 2]
        cells = [("bf16", "bf16", batch, start) for batch in batches for start in starts]
        cells += [("fp32", "fp32", some, start) for start in starts]
        rows = [self.drawn(*cell) for cell in cells]
        self.pipeline.unet.to(memory_format=torch.channels_last)
        rows.append(self.drawn("bf16, channels-last", "bf16", some, "noise"))
        self.pipeline.unet.to(memory_format=torch.contiguous_format)
        if compiled:
            self.pipeline.speed_up("bf16", True)
            compiled_of = [batch for batch in batches if batch > 8] or batches
            rows += [self.drawn("bf16, compiled", "bf16", batch, start) for batch in compiled_of for start in starts]
        return rows

    def drawn(self, way, precision, batch, start):
        """One cell: a call of two steps to warm up, then one whole call."""
        row = {"way": way, "start": start, "batch": batch}
        if time.monotonic() > self.until:
            return told(row | {"left_out": "no time"})
        self.pipeline.speed_up(precision)
        try:
            warm_up = self.call(batch, 4, start)
            self.calls = 0
            seconds = self.call(batch, self.steps, start)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return told(row | {"left_out": "no memory"})
        # one reference for all steps: what it adds is counted once
        work = self.counted["pair_with_cached_reference"] * self.calls
        work += self.counted["pair"] - self.counted["pair_with_cached_reference"]
        share = work * batch / seconds / 1e9 / self.rates[precision]
        row |= {"seconds": round(seconds, 3), "pairs_per_second": round(batch / seconds, 3)}
        return told(
            row | {"calls": self.calls, "of_matrix_rate": round(share, 3), "warm_up_seconds": round(warm_up, 1)}
        )

    def call(self, batch, steps, start):
        """Seconds of one call of the pipeline for a batch."""
        pictures = torch.rand(3, batch, 3, 256, 256) * 2 - 1
        mask = torch.zeros(batch, 1, 256, 256)
        mask[..., 64:128, 64:128] = 1
        placed = {"placed": pictures[2], "placed_mask": mask} if start == "reference" else {}
        begun = self.now()
        made = self.pipeline(
            [PROMPT] * batch,
            defect="crack",
            base=pictures[0],
            reference=pictures[1],
            raw_mask=mask,
            control_mask=mask,
            seed=0,
            num_inference_steps=steps,
            guidance_scale=1.0,
            start=start,
            strength=torch.linspace(*STRENGTHS, batch).tolist() if placed else 1.0,
            **placed,
            background="clean",
            output_type="pt",
            callback_on_step_end=self.counted_step,
        )
        (made.images * 255).round().byte().cpu()
        return self.now() - begun

    def counted_step(self, *_):
        self.calls += 1

    @torch.no_grad()
    def peers(self):
        """Images per second of a plain U-Net of this size, one at a time, in fp32."""
        plain = UNet2DConditionModel(**self.config).to(self.device).eval()
        text = torch.randn(1, 77, self.config["cross_attention_dim"], device=self.device)
        seconds = 0.0
        for steps in (2, self.steps):
            self.pipeline.scheduler.set_timesteps(steps, device=self.device)
            start, z = self.now(), torch.randn(1, 32, 32, 32, device=self.device)
            for t in self.pipeline.scheduler.timesteps:
                z = self.pipeline.scheduler.step(plain(z, t, text).sample, t, z).prev_sample
            (decode(self.pipeline.vae, z) * 255).byte().cpu()
            seconds = self.now() - start
        return told({"images_per_second": round(1 / seconds, 3)})

    def training(self, compiled=False):
        """Whole training steps in bf16, their memory, and the share of useful work: three forward passes."""
        if compiled and time.monotonic() > self.until:
            return []
        cells = ((True, 32), (False, 32), (False, 64)) if self.device == "cuda" else ((False, 2),)
        rows = []
        for row in training(self.config, self.device, cells[-1:] if compiled else cells, compiled, self.switches):
            work = 3 * self.counted["pair"] * row["batch"] / row["seconds_per_step"] / 1e9
            rows.append(told(row | {"of_matrix_rate": round(work / self.rates["bf16"], 3)}))
        return rows

    def now(self):
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def told(row):
    print(json.dumps(row), flush=True)
    return row


if __name__ == "__main__":
    main()
