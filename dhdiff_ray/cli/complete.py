"""What the shell's completion offers: datasets, presets, runs, and a run's or a dataset's categories and defects.

It reads folders of this machine only, and says nothing where they cannot be read: pressing Tab must not fail.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer


def datasets(incomplete: str) -> list[str]:
    """Names of dataset loaders."""
    from dhdiff_ray.data.registry import dataset_names

    return _beginning(dataset_names(), incomplete)


def presets(incomplete: str) -> list[str]:
    """Names of presets."""
    from dhdiff_ray.config.load import presets as there

    return _beginning(there(), incomplete)


def runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Runs in the storage that was typed, or in ``runs``."""
    return _beginning((file.parent.name for file in _storage(ctx).glob("*/config.json")), incomplete)


def categories(ctx: typer.Context, incomplete: str) -> list[str]:
    """Categories of the run that was typed, else of the dataset."""
    return _beginning(_of_run(ctx) or _of_dataset(ctx), incomplete)


def defects(ctx: typer.Context, incomplete: str) -> list[str]:
    """Defects of the run's chosen category, or of all its categories."""
    chosen = ctx.params.get("category")
    chosen = [chosen] if isinstance(chosen, str) else chosen
    return _beginning(
        (d for name, found in _of_run(ctx).items() if not chosen or name in chosen for d in found), incomplete
    )


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})


def _storage(ctx: typer.Context) -> Path:
    return Path(ctx.params.get("storage") or "runs").expanduser()


def _of_run(ctx: typer.Context) -> dict[str, set[str]]:
    """Category -> defects of the run's split."""
    found: dict[str, set[str]] = {}
    try:
        split: dict[str, Any] = json.loads((_storage(ctx) / str(ctx.params.get("run")) / "split.json").read_text())
        for sample in split["train"]:
            found.setdefault(sample["category"], set()).update({sample["defect"]} - {"good"})
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found


def _of_dataset(ctx: typer.Context) -> list[str]:
    from dhdiff_ray.data.registry import open_dataset

    root = ctx.params.get("root")
    try:
        return open_dataset(ctx.params.get("dataset") or "mvtec").categories(Path(root).expanduser()) if root else []
    except (OSError, ValueError):
        return []
