"""``explain``: draw one pair of a run and its score maps, next to another run's if asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dhdiff_ray.cli import complete, options
from dhdiff_ray.cli.output import Output
from dhdiff_ray.cli.resolve import resolve

if TYPE_CHECKING:
    from dhdiff_ray.report.explain import Explained


def explain(
    run: options.Run = None,
    storage: options.Storage = None,
    category: Annotated[
        str | None,
        typer.Option(
            "--category",
            "-c",
            metavar="NAME",
            help="Of this product. [default: the first]",
            autocompletion=complete.categories,
        ),
    ] = None,
    defect: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With this defect. [default: the first]", autocompletion=complete.defects),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the pair.")] = 0,
    against: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Another run, to draw the same pair with.", autocompletion=complete.runs),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="PNG to write.")] = Path("explain.png"),
    sets: options.Sets = None,
    as_json: options.Json = False,
) -> None:
    """Draw a pair and show what its text attention saw.

    S^I, S^A, S^O and the maps after fusion (Eq. 6-7), at three denoising steps.

    Example: dhdiff-ray explain --run table8-dda-s0 --against table8-entangled-s0
    """
    from dhdiff_ray.data.encode import save_png
    from dhdiff_ray.report.explain import draw

    output = Output(as_json)
    rows = []
    for name in [run, *([against] if against else [])]:
        typed = options.Typed(run=name, storage=storage, sets=sets)
        rows.append(_explained(typed, category, defect, seed))
        output.note(f"drawn with {rows[-1].name}")
    save_png(out, draw(rows))
    output.data({"picture": str(out), "runs": [row.name for row in rows], "seed": seed}, text=str(out))


def _explained(typed: options.Typed, category: str | None, defect: str | None, seed: int) -> Explained:
    """One run's answer to the request."""
    import numpy as np
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from dhdiff_ray.config.load import ConfigError, nearest
    from dhdiff_ray.data.prompts import prompt
    from dhdiff_ray.pairs.make import finished, prepare
    from dhdiff_ray.pairs.published import open_model
    from dhdiff_ray.records import Request
    from dhdiff_ray.report.explain import SIDE, Explained, defect_maps
    from dhdiff_ray.run.run import Run
    from dhdiff_ray.training.checkpoint import model_facts

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    trained = Run(resolve("synthesize", typed).config)
    category = category or trained.split.categories[0]
    if category not in (names := trained.split.categories):
        raise ConfigError(f"no category {category!r}{nearest(category, names)}; there are: {', '.join(names)}")
    facts = model_facts(trained.folder, category)
    samples = trained.category(category).train
    defect = str(defect or facts["defects"][0])
    if defect not in facts["defects"]:
        raise ConfigError(f"no defect {defect!r} in {category}{nearest(defect, facts['defects'])}; there are: "
                         f"{', '.join(facts['defects'])}")  # fmt: skip
    draw = np.random.default_rng(seed)
    base = str(draw.choice(sorted(s.key for s in samples if s.is_good)))
    reference = str(draw.choice(sorted(s.key for s in samples if s.defect == defect)))
    request = Request(category, defect, 0, seed, prompt(category, defect), base, reference)
    with trained.folder.fetched(f"models/{category}") as model:
        pipeline: Any = open_model(model, trained.config)
    ready = prepare([request], trained.config, samples)
    made = pipeline(**ready.call, return_score_maps=True)
    if not made.score_maps:
        raise ValueError("at synthesize.strength = 0 no step is drawn; use --set synthesize.strength=0.5")
    (pair,) = finished([request], ready, made)
    edge = pair.image.copy()
    edge[pair.mask > 0] = (0.5 * edge[pair.mask > 0] + 0.5 * np.array([255, 0, 0])).astype(np.uint8)
    tokens = pipeline.encode_prompt([request.prompt], ready.call["defect"], False)[1][0].cpu().numpy()
    at = sorted({0, len(made.score_maps) // 2, len(made.score_maps) - 1})
    return Explained(
        name=f"{trained.config.run.name}: {category}, {defect}",
        pictures={"base": ready.bases[0], "reference": ready.references[0], "image": pair.image, "mask": pair.mask,
                  "overlay": edge},
        steps=[(i + 1, defect_maps(made.score_maps[i], tokens, SIDE)) for i in at],
    )  # fmt: skip
