"""Train the localiser on pairs, made or real, and normal images (section IV-D).

The peers' recipe: Adam, half of each batch normal images with an empty mask, no augmentation (``detect.augment`` is
ours). What we decided: a head on a pretrained network is trained with AdamW, on layers that are computed once where
images are shown as they are; the weights after the last step are
kept, or those that do best on pairs held out from training (``detect.select``). The peers keep the epoch that does best
on the test set, which makes their figures optimistic; that is a labelled mode.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from dhdiff_ray.config import DetectConfig
from dhdiff_ray.detector.augment import augmented
from dhdiff_ray.detector.evaluate import as_input
from dhdiff_ray.detector.loss import localisation_loss
from dhdiff_ray.detector.pretrained import Pretrained
from dhdiff_ray.detector.unet import build

Show = Callable[[np.ndarray, np.ndarray], tuple[Tensor, Tensor]]
"""Rows of normal and of defective images -> logits and targets."""
Best = tuple[float, dict[str, Tensor]]
"""How good a localiser was, and its weights then."""


def train_localiser(
    images: np.ndarray,
    masks: np.ndarray,
    normals: np.ndarray,
    config: DetectConfig,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
    device: str | None = None,
    judge: Callable[[nn.Module], float] | None = None,
    chances: np.ndarray | None = None,
    mirror: bool = False,
) -> nn.Module:
    """Train a localiser; on a CPU its weights are a function of the arguments alone.

    Runs on as many threads as the caller gave torch.

    Args:
        images: defective images, uint8 (n, h, w, 3).
        masks: their masks (n, h, w), defect where non-zero; one that is empty makes its image a normal one.
        normals: normal images, uint8 (m, h, w, 3); m may be 0.
        config: steps, batch, learning rate, width.
        seed: draws the first weights and the batches.
        on_step: called after each step with (steps done, loss).
        device: where to train; by default a GPU if there is one.
        judge: how good the localiser is now; asked every ``config.judge_every`` steps and after the last. The best is
            kept, the later among equals. None keeps the last.
        chances: how often each defective image is shown, (n,), summing to one; None shows all alike.
        mirror: whether ``config.augment`` may mirror images.

    Returns:
        The chosen localiser, in evaluation mode.

    Raises:
        ValueError: no defective images, or arrays that do not fit together.
    """
    _refuse_mismatch(images, masks)
    # Activations that fade to denormals make a CPU some ten times slower; they are zero for every practical purpose.
    torch.set_flush_denormal(True)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model = _untrained(config, seed, place)
    optimiser = _optimiser(model, config)
    show = _shown(model, images, masks, normals, place, mirror if config.augment else None, seed)
    schedule = _schedule(optimiser, config)
    best: Best | None = None
    draw = np.random.default_rng(seed)
    for step in range(config.steps):
        loss = localisation_loss(*show(*_batch(len(images), len(normals), config, draw, chances)), config.loss)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if on_step is not None:
            on_step(step + 1, float(loss.detach()))
        if judge is not None and ((step + 1) % config.judge_every == 0 or step + 1 == config.steps):
            best = _better(best, model, judge)
    if best is not None:
        model.load_state_dict(best[1])
    return model.eval()


def _refuse_mismatch(images: np.ndarray, masks: np.ndarray) -> None:
    if len(images) == 0:
        raise ValueError(
            "no defective images to train the localiser on; make pairs first: dhdiff-ray submit synthesize"
        )
    if images.shape[:3] != masks.shape:
        raise ValueError(
            f"images {images.shape} and masks {masks.shape} do not belong together; expected (n, h, w, 3) and (n, h, w)"
        )


def _untrained(config: DetectConfig, seed: int, place: torch.device) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(config.network, config.channels)
    return model.to(device=place, memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]


def _better(best: Best | None, model: nn.Module, judge: Callable[[nn.Module], float]) -> Best:
    """The best so far or, if it is no worse, the model as it is now."""
    score = judge(model.eval())
    model.train()
    if best is None or score >= best[0]:
        best = score, {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return best


def _schedule(optimiser: torch.optim.Optimizer, config: DetectConfig) -> torch.optim.lr_scheduler.LRScheduler:
    if config.decay == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
    marks = sorted({max(1, round(share * config.steps)) for share in (0.8, 0.9)})
    return torch.optim.lr_scheduler.MultiStepLR(optimiser, marks, gamma=0.2)


def _optimiser(model: nn.Module, config: DetectConfig) -> torch.optim.Optimizer:
    learned = [weights for weights in model.parameters() if weights.requires_grad]
    if config.network == "pretrained":
        return torch.optim.AdamW(learned, lr=config.learning_rate, weight_decay=1e-2)
    return torch.optim.Adam(learned, lr=config.learning_rate)


def _shown(
    model: nn.Module,
    images: np.ndarray,
    masks: np.ndarray,
    normals: np.ndarray,
    place: torch.device,
    mirror: bool | None,
    seed: int,
) -> Show:
    """What gives logits and targets, both (b, 1, h, w), of normal images at some positions, then of defective ones.

    ``mirror`` is None where images are shown as they are; a pretrained network then looks at each once.
    """

    def targets(calm: np.ndarray, picked: np.ndarray) -> Tensor:
        return _targets(len(calm), masks[picked]).to(place)

    def pixels(calm: np.ndarray, picked: np.ndarray) -> Tensor:
        return as_input(np.concatenate([normals[calm], images[picked]]) if len(calm) else images[picked], place)

    if mirror is not None:
        draw = np.random.default_rng([seed, 8])

        def changed(calm: np.ndarray, picked: np.ndarray) -> tuple[Tensor, Tensor]:
            shown, truth = augmented(pixels(calm, picked), targets(calm, picked), mirror, draw)
            return model(shown), truth

        return changed
    if not isinstance(model, Pretrained):
        return lambda calm, picked: (model(pixels(calm, picked)), targets(calm, picked))
    layers = model.layers_of(np.concatenate([normals, images]) if len(normals) else images)

    def looked_at(calm: np.ndarray, picked: np.ndarray) -> tuple[Tensor, Tensor]:
        rows = torch.from_numpy(np.concatenate([calm, len(normals) + picked]))
        seen = [layer[rows].to(place).float() for layer in layers]
        return model.head(seen, images.shape[1:3]), targets(calm, picked)

    return looked_at


def _batch(
    count: int, normal: int, config: DetectConfig, draw: np.random.Generator, chances: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Which of the normal images a batch holds, and which of the defective ones."""
    quiet = round(config.batch_size * config.normal_fraction) if normal else 0
    size = config.batch_size - quiet
    picked = draw.integers(count, size=size) if chances is None else draw.choice(count, size=size, p=chances)
    return draw.integers(max(normal, 1), size=quiet), picked


def _targets(quiet: int, masks: np.ndarray) -> Tensor:
    """Targets (b, 1, h, w) of 0 and 1: none for so many normal images, then the masks."""
    targets = np.zeros((quiet + len(masks), 1, *masks.shape[1:]), dtype=np.float32)
    targets[quiet:, 0] = masks > 0
    return torch.from_numpy(targets)
