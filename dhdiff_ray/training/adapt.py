"""Low-rank adapters on a pretrained backbone (LoRA, through peft), with everything new trained in full.

Not in the paper, which does not say what it trains; with a few hundred images a full fine-tuning can memorise them.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from dhdiff_ray.model.unet import DHDiffUNet

TARGETS = r".*\.(to_q|to_k|to_v|to_out\.0)$"
"""Projections that get an adapter: those of every attention layer, of each domain its own."""


def add_adapters(unet: DHDiffUNet, rank: int) -> None:
    """Freeze the backbone's weights and add adapters that start without effect."""
    from peft import LoraConfig, inject_adapter_in_model

    unet.requires_grad_(False)
    new = set(unet.new_parameters)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS), unet)
    for name, parameter in unet.named_parameters():
        if name in new:
            parameter.requires_grad_(True)


def without_adapters(unet: DHDiffUNet) -> DHDiffUNet:
    """The network with its adapters folded into the weights, as it is published; the same one if it has none."""
    from peft.tuners.lora import LoraLayer

    if not any(isinstance(module, LoraLayer) for module in unet.modules()):
        return unet
    merged = deepcopy(unet)
    for parent in list(merged.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoraLayer):
                layer: Any = child
                layer.merge()
                setattr(parent, name, layer.get_base_layer())
    merged.requires_grad_(True)
    return merged
