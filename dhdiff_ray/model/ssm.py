"""Semantic Score Map modification: Eq. 6 and Eq. 7, section III-D.

Replaces text cross-attention. Decided: S carries the backbone's 1 / sqrt(d); eta is a 3 x 3 convolution over h x w
with the domain as channel, shared by heads and tokens; it works after the softmax, so rows of the fused maps need not
sum to one. The map itself is needed, so no fused kernel can be used here.
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
    """Text attention whose score maps are aligned across the domains before they pick up the text's values."""

    def __init__(self, attention: Any, layer: int, eta_start: EtaStart = "mean") -> None:
        super().__init__()
        self.shared = attention
        self.layer = layer
        self.fusion = ScoreFusion(eta_start)

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, *, strands: Strands, **_: Any) -> Tensor:
        """(2b, n, c), (2b, t, k) -> (2b, n, c); a lone reference gets plain text attention."""
        if strands.recording:
            return attend(self.shared, hidden_states, encoder_hidden_states)
        s_image, s_annotation = split(score_map(self.shared, hidden_states, encoder_hidden_states))  # (b, a, n, t)
        size = strands.size(hidden_states.shape[1])
        s_control = None
        if strands.control_mask is not None and strands.defect_tokens is not None:
            s_control = control_score_map(strands.control_mask, strands.defect_tokens, size)  # (b, 1, n, t)
        fused = self.fusion(s_image, s_annotation, s_control, strands.control_present, size)  # (b, a, n, t) each
        strands.watch(
            self.layer, image=s_image, annotation=s_annotation, control=s_control, image_hat=fused[0],
            annotation_hat=fused[1],
        )  # fmt: skip
        s_hat = join(*fused)  # (2b, a, n, t)
        v_text = heads_of(self.shared, self.shared.to_v(encoder_hidden_states))  # (2b, a, t, c / a)
        return project_out(self.shared, s_hat @ v_text)  # (2b, n, c)


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
    m = F.adaptive_avg_pool2d(control_mask, size).flatten(2).transpose(1, 2)  # (b, n, 1)
    on = defect_tokens[:, None, :].to(m.dtype)  # (b, 1, t)
    count = on.sum(-1, keepdim=True)  # (b, 1, 1)
    m = m * (count > 0)
    s_control = m * on / count.clamp(min=1) + (1 - m) * (1 - on) / (on.shape[-1] - count).clamp(min=1)  # (b, n, t)
    return s_control[:, None]  # (b, 1, n, t)


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
    ) -> tuple[Tensor, Tensor]:
        """Maps (b, a, n, t); control (b, 1, n, t) with ``present`` (b,) -> fused image and annotation maps."""
        b, a, n, t = s_image.shape
        if s_control is None:
            s_control, weight = torch.zeros_like(s_image), 0.0
        else:
            weight = 1.0 if present is None else present.to(s_image.dtype)[:, None, None, None]  # (b, 1, 1, 1)
            s_control = (s_control * weight).expand_as(s_image)  # (b, a, n, t)
        mean = (s_image + s_annotation + s_control) / (2 + weight)  # (b, a, n, t)
        maps = torch.stack([s_image, s_annotation, s_control])  # (3, b, a, n, t)
        pictures = maps.permute(1, 2, 4, 0, 3).reshape(b * a * t, 3, *size)  # one h x w picture per head and token
        delta = self.eta(pictures).reshape(b, a, t, 2, n).permute(3, 0, 1, 4, 2)  # (2, b, a, n, t)
        return delta[0] + mean, delta[1] + mean
