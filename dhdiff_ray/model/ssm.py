"""Semantic Score Map modification: Eq. 6 and Eq. 7, section III-D.

Replaces text cross-attention. Decided: S carries the backbone's 1 / sqrt(d); eta is a 3 x 3 convolution over h x w
with the domain as channel, shared by heads and tokens; it works after the softmax, so rows of the fused maps need not
sum to one.
Shapes: b pairs, a heads, n = h * w tokens, t text tokens, c channels.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhdiff_ray.model.domains import Strands, join, split, zero_init
from dhdiff_ray.model.entangled import attend, heads_of, project_out

EtaStart = Literal["mean", "identity"]


class SemanticScoreMap(nn.Module):
    """Text attention whose score maps are aligned across the domains: what they pick up of the text's values is fused.

    What it computes is linear in the maps (Eq. 7) and the same for all tokens, so it may be applied after the maps have
    picked up the values: eta(S) V + mean(S) V = eta(S V) + mean(S V). S V is plain text attention, for which there are
    fused kernels, and S^O V needs no map at all. The maps themselves are made only where somebody looks.
    """

    def __init__(self, attention: Any, layer: int, eta_start: EtaStart = "mean") -> None:
        super().__init__()
        self.shared = attention
        self.layer = layer
        self.fusion = ScoreFusion(eta_start)

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, *, strands: Strands, **_: Any) -> Tensor:
        """(2b, n, c), (2b, t, k) -> (2b, n, c); a lone reference gets plain text attention."""
        if strands.recording:
            return attend(self.shared, hidden_states, encoder_hidden_states)
        text, _same = split(encoder_hidden_states)  # (b, t, k); both domains have one text
        size = strands.size(hidden_states.shape[1])
        control, words = strands.control_mask, strands.defect_tokens
        if strands.watched is not None:
            s_control = control_score_map(control, words, size) if control is not None and words is not None else None
            self._watch(hidden_states, encoder_hidden_states, s_control, strands, size)
        q = heads_of(self.shared, self.shared.to_q(hidden_states))  # (2b, a, n, d)
        k = heads_of(self.shared, self.shared.to_k(text))  # (b, a, t, d)
        values = self.shared.to_v(text)  # (b, t, c), V^T
        v = heads_of(self.shared, values)  # (b, a, t, d)
        taken = F.scaled_dot_product_attention(q, join(k, k), join(v, v))  # S V (2b, a, n, d)
        o_image, o_annotation = split(taken.transpose(1, 2).flatten(2)[:, None])  # (b, 1, n, c) each
        o_control = None
        if control is not None and words is not None:
            on, off, m = _control_rows(control, words, size)  # (b, 1, t), (b, 1, t), (b, n, 1)
            o_control = (m * (on @ values) + (1 - m) * (off @ values))[:, None]  # S^O V (b, 1, n, c)
        ones = values.sum(1)[:, None, :, None]  # 1 V (b, 1, c, 1)
        fused = self.fusion(o_image, o_annotation, o_control, strands.control_present, size, ones)
        return project_out(self.shared, join(*fused))  # (2b, n, c)

    def _watch(
        self, hidden_states: Tensor, text: Tensor, s_control: Tensor | None, strands: Strands, size: tuple[int, int]
    ) -> None:
        s_image, s_annotation = split(score_map(self.shared, hidden_states, text))  # (b, a, n, t)
        image_hat, annotation_hat = self.fusion(s_image, s_annotation, s_control, strands.control_present, size)
        maps = {"image": s_image, "annotation": s_annotation, "control": s_control}
        strands.watch(self.layer, **maps, image_hat=image_hat, annotation_hat=annotation_hat)


def score_map(attention: Any, features: Tensor, text: Tensor) -> Tensor:
    """Eq. 6: S = softmax(Q K_text^T / sqrt(d)); (b, n, c), (b, t, k) -> (b, a, n, t), rows sum to one."""
    q = heads_of(attention, attention.to_q(features))  # (b, a, n, d)
    k = heads_of(attention, attention.to_k(text))  # (b, a, t, d)
    return (q @ k.transpose(-1, -2) * attention.scale).softmax(dim=-1)  # (b, a, n, t)


def control_score_map(control_mask: Tensor, defect_tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """S^O: the control mask m on the defect's tokens, 1 - m on the others, each in equal parts.

    (b, 1, h', w') in [0, 1] and (b, t) of 0 and 1 -> (b, 1, n, t), rows sum to one. Where a prompt has no defect
    word, the other tokens take it all.
    """
    on, off, m = _control_rows(control_mask, defect_tokens, size)
    return (m * on + (1 - m) * off)[:, None]  # (b, 1, n, t)


def _control_rows(control_mask: Tensor, defect_tokens: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """The two rows that S^O mixes, (b, 1, t) each, and how much of the first (b, n, 1)."""
    m = F.adaptive_avg_pool2d(control_mask, size).flatten(2).transpose(1, 2)  # (b, n, 1)
    words = defect_tokens[:, None, :].to(m.dtype)  # (b, 1, t)
    count = words.sum(-1, keepdim=True)  # (b, 1, 1)
    on = words / count.clamp(min=1)
    off = (1 - words) / (words.shape[-1] - count).clamp(min=1)
    return on, off, m * (count > 0)


class ScoreFusion(nn.Module):
    """Eq. 7: (S^I, S^A) <- eta(S^I, S^A, S^O) + mean(S^I, S^A, S^O); an absent S^O is left out of the mean."""

    def __init__(self, eta_start: EtaStart = "mean") -> None:
        super().__init__()
        self.eta = nn.Conv2d(3, 2, 3, padding=1)
        zero_init(self.eta)
        if eta_start == "identity":
            with torch.no_grad():
                self.eta.weight[:, :2, 1, 1] = torch.tensor([[0.5, -0.5], [-0.5, 0.5]])

    def forward(
        self,
        s_image: Tensor,
        s_annotation: Tensor,
        s_control: Tensor | None,
        present: Tensor | None,
        size: tuple[int, int],
        ones: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Maps (b, a, n, t) -> fused image and annotation maps.

        Args:
            s_image: of the image.
            s_annotation: of the annotation.
            s_control: (b, 1, n, t), or None.
            present: which pairs have a control (b,); None means all.
            size: h and w, n = h * w.
            ones: what a map of ones is, for eta's bias; None where the maps are maps, (b, 1, t, 1) where they have
                picked up values already.
        """
        b, a, n, t = s_image.shape
        maps, weight = [s_image, s_annotation], 0.0
        if s_control is not None:
            weight = 1.0 if present is None else present.to(s_image.dtype)[:, None, None, None]  # (b, 1, 1, 1)
            maps.append((s_control * weight).expand_as(s_image))  # (b, a, n, t)
        mean = sum(maps[1:], maps[0]) / (2 + weight)  # (b, a, n, t)
        channels = len(maps)
        # One h x w picture per head and token, the domain as channel.
        pictures = torch.stack(maps).permute(1, 2, 4, 0, 3).reshape(b * a * t, channels, *size)
        delta = F.conv2d(pictures, self.eta.weight[:, :channels], padding=1).reshape(b, a, t, 2, n)
        bias: Any = self.eta.bias
        bias = bias[:, None] if ones is None else bias[:, None] * ones[..., None]  # (2, 1) or (b, 1, t, 2, 1)
        delta = (delta + bias).permute(3, 0, 1, 4, 2)  # (2, b, a, n, t)
        return delta[0] + mean, delta[1] + mean
