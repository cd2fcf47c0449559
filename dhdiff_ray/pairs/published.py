"""Published models, whole or adapters over a foundation: the one place that opens them.

Not in the paper. Decided: what of a product is its foundation's is the foundation's own tensor, so that a process holds
a foundation once, however many of its products it opens. Adapters stay beside the weights they change, as they were
trained.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from itertools import accumulate, chain
from pathlib import Path
from typing import TypeVar

from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from dhdiff_ray.config import Config
from dhdiff_ray.model.pipeline import DHDiffPipeline
from dhdiff_ray.model.text import small_text_encoder
from dhdiff_ray.run.folder import as_json, temporary_folder
from dhdiff_ray.run.foundation import ADAPTERS, foundation_under, weights_hash
from dhdiff_ray.training.adapt import CALLED, PARTS, TENSORS, TOKENIZER, add_adapters
from dhdiff_ray.training.checkpoint import MARKER, card, check_model, write_pipeline
from dhdiff_ray.training.foundation import whole_pipeline

_HELD: dict[str, DHDiffPipeline] = {}
"""The foundation that a model was last opened over, by the hash of its weights."""
Module = TypeVar("Module", bound=nn.Module)


def open_model(folder: Path, config: Config) -> DHDiffPipeline:
    """A published model, its files compared with their hashes.

    Args:
        folder: a model's folder on this machine.
        config: of its run: where a foundation is looked for.

    Raises:
        DamagedError: a file is not as it was published, or the foundation under the adapters is not there or is not
            the one; the message says what to type.
    """
    check_model(folder)
    if not (folder / ADAPTERS).is_file():
        return DHDiffPipeline.from_pretrained(folder)
    facts = json.loads((folder / MARKER).read_text())
    weights = facts["foundation"]["weights_sha256"]
    if weights not in _HELD:
        found = foundation_under(facts, config)
        _HELD.clear()  # first let the other one go
        _HELD[weights] = whole_pipeline(found)
    return _over(_HELD[weights], folder)


@contextmanager
def as_whole(folder: Path, config: Config) -> Iterator[Path]:
    """A published model's folder that needs no foundation: the same one, or a copy while the block runs.

    Args:
        folder: as for :func:`open_model`, likewise what is raised.
        config: likewise.
    """
    if not (folder / ADAPTERS).is_file():
        check_model(folder)
        yield folder
        return
    with temporary_folder() as temporary:
        target = temporary / folder.name
        write_pipeline(open_model(folder, config), target)
        facts = {**json.loads((folder / MARKER).read_text()), "weights_sha256": weights_hash(target)}
        (target / "README.md").write_text(card(facts))
        (target / MARKER).write_bytes(as_json(facts))
        yield target


def _over(known: DHDiffPipeline, folder: Path) -> DHDiffPipeline:
    """The product in a folder, over its foundation."""
    stored = load_file(folder / ADAPTERS)
    own = {
        part: {name.removeprefix(f"{part}."): v for name, v in stored.items() if name.startswith(f"{part}.")}
        for part in PARTS
    }
    ranks = {name.rpartition(".")[0]: len(v) for name, v in own["unet"].items() if name.endswith(TENSORS[0])}
    unet = sharing(known.unet, own["unet"])
    add_adapters(unet, ranks)
    unknown = unet.load_state_dict(own["unet"], strict=False, assign=True).unexpected_keys
    assert not unknown, f"adapters that the foundation has no place for: {unknown[:3]}"
    tokenizer, text_encoder = known.tokenizer, known.text_encoder
    if own["text_encoder"]:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / TOKENIZER)
        c = text_encoder.config
        text_encoder = small_text_encoder(tokenizer, c.hidden_size, c.num_hidden_layers)
        text_encoder.load_state_dict(known.text_encoder.state_dict(keep_vars=True) | own["text_encoder"], assign=True)
    return DHDiffPipeline(
        unet=unet.eval().requires_grad_(False),
        vae=known.vae,
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        scheduler=deepcopy(known.scheduler),
        defaults=json.loads((folder / CALLED).read_text()),
    )


def sharing(network: Module, changed: Mapping[str, Tensor]) -> Module:
    """A copy with the network's own tensors, and its own modules where nothing below them is changed.

    Args:
        network: stays as it is.
        changed: by the names of a state dict; an adapter changes what holds its layer, and not the layer.
    """
    copied = {""}
    for name in changed:
        holder = name.rsplit(".", 2 if name.endswith(TENSORS) else 1)[0]
        copied |= set(accumulate(holder.split("."), lambda above, own: f"{above}.{own}"))
    same = chain(network.parameters(), network.buffers(), (m for n, m in network.named_modules() if n not in copied))
    return deepcopy(network, {id(one): one for one in same})
