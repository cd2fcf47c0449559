"""The network's knobs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dhdiff_ray.config.base import First, Frozen, Research


class ModelConfig(Frozen):
    """The network (section III); what is fixed at construction."""

    backbone: First[str] = ""
    """What to start from: a foundation of ours (``dhdiff-ray/tiny`` comes with the package; ``RUN/MODEL`` of the same
    storage, a folder or a URI), or the folder or hub id of a Stable Diffusion 1.x; empty trains from scratch."""
    autoencoder: Literal["haar", "taef2"] = "haar"
    """The autoencoder when training from scratch: a fixed Haar transform, or TAEF2."""
    autoencoder_weights: str = ""
    """Folder with TAEF2's two files: taef2_encoder.pth and taef2_decoder.pth."""
    haar_levels: int = Field(default=1, ge=0, le=3)
    """Levels of the fixed Haar transform, the autoencoder of the ``tiny`` preset."""
    channels: tuple[int, ...] = (32, 48, 64)
    """Channels of the U-Net blocks, from fine to coarse."""
    attention_blocks: tuple[bool, ...] = (False, True, True)
    """Which of these blocks attend to text."""
    layers_per_block: int = Field(default=1, ge=1)
    """ResNet layers in each block."""
    heads: int = Field(default=2, ge=1)
    """Attention heads."""
    text_width: int = Field(default=64, ge=8)
    """Width of the text encoder trained from scratch."""
    text_layers: int = Field(default=1, ge=1)
    """Layers of the text encoder trained from scratch."""
    dda: Research[bool] = True
    """Domain-decoupled attention (Eq. 4-5) where the placement says so; false leaves it out everywhere (Table VIII)."""
    ssm: Research[bool] = True
    """Semantic score maps (Eq. 6-7) where the placement says so; false leaves them out everywhere (Table VIII)."""
    dda_encoder: Research[tuple[int, ...]] = (0, 1, 2)
    """Encoder blocks with attention (the mid block counts last) that get domain-decoupled attention; paper: all."""
    dda_decoder: Research[tuple[int, ...]] = (0,)
    """Decoder blocks with attention that get domain-decoupled attention; paper: every other."""
    ssm_encoder: Research[tuple[int, ...]] = (0, 1, 2)
    """Encoder blocks with attention whose text attention is a semantic score map; paper: all."""
    ssm_decoder: Research[tuple[int, ...]] = (0,)
    """Decoder blocks with attention whose text attention is a semantic score map; paper: every other."""
    plain_attention: Research[Literal["entangled", "separate"]] = "separate"
    """Self-attention of the blocks without DDA: tokens of both domains together (Eq. 1-3), or each alone."""
    merge: Research[Literal["cross", "none"]] = "cross"
    """The third stage: a zero-initialised position-wise convolution between the domains after each block."""
    eta_start: Research[Literal["mean", "identity"]] = "mean"
    """Where Eq. 7 starts: both domains with the mean map, or each with its own."""
    reference_encoder: Research[Literal["shared", "copy"]] = "shared"
    """tau of Eq. 4: the network's own encoder (Siamese), or a trainable copy of it."""
    zero_conv_gain: Research[float] = Field(default=1.0, gt=0)
    """Makes zeta of Eq. 4 learn so many times faster, so that the reference is followed sooner."""
    dda_start: Research[Literal["random", "own"]] = "random"
    """Where Eq. 4's image attention starts: at random, or with each position looking at itself, so that the reference
    is followed."""
