"""A model folder that opens without this package, with ``DiffusionPipeline.from_pretrained(folder, ...)``.

Not in the paper; the caller passes ``trust_remote_code=True``. Decided: all of ``model/`` becomes one file, named by
the hash of its text, beside the pipeline and beside each of its own components, since diffusers looks for a component's
code in the component's folder.
"""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

FILES = ("domains", "taef2", "latents", "courses", "inputs", "outputs", "text", "entangled", "ssm", "reference", "dda",
         "texture", "unet", "pipeline")  # fmt: skip
"""What goes into the bundle, each file after those it imports."""
OUR_CLASSES = ("DHDiffUNet", "HaarTransform", "TinyAutoencoder")
"""Classes of components that diffusers does not know."""


def bundle() -> str:
    """The source of ``model/`` as one module that imports only torch, diffusers, transformers and what they need."""
    parts = ['"""Double Helix Diffusion, bundled from dhdiff_ray.model (Apache-2.0). Do not edit."""\n']
    parts.append("from __future__ import annotations\n")
    names: Counter[str] = Counter()
    for name in FILES:
        text = (Path(__file__).parent / f"{name}.py").read_text()
        lines = text.splitlines(keepends=True)
        tree = ast.parse(text)
        kept = [node for node in tree.body if not _dropped(node)]
        names.update(n.name for n in kept if isinstance(n, ast.FunctionDef | ast.ClassDef))
        parts.append(f"\n# --- {name}.py\n")
        for node in kept:
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            parts.append("".join(lines[first - 1 : node.end_lineno]).rstrip("\n") + "\n\n")
    twice = [name for name, count in names.items() if count > 1]
    assert not twice, f"defined in two files of model/: {twice}"
    return "".join(parts)


def write_self_contained(model: Path, target: Path) -> None:
    """Copy a published model and put its code beside it.

    Args:
        model: what ``DHDiffPipeline.save_pretrained`` wrote.
        target: a folder that is not there yet.

    Raises:
        ValueError: ``model`` is no such folder, or ``target`` is there.
    """
    index = model / "model_index.json"
    if not index.is_file():
        raise ValueError(f"{model} is no published model: it has no model_index.json")
    if target.exists():
        raise ValueError(f"{target} is there already; choose another folder")
    source = bundle()
    module = f"dhdiff_{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    content = json.loads(index.read_text())
    content["_class_name"] = [module, "DHDiffPipeline"]
    components = [name for name, part in content.items() if isinstance(part, list) and part[1] in OUR_CLASSES]
    for name in components:
        content[name] = [module, content[name][1]]
    partial = target.with_name(f".{target.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(model, partial, ignore=shutil.ignore_patterns("files.json"))  # hashes of files as they were
    for folder in (partial, *(partial / name for name in components)):
        (folder / f"{module}.py").write_text(source)
    (partial / "model_index.json").write_text(json.dumps(content, indent=2) + "\n")
    partial.rename(target)


def _dropped(node: ast.stmt) -> bool:
    """Docstrings of files, and imports of what is in the bundle."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    return isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("dhdiff_ray", "__future__")
