"""Tokenizers of the transformers library: read, taken apart, and held against the model that they come with."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoTokenizer

from clipstudy.errors import ModelError, said
from clipstudy.spec import ModelSpec

VOCABULARIES = ("tokenizer.json", "vocab*", "*.model", "*.tiktoken")
#: Share of a model's embedded tokens that its own tokenizer knows at least: embeddings are padded to round numbers.
KNOWN_LEAST = 0.97

log = logging.getLogger(__name__)


def read(folder: Path, spec: ModelSpec) -> Any:
    """The tokenizer whose files lie in ``folder``.

    Raises:
        ModelError: there is none, or it cannot be read without code of its own.
    """
    try:
        # Without a vocabulary the library makes a tokenizer of special tokens alone, which reads every word as unknown.
        if not any(file for pattern in VOCABULARIES for file in folder.glob(pattern)):
            raise FileNotFoundError(f"{folder} holds none of {', '.join(VOCABULARIES)}")
        return _read(folder, tuple(sorted((file.name, *_stamp(file)) for file in folder.iterdir() if file.is_file())))
    except Exception as error:  # the library raises whatever its many formats raise
        raise ModelError(
            f'[models.{spec.name}] checkpoint = "{spec.checkpoint}" has no tokenizer that can be read '
            f"({said(error)}). Put the tokenizer's files (tokenizer.json, or its vocabulary) beside config.json."
        ) from error


# Fine-tuning loads a model anew for every seed, and reading a vocabulary takes as long as reading small weights.
# Nothing is set on a tokenizer once it is read, so all may have the same.
@functools.lru_cache(maxsize=2)
def _read(folder: Path, _files: tuple[tuple[str, int, int], ...]) -> Any:
    """The tokenizer of ``folder`` while its files are these."""
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    # Some of what is wrong with it shows only when it is used.
    tokenizer(["a"], ["a"])
    tokenizer.num_special_tokens_to_add()
    tokenizer.convert_tokens_to_ids(tokenizer.all_special_tokens)
    return tokenizer


def _stamp(file: Path) -> tuple[int, int]:
    """What a file's change shows by: when it was written (ns), and its size in bytes."""
    there = file.stat()
    return there.st_mtime_ns, there.st_size


def plain_encoder(tokenizer: Any) -> Any:
    """``tokenizer`` as strings → ids, with nothing added, and special tokens that a text spells out read as text."""

    def encode(texts: Sequence[str]) -> Sequence[Sequence[int]]:
        ids: Sequence[Sequence[int]] = tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        return ids

    return encode


def special_tokens(tokenizer: Any, encode: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that ``tokenizer`` puts in front of a text and behind it."""
    own = list(encode(["a"])[0])
    whole = list(tokenizer(["a"], padding=False, truncation=False)["input_ids"][0])
    at = next((i for i in range(len(whole)) if own and whole[i : i + len(own)] == own), None)
    if at is None:
        raise ModelError(
            f"the tokenizer {type(tokenizer).__name__} reads a text otherwise when special tokens are added, so words "
            "cannot be followed through it. Choose another checkpoint, or its fast tokenizer."
        )
    return tuple(whole[:at]), tuple(whole[at + len(own) :])


def separator(tokenizer: Any, encode: Any, front: tuple[int, ...], back: tuple[int, ...]) -> tuple[int, ...]:
    """The ids that ``tokenizer`` puts between two texts; ``back`` where its own layout cannot be told apart."""
    one, two = (list(ids) for ids in encode(["a", "b"]))
    whole = list(tokenizer(["a"], ["b"], padding=False, truncation=False)["input_ids"][0])
    middle = whole[len(front) + len(one) : len(whole) - len(two) - len(back)]
    return tuple(middle) if whole == [*front, *one, *middle, *two, *back] else back


def check(tokenizer: Any, model: nn.Module, config: Any, spec: ModelSpec) -> None:
    """Is it a tokenizer of another model? Surely, where ids do not fit, which is an error; likely, where it leaves much
    of the model unused, which is warned of.

    Args:
        config: of the text model.

    Raises:
        ModelError: it is, or the model does not embed token by token.
    """
    here = f'[models.{spec.name}] checkpoint = "{spec.checkpoint}"'
    vocabulary = set(tokenizer.get_vocab().values())
    try:
        rows = embedded(model)
    except (NotImplementedError, AttributeError) as error:
        raise ModelError(
            f"{here} is a {type(model).__name__}, which has no embedding of its own for each token. "
            "Choose another model."
        ) from error
    if not vocabulary or max(vocabulary) >= rows:
        raise ModelError(
            f"{here}: its tokenizer has ids up to {max(vocabulary, default='none')}, but the model embeds {rows} "
            "tokens. They do not belong together; put the model's own tokenizer files beside it."
        )
    for name in ("bos_token_id", "eos_token_id"):
        special = getattr(config, name, None)
        # Past the embeddings it is a default that nobody looked at, as small ModernBERTs have it.
        if isinstance(special, int) and special < rows and special not in vocabulary:
            raise ModelError(
                f"{here}: the model's {name} is {special}, which its tokenizer does not know. They do not belong "
                "together; put the model's own tokenizer files beside it."
            )
    if len(vocabulary) < KNOWN_LEAST * rows:
        log.warning(
            "%s: its tokenizer knows %d of the %d tokens that the model embeds; is it the model's own?",
            here, len(vocabulary), rows,
        )  # fmt: skip


def embedded(model: Any) -> int:
    """How many tokens ``model`` embeds."""
    rows: int = model.get_input_embeddings().weight.shape[0]
    return rows
