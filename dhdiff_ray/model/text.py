"""The text condition T: words to tokens to embeddings, and which tokens name the defect (section III-D).

Decided: without Stable Diffusion one token is one word, and its vector is a function of the word alone, drawn from the
word's hash, as the encoder's weights are of their sizes: models mean the same by "crack" whatever else they know, and
a new word needs no training of the encoder. It keeps its random weights: a network can read any words that differ, and
an encoder that is trained along forgets them. On a Stable-Diffusion backbone tokenizer and encoder are the pretrained
ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<unk>", "<start>", "<end>")
LEAST_LENGTH = 16
"""Tokens that every small tokenizer has room for, so that models of different prompts read alike."""
PLACE_DEVIATION = 0.02
"""Standard deviation of a position's vector, CLIP's own; words have 1.

With CLIP's .02 for words as well, states of the defect's token differ between prompts by a tenth of their variance;
with 1 it is seven tenths.
"""


def word_tokenizer(words: Iterable[str], length: int) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per word, for prompts of at most ``length`` tokens with start and end."""
    return _tokenizer([*SPECIAL, *sorted(set(words) - set(SPECIAL))], max(length, LEAST_LENGTH))


def small_text_encoder(tokenizer: PreTrainedTokenizerFast, width: int, layers: int) -> CLIPTextModel:
    """A CLIP text model of the given size; its weights are a function of its size and of the tokenizer's words."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=width,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = CLIPTextModel(config)
    # CLIP draws its layers after its tables, whose sizes differ: they are drawn again, by name, as wide as CLIP's.
    usual = (2 * layers * width) ** -0.5
    deviation = {"out_proj": width**-0.5, "fc1": (2 * width) ** -0.5}
    with torch.no_grad():
        for name, value in encoder.named_parameters():
            if value.ndim > 1 and "embedding" not in name:
                value.copy_(_drawn(f"weight {name}", tuple(value.shape)) * deviation.get(name.split(".")[-2], usual))
    return _with_tables(encoder, tokenizer)


def with_words(tokenizer: Any, encoder: CLIPTextModel, words: Iterable[str], length: int) -> tuple[Any, CLIPTextModel]:
    """A small tokenizer and encoder that know further words, or longer prompts; what they knew stays as it is.

    Args:
        tokenizer: what :func:`word_tokenizer` made.
        encoder: what :func:`small_text_encoder` made for it.
        words: those that are wanted.
        length: tokens that are wanted, with start and end.
    """
    known = tokenizer.get_vocab()
    new = sorted(set(words) - set(known))
    if not new and length <= tokenizer.model_max_length:
        return tokenizer, encoder
    wider = _tokenizer([*sorted(known, key=known.__getitem__), *new], max(length, tokenizer.model_max_length))
    c = encoder.config
    grown = small_text_encoder(wider, c.hidden_size, c.num_hidden_layers)
    layers = {name: value for name, value in encoder.state_dict().items() if "embedding" not in name}
    grown.load_state_dict(layers, strict=False)
    return wider, grown


def _tokenizer(vocabulary: Sequence[str], length: int) -> PreTrainedTokenizerFast:
    numbers = {word: i for i, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="<start> $A <end>", special_tokens=[("<start>", 2), ("<end>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<start>",
        eos_token="<end>",
        model_max_length=length,
    )


def _with_tables(encoder: CLIPTextModel, tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    """The encoder with the vectors of the tokenizer's words and positions."""
    tables: Any = encoder.embeddings
    width = encoder.config.hidden_size
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    with torch.no_grad():
        tables.token_embedding.weight.copy_(torch.stack([_drawn(f"word {word}", (width,)) for word in words]))
        places = torch.stack([_drawn(f"place {i}", (width,)) for i in range(tokenizer.model_max_length)])
        tables.position_embedding.weight.copy_(places * PLACE_DEVIATION)
    return encoder.eval().requires_grad_(False)


def _drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers seeded by a name."""
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def tokenize(tokenizer: Any, prompts: Sequence[str]) -> Tensor:
    """Prompts -> token ids (b, t), padded to the tokenizer's length."""
    encoded = tokenizer(
        list(prompts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    return encoded.input_ids


def mark_defect_tokens(tokenizer: Any, tokens: Tensor, defects: Sequence[str]) -> Tensor:
    """Where each prompt names its defect: (b, t) of 0 and 1; all 0 where the words do not occur.

    Args:
        tokenizer: the one that made ``tokens``.
        tokens: (b, t).
        defects: the defect's words as they stand in the prompt, one string per prompt; empty for none.
    """
    marks = torch.zeros(tokens.shape, dtype=torch.float32)
    for row, words in enumerate(defects):
        wanted = tokenizer(words, add_special_tokens=False).input_ids if words else []
        ids = tokens[row].tolist()
        for start in range(len(ids) - len(wanted) + 1):
            if wanted and ids[start : start + len(wanted)] == wanted:
                marks[row, start : start + len(wanted)] = 1
                break
    return marks
