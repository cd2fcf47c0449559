"""The noise schedule of a batch: all pairs start at one step, or each at a step of its own (section III-B).

Decided: where first steps differ, a pair joins the loop at its own step, with those that begin there and a copy of the
scheduler, since a multistep scheduler remembers what it saw; until then its latents stay as they are. So a batch of one
fixed size holds any strengths, the network is shown all pairs at one timestep, and a pair never depends on its company,
as it would if a batch shared a strength: a scheduler treats every number alike, so alone or with others gives the same
bits. It costs the steps of the batch's largest strength.
Shapes: b pairs, c x h' x w' latents; rows are those of b pairs or of both their domains, joined, 2b.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Course:
    """Pairs that run through the same timesteps."""

    scheduler: Any
    first: int  # number of their first step, counted from the loop's first; the number of steps: they take none
    pairs: Sequence[int]  # their numbers
    of: int  # pairs of the batch, b

    def rows(self, latents: Tensor) -> slice | list[int]:
        """Theirs among the rows of b pairs, or of both their domains, 2b."""
        if len(self.pairs) == self.of:
            return slice(None)
        return [*self.pairs, *(self.of + at for at in self.pairs)][: len(self.pairs) * len(latents) // self.of]


NewNoise = Callable[[Course], Tensor]
"""Noise from the generators of a course's n pairs, both domains: (2n, c, h', w')."""


@dataclass(frozen=True)
class Courses:
    """What all pairs of a batch run through."""

    each: list[Course]
    timesteps: Tensor  # of the loop: the longest course's

    def noised(self, z_start: Tensor, noise: Tensor) -> Tensor:
        """The latents (2b, c, h', w') that each pair begins from; as they are where it takes no step."""
        begun = z_start.clone()
        for one in self.each:
            if one.first < len(self.timesteps):
                rows = one.rows(z_start)
                t = self.timesteps[one.first].expand(len(noise[rows]))
                begun[rows] = one.scheduler.add_noise(z_start[rows], noise[rows], t)
        return begun

    def add_noise(self, latents: Tensor, noise: Tensor, number: int) -> Tensor:
        """Clean latents with the noise of a step; as they are of pairs that have not begun."""

        def change(one: Course) -> Tensor:
            rows = one.rows(latents)
            t = self.timesteps[number].expand(len(noise[rows]))
            return one.scheduler.add_noise(latents[rows], noise[rows], t)

        return self._changed(latents, number, change)

    def scaled(self, latents: Tensor, number: int) -> Tensor:
        """Latents as the network is to see them."""
        t = self.timesteps[number]
        return self._changed(
            latents, number, lambda one: one.scheduler.scale_model_input(latents[one.rows(latents)], t)
        )

    def step(
        self,
        predicted: Tensor,
        latents: Tensor,
        number: int,
        generators: Sequence[torch.Generator],
        new_noise: NewNoise,
        textured: bool,
    ) -> Tensor:
        """One step of the scheduler; what noise it wants comes from the pairs' own generators.

        Raises:
            ValueError: a scheduler that adds white noise of its own to a model's with a texture.
        """
        t = self.timesteps[number]

        def change(one: Course) -> Tensor:
            scheduler, rows, extra = one.scheduler, one.rows(latents), {}
            wanted = _arguments(type(scheduler))
            stochastic = str(scheduler.config.get("algorithm_type", "sde")).startswith("sde")
            if "variance_noise" in wanted and "algorithm_type" in scheduler.config and stochastic:
                extra["variance_noise"] = new_noise(one)
            elif "generator" in wanted and "variance_noise" not in wanted and textured:
                raise ValueError(
                    f"{type(scheduler).__name__} adds white noise of its own, and this model's noise has a texture; "
                    "use DPMSolverMultistepScheduler or DDIMScheduler"
                )
            elif "generator" in wanted:
                extra["generator"] = [generators[at] for at in one.pairs] * 2
            return scheduler.step(predicted[rows], t, latents[rows], return_dict=False, **extra)[0]

        return self._changed(latents, number, change)

    def _changed(self, latents: Tensor, number: int, change: Callable[[Course], Tensor]) -> Tensor:
        """Apply a change to the pairs that have begun; the others stay as they are."""
        if len(self.each) == 1 and self.each[0].first <= number:
            return change(self.each[0])
        changed = latents.clone()
        for one in self.each:
            if one.first <= number:
                changed[one.rows(changed)] = change(one)
        return changed


@cache
def _arguments(scheduler: type) -> frozenset[str]:
    """Names that a scheduler's step takes; looked at once, since that takes as long as the step itself."""
    return frozenset(inspect.signature(getattr(scheduler, "step")).parameters)  # noqa: B009


def steps_of(total: int, strength: float) -> int:
    """Number of steps that a strength runs through; 0 only at strength 0."""
    return max(1 if strength else 0, round(total * strength))


def courses_of(
    scheduler: Any, steps: int, device: torch.device, strengths: Sequence[float] | None, count: int = 1
) -> Courses:
    """What pairs run through.

    Args:
        scheduler: is set to its first step.
        steps: of the whole schedule.
        device: of the timesteps.
        strengths: of each pair; those that begin at one step share a course. None: all steps.
        count: pairs, where there are no strengths.
    """
    scheduler.set_timesteps(steps, device=device)
    timesteps = scheduler.timesteps
    total = len(timesteps)
    if strengths is None:
        return Courses([Course(scheduler, 0, range(count), count)], timesteps)
    begins = [total - steps_of(total, strength) for strength in strengths]
    each = []
    for begin in sorted(set(begins)):
        same = [at for at, own in enumerate(begins) if own == begin]
        own = scheduler if len(same) == len(begins) else copy.deepcopy(scheduler)
        if hasattr(own, "set_begin_index"):
            own.set_begin_index(begin)
        each.append(Course(own, begin - min(begins), same, len(begins)))
    return Courses(each, timesteps[min(begins) :])
