"""The text condition T: words to tokens to embeddings, and which tokens name the defect (section III-D).

Decided: from scratch one token is one word of the dataset's own prompts, and the encoder keeps its random weights: a
network can read any words that differ, and an encoder that is trained along forgets them. On a Stable-Diffusion
backbone tokenizer and encoder are the pretrained ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<unk>", "<start>", "<end>")


def word_tokenizer(words: Iterable[str], length: int) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per word, for prompts of at most ``length`` tokens with start and end."""
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *sorted(set(words))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
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


def small_text_encoder(tokenizer: PreTrainedTokenizerFast, width: int, layers: int) -> CLIPTextModel:
    """A CLIP text model of the given size, with random weights that stay as they are.

    CLIP's own start gives words a standard deviation of 0.02, as much as places in the sentence: states of the defect's
    token then differ between prompts by a tenth of their variance. With 1 it is seven tenths.
    """
    encoder = CLIPTextModel(
        CLIPTextConfig(
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
    )
    with torch.no_grad():
        words: Any = encoder.get_input_embeddings().weight
        words.div_(words.std())
    return encoder.eval().requires_grad_(False)


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
