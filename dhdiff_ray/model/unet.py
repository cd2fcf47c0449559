"""Which block of the backbone gets which module: the placement table, section IV-B and Table IX.

The backbone is any ``UNet2DConditionModel``. Its blocks with attention are counted from 0: in the encoder the down
blocks, fine to coarse, then the mid block; in the decoder the up blocks, coarse to fine. Stable Diffusion 1.x has four
and three. With DDA, merge and the domain embedding at their initial values and plain text attention the network
equals the backbone run on each domain; ``from_backbone`` starts from pretrained weights.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from dhdiff_ray.model.dda import DDAStart, DomainDecoupledAttention
from dhdiff_ray.model.domains import DomainMerge, Strands, join
from dhdiff_ray.model.entangled import EntangledAttention, SelfAttention, TextAttention
from dhdiff_ray.model.reference import EncoderCopy, ReferenceEncoder, run_encoder
from dhdiff_ray.model.ssm import EtaStart, SemanticScoreMap
from dhdiff_ray.model.texture import DefectLook, GaussianTexture


class DHDiffUNet(ModelMixin, ConfigMixin):
    """One backbone that carries two domains: predicts the noise of z = (z^I, z^A)."""

    config: Any
    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        backbone_config: dict[str, Any],
        dda_encoder: tuple[int, ...] = (0, 1, 2, 3),
        dda_decoder: tuple[int, ...] = (0, 2),
        ssm_encoder: tuple[int, ...] = (0, 1, 2, 3),
        ssm_decoder: tuple[int, ...] = (0, 2),
        plain_attention: Literal["entangled", "separate"] = "separate",
        merge: Literal["cross", "none"] = "cross",
        eta_start: EtaStart = "mean",
        reference_encoder: Literal["shared", "copy"] = "shared",
        zero_conv_gain: float = 1.0,
        dda_start: DDAStart = "random",
        texture_side: int = 0,
    ) -> None:
        super().__init__()
        self.backbone: Any = UNet2DConditionModel.from_config(backbone_config)
        self.reference_copy = EncoderCopy(self.backbone) if reference_encoder == "copy" else None
        encoder = _encoder_blocks(self.backbone)
        decoder = [b for b in self.backbone.up_blocks if hasattr(b, "attentions")]
        layer = 0
        for name, blocks, dda, ssm in (("encoder", encoder, dda_encoder, ssm_encoder),
                                       ("decoder", decoder, dda_decoder, ssm_decoder)):  # fmt: skip
            _check_placement(name, len(blocks), dda=dda, ssm=ssm)
            for index, block in enumerate(blocks):
                for transformer in _transformers(block):
                    plain = EntangledAttention if plain_attention == "entangled" else SelfAttention
                    transformer.attn1 = (
                        DomainDecoupledAttention(transformer.attn1, layer, zero_conv_gain, dda_start)
                        if index in dda
                        else plain(transformer.attn1, layer)
                    )
                    attn2 = transformer.attn2
                    transformer.attn2 = (
                        SemanticScoreMap(attn2, layer, eta_start) if index in ssm else TextAttention(attn2, layer)
                    )
                    layer += 1
        if self.reference_copy is not None:
            copied = (t for block in _encoder_blocks(self.reference_copy) for t in _transformers(block))
            for number, transformer in enumerate(copied):
                transformer.attn1 = SelfAttention(transformer.attn1, number)
                transformer.attn2 = TextAttention(transformer.attn2, number)
        config = self.backbone.config
        self.domain_embedding = nn.Parameter(torch.zeros(2, config.block_out_channels[0] * 4))
        widths = list(config.block_out_channels)
        encoder_widths = [widths[0], *widths, widths[-1]]  # after conv_in, each down block, the mid block
        decoder_widths = widths[::-1]
        crossed = merge == "cross"
        self.encoder_merges = nn.ModuleList(DomainMerge(c) for c in encoder_widths if crossed)
        self.decoder_merges = nn.ModuleList(DomainMerge(c) for c in decoder_widths if crossed)
        self.texture = GaussianTexture(config.in_channels, texture_side) if texture_side else None
        self.look = DefectLook(config.in_channels, config.sample_size) if texture_side else None

    @classmethod
    def from_backbone(cls, backbone: UNet2DConditionModel, **switches: Any) -> DHDiffUNet:
        """Start from a pretrained U-Net: every projection and its copies get the backbone's weights.

        Args:
            backbone: Stable Diffusion's, or any other with attention in the same places.
            switches: as for the class.
        """
        unet = cls(dict(backbone.config), **switches)
        plain = backbone.state_dict()
        state = unet.state_dict()
        names = {key: _plain_name(key) for key in state if _plain_name(key) in plain}
        if unused := sorted(set(plain) - set(names.values())):
            raise ValueError(f"the backbone has weights that this network has no place for, such as {unused[0]}")
        unet.load_state_dict({key: plain[name] for key, name in names.items()}, strict=False)
        return unet

    @property
    def device(self) -> torch.device:
        """Where its weights are, without a walk through all of them."""
        return self.domain_embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""
        return self.domain_embedding.dtype

    @property
    def new_parameters(self) -> list[str]:
        """Names of the parameters that the backbone does not have: zeta, eta, merge and domain embedding."""
        marks = ("zero_conv.", "fusion.", "_merges.", "domain_embedding")
        return [name for name, _ in self.named_parameters() if any(mark in name for mark in marks)]

    @property
    def uses_reference(self) -> bool:
        """Whether any block can take a reference."""
        return bool(self.config.dda_encoder or self.config.dda_decoder)

    def encode_reference(self, latents: Tensor, timestep: Tensor, text: Tensor) -> dict[int, Tensor]:
        """tau_theta: reference latents (b, c, h, w), timesteps (b,), text (b, t, k) -> F^R by attention layer."""
        embedding = self._time_embedding(timestep, latents) + self.domain_embedding[0]
        return ReferenceEncoder(self.reference_copy or self.backbone)(latents, embedding, text)

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor,
        *,
        references: dict[int, Tensor] | None = None,
        control_mask: Tensor | None = None,
        control_present: Tensor | None = None,
        defect_tokens: Tensor | None = None,
        watched: list[dict[str, Any]] | None = None,
    ) -> Tensor:
        """Predict the noise (or velocity) of both domains.

        Args:
            latents: noised (z^I, z^A), joined: (2b, c, h, w).
            timestep: (b,).
            text: text embedding (b, t, k).
            references: what :meth:`encode_reference` gave, or None.
            control_mask: S^O's mask (b, 1, h', w') in [0, 1], or None.
            control_present: which pairs have one (b,); None means all.
            defect_tokens: 1 on the tokens of the defect's words (b, t).
            watched: a list that gets the score maps of every text-attention layer; None for none.

        Returns:
            (2b, c, h, w), joined.
        """
        backbone = self.backbone
        strands = Strands(
            aspect=latents.shape[-2] / latents.shape[-1],
            references=references or {},
            control_mask=control_mask,
            control_present=control_present,
            defect_tokens=defect_tokens,
            watched=watched,
        )
        embedding = self._time_embedding(timestep, latents)  # (b, e)
        embedding = join(embedding + self.domain_embedding[0], embedding + self.domain_embedding[1])  # (2b, e)
        text = join(text, text)  # (2b, t, k)
        hidden = backbone.conv_in(latents)  # (2b, c0, h, w)
        hidden, skips = run_encoder(backbone, hidden, embedding, text, strands, self.encoder_merges)
        for index, block in enumerate(backbone.up_blocks):
            count = len(block.resnets)
            skips, used = skips[:-count], skips[-count:]
            extra: dict[str, Any] = {}
            if getattr(block, "has_cross_attention", False):
                extra = {"encoder_hidden_states": text, "cross_attention_kwargs": {"strands": strands}}
            size = skips[-1].shape[2:] if skips else None
            hidden = block(hidden, used, embedding, upsample_size=size, **extra)
            if self.decoder_merges:
                hidden = self.decoder_merges[index](hidden)
        return backbone.conv_out(backbone.conv_act(backbone.conv_norm_out(hidden)))  # (2b, c, h, w)

    def _time_embedding(self, timestep: Tensor, like: Tensor) -> Tensor:
        projected = self.backbone.time_proj(timestep).to(like.dtype)
        return self.backbone.time_embedding(projected)  # (b, e)


def _encoder_blocks(encoder: Any) -> list[Any]:
    """The blocks with attention of an encoder, fine to coarse; the mid block counts last."""
    return [b for b in encoder.down_blocks if hasattr(b, "attentions")] + [encoder.mid_block]


def _transformers(block: Any) -> list[Any]:
    return [t for a in block.attentions for t in a.transformer_blocks]


def _plain_name(key: str) -> str:
    """What a parameter is called in the backbone; unchanged for those it does not have."""
    key = re.sub(r"^(backbone|reference_copy)\.", "", key)
    return re.sub(r"\.(attn[12])\.(image\.project|annotation\.project|shared)\.", r".\1.", key)


def _check_placement(name: str, blocks: int, **placements: tuple[int, ...]) -> None:
    for module, indices in placements.items():
        wrong = [i for i in indices if not 0 <= i < blocks]
        if wrong:
            raise ValueError(
                f"model.{module}_{name} = {list(indices)}: the {name} has {blocks} blocks with attention, "
                f"so indices run from 0 to {blocks - 1}"
            )
