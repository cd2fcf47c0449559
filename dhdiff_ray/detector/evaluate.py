"""What a localiser sees: probability maps, the paper's detection figures, and its use as an oracle (section IV-D).

The image score is DRAEM's: the map averaged over a 21 x 21 window (at 256 pixels), then its maximum. The model is
never selected on what is evaluated here, unless ``detect.select = test`` says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from dhdiff_ray.metrics.detection import agreement, localisation
from dhdiff_ray.metrics.pro import Region

WINDOW = 21
"""Side of DRAEM's averaging window at 256 x 256 pixels."""


def predict(model: nn.Module, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """Probability of a defect for each pixel.

    Args:
        model: a trained localiser; it is left in evaluation mode.
        images: uint8 (n, h, w, 3).
        batch_size: images per forward pass.

    Returns:
        float32 (n, h, w) in [0, 1].
    """
    model.eval()
    levels = getattr(model, "levels", 0)
    if any(side % 2**levels for side in images.shape[1:3]):
        raise ValueError(
            f"the localiser needs images (n, h, w, 3) whose sides divide by {2**levels}, got {images.shape}; "
            "set data.resolution to a multiple of it, or detect.network=small"
        )
    device = next(model.parameters()).device
    maps = np.empty(images.shape[:3], dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            logits = model(as_input(images[start : start + batch_size], device))
            maps[start : start + batch_size] = torch.sigmoid(logits)[:, 0].float().cpu().numpy()
    return maps


def evaluate(model: nn.Module, images: np.ndarray, masks: np.ndarray) -> dict[str, float | int | None]:
    """The detection figures over test images (n, h, w, 3) with masks (n, h, w); all-zero masks are normal images."""
    return figures(predict(model, images), masks)


def figures(
    maps: np.ndarray, masks: np.ndarray, strict_masks: np.ndarray | None = None, regions: Sequence[Region] = ()
) -> dict[str, float | int | None]:
    """The detection figures of maps (n, h, w) against masks (n, h, w); see ``metrics.detection.localisation``."""
    return localisation(masks, maps, image_scores(maps), strict_masks, regions)


def alignment(model: nn.Module, images: np.ndarray, masks: np.ndarray) -> dict[str, float | int | None]:
    """Made images and masks judged by a localiser that learned from real ones; see ``metrics.detection.agreement``."""
    return agreement(masks, predict(model, images))


def image_scores(maps: np.ndarray) -> np.ndarray:
    """One score per probability map: (n, h, w) -> float32 (n,)."""
    window = pooling_window(maps.shape[-1])
    pooled = functional.avg_pool2d(torch.from_numpy(maps)[:, None], window, stride=1, padding=window // 2)
    return pooled.amax(dim=(1, 2, 3)).numpy()


def pooling_window(resolution: int) -> int:
    """DRAEM's window at another resolution: the same share of the image, odd, in pixels."""
    return 2 * int(WINDOW * resolution / 256 / 2) + 1


def as_input(images: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """uint8 (n, h, w, 3) -> float32 (n, 3, h, w) in [-1, 1] on a device, channels last in memory.

    Raises:
        ValueError: another shape.
    """
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"the localiser needs images (n, h, w, 3), got {images.shape}")
    # A contiguous (n, h, w, 3) array seen as (n, 3, h, w) already is channels-last: no copy of the batch is made.
    # Bytes go to the device, not numbers of four bytes each.
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
