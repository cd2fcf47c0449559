"""Low-rank adapters beside frozen weights (LoRA, arXiv 2106.09685), with everything new trained in full.

Not in the paper, which does not say what it trains; with a few hundred images a full fine-tuning can memorise them.
Decided: a layer of our own, two tensors and no module: a layer of peft's takes 24 KB beside its tensors, and a process
that serves many products holds it for each of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dhdiff_ray.model.unet import DHDiffUNet

PROJECTIONS = r".*\.(to_q|to_k|to_v|to_out\.0)"
"""Layers of a Stable Diffusion that get an adapter: projections of every attention layer, of each domain its own."""
EVERY = r"backbone\..*"
"""Layers of a foundation of ours that get one: all, since a small network has most of its weights in convolutions."""
TENSORS = ("lora_A", "lora_B")


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


def has_adapters(unet: nn.Module) -> bool:
    """Whether any of its layers has one."""
    return any(isinstance(module, LowRank) for module in unet.modules())


def without_adapters(unet: DHDiffUNet) -> DHDiffUNet:
    """The network with its adapters added to the weights, a copy; the same one if it has none."""
    if not has_adapters(unet):
        return unet
    merged = deepcopy(unet)
    for parent in list(merged.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LowRank):
                setattr(parent, name, child.merged())
    merged.requires_grad_(True)
    return merged
