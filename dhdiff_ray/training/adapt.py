"""Low-rank adapters beside frozen weights (LoRA, arXiv 2106.09685), with everything new trained in full.

Not in the paper, which does not say what it trains; with a few hundred images a full fine-tuning can memorise them.
Decided: a layer of our own, two tensors and no module: a layer of peft's takes 24 KB beside its tensors, and a process
that serves many products holds it for each of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from dhdiff_ray.model.pipeline import DHDiffPipeline
from dhdiff_ray.model.unet import DHDiffUNet
from dhdiff_ray.run.foundation import ADAPTERS, Foundation
from dhdiff_ray.training.foundation import whole_pipeline

PROJECTIONS = r".*\.(to_q|to_k|to_v|to_out\.0)"
"""Layers of a Stable Diffusion that get an adapter: projections of every attention layer, of each domain its own."""
EVERY = r"backbone\..*"
"""Layers of a foundation of ours that get one: all, since a small network has most of its weights in convolutions."""
TENSORS = ("lora_A", "lora_B")
CALLED = "adapters.json"
"""How the pipeline is called where a caller does not say otherwise."""
TOKENIZER = "tokenizer"
PARTS = ("unet", "text_encoder")
"""What of a product can differ from its foundation in its tensors."""


class LowRank(nn.Module):
    """A frozen linear layer or convolution W with a change B A of low rank beside it, which is zero."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int) -> None:
        super().__init__()
        self.base_layer = layer
        like = layer.weight  # (out, in) or (out, in, k, k)
        self.lora_A = nn.Parameter(like.new_zeros(rank, *like.shape[1:]))
        self.lora_B = nn.Parameter(like.new_zeros(like.shape[0], rank, *[1] * (like.ndim - 2)))

    def forward(self, x: Tensor) -> Tensor:
        """W x + B A x."""
        base = self.base_layer
        if isinstance(base, nn.Linear):
            return base(x) + functional.linear(functional.linear(x, self.lora_A), self.lora_B)
        low = functional.conv2d(x, self.lora_A, None, base.stride, base.padding)
        return base(x) + functional.conv2d(low, self.lora_B)

    def merged(self) -> nn.Module:
        """The layer with the change added to its weights."""
        change = self.lora_B.flatten(1) @ self.lora_A.flatten(1)
        with torch.no_grad():
            self.base_layer.weight += change.view_as(self.base_layer.weight)
        return self.base_layer


def train_adapters(unet: DHDiffUNet, rank: int, layers: str) -> None:
    """Freeze the weights, add adapters that start without effect, and leave what is new to be trained.

    Args:
        unet: changed in place.
        rank: of each adapter.
        layers: a pattern for the names of the linear layers and convolutions that get one; what is new gets none.
    """
    unet.requires_grad_(False)
    new = {name.rpartition(".")[0] for name in unet.new_parameters}
    named = {name for name, layer in unet.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    add_adapters(unet, {name: rank for name in sorted(named - new) if re.fullmatch(layers, name)})
    for name, parameter in unet.named_parameters():
        if name.endswith("lora_A"):
            nn.init.kaiming_uniform_(parameter, a=5**0.5)
        parameter.requires_grad_(name.rpartition(".")[0] in new or name.endswith(TENSORS))


def add_adapters(unet: DHDiffUNet, ranks: Mapping[str, int]) -> None:
    """Put an adapter of that rank beside each layer that is named."""
    for name, rank in ranks.items():
        parent, _, own = name.rpartition(".")
        layer: Any = unet.get_submodule(name)
        setattr(unet.get_submodule(parent), own, LowRank(layer, rank))


def without_adapters(unet: DHDiffUNet) -> DHDiffUNet:
    """The network with its adapters added to the weights, a copy; the same one if it has none."""
    if not any(isinstance(module, LowRank) for module in unet.modules()):
        return unet
    merged = deepcopy(unet)
    for parent in list(merged.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LowRank):
                setattr(parent, name, child.merged())
    merged.requires_grad_(True)
    return merged


def write_adapters(pipeline: DHDiffPipeline, foundation: Foundation, target: Path) -> None:
    """Write what of a pipeline is not its foundation's to the last bit.

    Args:
        pipeline: of a network with adapters.
        foundation: what it was begun from.
        target: a folder that is not there yet.
    """
    known = whole_pipeline(foundation)
    own: dict[str, Tensor] = {}
    for part in PARTS:
        theirs = getattr(known, part).state_dict()
        for name, value in getattr(pipeline, part).state_dict().items():
            value = value.detach().cpu()
            old = theirs.get(name.replace(".base_layer.", "."))
            if old is None or old.shape != value.shape or not old.equal(value):
                own[f"{part}.{name}"] = value.contiguous()
    target.mkdir(parents=True)
    save_file(own, target / ADAPTERS, {"foundation_sha256": foundation.about["weights_sha256"]})
    (target / CALLED).write_text(json.dumps(pipeline.config["defaults"], indent=2) + "\n")
    pipeline.tokenizer.save_pretrained(target / TOKENIZER)
