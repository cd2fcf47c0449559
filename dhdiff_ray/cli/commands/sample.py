"""``sample``: many pairs from an endpoint, into the tree that ``submit synthesize`` would write.

Not in the paper. Decided: seeds are those of ``synthesis.plan``, so pair 7 is pair 7 whoever asks; a pair is asked for
alone, since the endpoint shares its passes between requests; what lies there already is not asked for again.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dhdiff_ray.cli import options
from dhdiff_ray.cli.output import Output, ProgressView

if TYPE_CHECKING:
    from dhdiff_ray.client import Client
    from dhdiff_ray.pairs.writer import PairWriter
    from dhdiff_ray.records import Request
    from dhdiff_ray.run.folder import RunFolder

TOKEN = "DHDIFF_TOKEN"
"""Environment variable with the endpoint's token; a flag would be seen in the list of processes."""


def sample(
    url: Annotated[str, typer.Option(help="Address of the endpoint, http://HOST:8000.", show_default=False)],
    category: Annotated[
        list[str],
        typer.Option("--category", "-c", metavar="NAME", help="Product to draw; may be repeated.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Folder to fill: pairs go to OUT/pairs, or to OUT if it is named pairs.")],
    defect: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this defect; may be repeated.", show_default=False)
    ] = None,
    pairs: Annotated[int, typer.Option("--pairs", "-n", min=1, help="Pairs per defect.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="First seed, as run.seed.")] = 0,
    parallel: Annotated[int, typer.Option(min=1, max=256, help="Requests at once.")] = 8,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps.", show_default=False)] = None,
    patience: Annotated[float, typer.Option(min=0, help="Seconds to go on asking a busy endpoint.")] = 120.0,
    as_json: options.Json = False,
) -> None:
    """Fetch many pairs from an endpoint into a tree.

    Typed again, it goes on with what is missing. A token is read from the variable DHDIFF_TOKEN.

    Example: dhdiff-ray sample --url http://127.0.0.1:8000 -c mesh --out pairs -n 100
    """
    from dhdiff_ray.client import Client, EndpointError
    from dhdiff_ray.config.load import ConfigError
    from dhdiff_ray.on_ray.cluster.local import ClusterError
    from dhdiff_ray.pairs.writer import PairWriter, write_card
    from dhdiff_ray.run.folder import RunFolder

    output = Output(as_json)
    place = out.expanduser().resolve()
    folder = RunFolder(str(place.parent if place.name == "pairs" else place))
    tree = PairWriter(folder)
    made = kept = 0
    try:
        with Client(url, os.environ.get(TOKEN), patience=patience) as client, ProgressView(output) as view:
            for name in dict.fromkeys(category):
                model = client.model(name)
                if unknown := sorted(set(defect or ()) - set(model["defects"])):
                    there = ", ".join(model["defects"])
                    raise ConfigError(f"{name} has no defect {unknown[0]!r}; there are: {there}")
                wanted = _requests(name, [d for d in model["defects"] if not defect or d in defect], pairs, seed)
                facts = {"weights_sha256": model["weights_sha256"], "steps": steps or model["defaults"]["steps"]}
                journal = Journal(folder, name, facts)
                missing = [request for request in wanted if not (journal.has(request) and tree.has_pair(request))]
                kept += len(wanted) - len(missing)
                for number, request in enumerate(_fetch(client, tree, missing, parallel, steps), 1):
                    journal.add(request)
                    event = {"event": "progress", "verb": "sample", "category": name}
                    view.event(event | {"done": number, "total": len(missing)})
                    made += 1
                tree.finish(name, list(journal.made.values()), journal.facts)
                journal.file.unlink(missing_ok=True)  # the tree's own metadata say it all now
            write_card(folder)
    except EndpointError as error:
        if error.status in (0, 401, 403, 421):
            hint = f"; a token is read from {TOKEN}" if error.status == 401 else ""
            raise ClusterError(f"{error}{hint}") from None
        hint = "" if error.status in (404, 422) else "; what was made is kept, type the same line again to go on"
        raise ValueError(f"{error}{hint}") from None
    value = {"folder": f"{folder.uri}/pairs", "made": made, "kept": kept, "categories": list(dict.fromkeys(category))}
    output.data(value, text=f"{folder.uri}/pairs")


class Journal:
    """What was made of one category, a line each, beside the tree until that is finished.

    Args:
        folder: what holds the tree.
        category: whose pairs.
        facts: plain values every pair of the tree must share.

    Raises:
        ConfigError: what lies there was made with others.
    """

    def __init__(self, folder: RunFolder, category: str, facts: dict[str, Any]) -> None:
        from dhdiff_ray.config.load import ConfigError
        from dhdiff_ray.pairs.writer import METADATA, PAIRS, read_pair_rows
        from dhdiff_ray.records import Request

        self.facts, self.file = facts, Path(folder.path(f".sample-{category}.jsonl"))
        rows = read_pair_rows(folder, category) if folder.exists(f"{PAIRS}/{category}/{METADATA}") else []
        if self.file.exists():
            lines = self.file.read_text().splitlines()
            rows += [json.loads(line) for line in lines if line.endswith("}")]  # a crash may have cut the last
        for row in rows:
            if any(row.get(name) != value for name, value in facts.items()):
                raise ConfigError(f"pairs of other weights or steps lie in {folder.uri}; pass another --out")
        names = [field.name for field in fields(Request)]
        self.made = {(row["defect"], row["index"]): Request(**{name: row[name] for name in names}) for row in rows}

    def has(self, request: Request) -> bool:
        """Whether the pair was made.

        Raises:
            ConfigError: it was, from another seed.
        """
        from dhdiff_ray.config.load import ConfigError

        made = self.made.get((request.defect, request.index))
        if made is not None and made.seed != request.seed:
            raise ConfigError("pairs of another --seed lie there; pass that seed, or another --out")
        return made is not None

    def add(self, request: Request) -> None:
        """Write down a pair that lies in the tree."""
        self.made[request.defect, request.index] = request
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(request.as_dict() | self.facts) + "\n")


def _requests(category: str, defects: list[str], pairs: int, seed: int) -> list[Request]:
    from dhdiff_ray.data.prompts import prompt
    from dhdiff_ray.records import Request, pair_seed

    return [
        Request(category, defect, at, pair_seed(seed, category, defect, at), prompt(category, defect), "", "")
        for defect in defects
        for at in range(pairs)
    ]


def _fetch(
    client: Client, writer: PairWriter, requests: list[Request], parallel: int, steps: int | None
) -> Iterator[Request]:
    """Ask for each, a few at once, and write what comes; yields what was written."""
    import numpy as np
    from PIL import Image

    from dhdiff_ray.records import Pair

    def one(request: Request) -> Request:
        (pair,) = client.pairs(request.category, defect=request.defect, seed=request.seed, steps=steps)
        image, mask = (np.array(Image.open(io.BytesIO(data))) for data in (pair.image, pair.mask))
        request = replace(request, base=pair.base or "", reference=pair.reference or "")
        writer.write_pair(Pair(request, image, mask))
        return request

    with ThreadPoolExecutor(parallel) as pool:
        try:
            for future in as_completed([pool.submit(one, request) for request in requests]):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
