"""Peak memory of training at Stable Diffusion 1.5's size: batch 4 per device, gradient checkpointing, random weights.

Measured on the CPU as the process's own peak: weights, then gradients and activations of one forward and backward pass.
What fits on cards of 16 to 80 GB is derived from it and labelled so. ``python -m benchmarks.memory``; needs 16 GB. On a
GPU whole steps are measured instead, optimiser and average included, with and without checkpointing: the allocator's
peak and the seconds.
"""

import json
import resource
import time
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel

from dhdiff_ray.model.domains import join
from dhdiff_ray.model.loss import dh_loss
from dhdiff_ray.model.unet import DHDiffUNet

RESULT = Path(__file__).parent / "results" / "memory_sd15.json"
CONFIG = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
BATCH, LATENT = 4, 32
CARDS = (16, 24, 40, 80)
RESERVE = 1.5
"""GB for the context, fragments and the frozen text encoder and autoencoder, whose latents are cached."""


def peak():
    """Largest resident size so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def on_gpu():
    """Whole training steps on one GPU, by batch and with or without gradient checkpointing."""
    rows = training(CONFIG, "cuda", ((True, BATCH), (False, BATCH), (True, 32), (False, 32)))
    figures = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "precision": "bf16 (autocast)"}
    (RESULT.parent / "memory_sd15_cuda.json").write_text(json.dumps(figures | {"steps": rows}, indent=2) + "\n")


def training(config, device, cells, compiled=False, switches=None):
    """Seconds of whole training steps, optimiser and average included, and on a GPU the allocator's peak.

    ``cells`` are (gradient checkpointing, batch).
    """
    unet, on_gpu = DHDiffUNet(config, eta_start="identity", **(switches or {})).to(device), device == "cuda"
    if compiled:
        unet.compile()
    optimiser = torch.optim.AdamW(unet.parameters(), 1e-4, fused=True)
    average = EMAModel(unet.parameters(), decay=0.999, foreach=True)
    rows = []
    for checkpointing, batch in cells:
        unet.enable_gradient_checkpointing() if checkpointing else unet.disable_gradient_checkpointing()
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(4):
            start = time.perf_counter()
            loss = forward(unet, batch, device, config)
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            average.step(unet.parameters())
            if on_gpu:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        rows.append({"checkpointing": checkpointing, "batch": batch})
        if on_gpu:
            rows[-1]["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        rows[-1]["seconds_per_step"] = round(min(seconds[1:]), 3)
        print(rows[-1], flush=True)
    return rows


def forward(unet, batch, device, config=CONFIG):
    """Eq. 8's loss of random latents and text."""
    channels, width = config.get("in_channels", 4), config["cross_attention_dim"]
    image, annotation, reference = torch.randn(3, batch, channels, LATENT, LATENT, device=device)
    text, t = torch.randn(batch, 77, width, device=device), torch.tensor([500] * batch, device=device)
    with torch.autocast(device, torch.bfloat16):
        references = unet.encode_reference(reference, t, text)
        predicted = unet(join(image, annotation), t, text, references=references)
    return dh_loss(predicted, torch.randn(2 * batch, channels, LATENT, LATENT, device=device))[0]


def main():
    torch.manual_seed(0)
    if torch.cuda.is_available():
        on_gpu()
        return
    before = peak()
    unet = DHDiffUNet(CONFIG, eta_start="identity")
    unet.enable_gradient_checkpointing()
    parameters = sum(p.numel() for p in unet.parameters())
    weights = 4 * parameters / 1e9
    after_building = peak()
    forward(unet, BATCH, "cpu").backward()
    activations = max(0.0, peak() - before - 2 * weights)
    figures = {
        "parameters_million": round(parameters / 1e6, 1),
        "batch_per_device": BATCH,
        "measured_gb": {
            "weights": round(weights, 2),
            "peak_while_building": round(after_building - before, 2),
            "peak_of_forward_and_backward": round(peak() - before, 2),
            "activations_and_buffers": round(activations, 2),
        },
        "derived_gb_per_device": {f"zero_2_on_{n}": round(needed(weights, activations, n), 1) for n in (1, 2, 4, 8)},
        "derived_fits": {
            f"{card}_gb": [n for n in (1, 2, 4, 8) if needed(weights, activations, n) <= card] for card in CARDS
        },
        "derived_lora_gb_per_device": round(weights + activations + RESERVE, 1),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


def needed(weights, activations, devices):
    """GB on each of ``devices`` with ZeRO-2: whole weights, a share of gradients and two moments, the average once."""
    return weights + 3 * weights / devices + weights + activations + RESERVE


if __name__ == "__main__":
    main()
