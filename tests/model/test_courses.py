from functools import partial

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from dhdiff_ray.model.courses import courses_of

SHAPE = (6, 3, 5, 7)
"""Three pairs, both domains; no number of values that a processor takes at once."""


def run(scheduler, strengths, rows):
    """Latents of the pairs in some rows after their course, with predictions and noise that are theirs alone."""
    draw = torch.Generator().manual_seed(0)
    start, noise = torch.randn((2, *SHAPE), generator=draw)
    courses = courses_of(scheduler, 6, torch.device("cpu"), strengths)
    latents = courses.noised(start[rows], noise[rows])
    for number in range(len(courses.timesteps)):
        predicted, fresh = torch.randn((2, *SHAPE), generator=torch.Generator().manual_seed(number))
        noise_of = partial(_part_of, fresh[rows])
        latents = courses.step(predicted[rows], courses.scaled(latents, number), number, [draw] * 3, noise_of, False)
    return courses, latents


def _part_of(noise, one):
    return noise[one.rows(noise)]


@pytest.mark.parametrize(
    "scheduler",
    [
        DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", prediction_type="v_prediction"),
        DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=3),
        DDIMScheduler(),
    ],
)
def test_pairs_that_begin_together_share_a_scheduler_and_keep_the_bits_they_have_alone(scheduler):
    courses, together = run(scheduler, (0.5, 0.5, 0.5), [0, 1, 2, 3, 4, 5])
    assert len(courses.each) == 1
    for at in range(3):
        rows = [at, at + 3]
        _, alone = run(scheduler, (0.5,), rows)
        assert torch.equal(together[rows], alone)


def test_pairs_that_begin_apart_have_schedulers_of_their_own_and_those_that_begin_together_share_one():
    courses, _ = run(DPMSolverMultistepScheduler(), (0.5, 1.0, 0.5), [0, 1, 2, 3, 4, 5])
    assert [(one.first, one.pairs) for one in courses.each] == [(0, [1]), (3, [0, 2])]
    assert courses.each[0].scheduler is not courses.each[1].scheduler
