"""The one tokenizer of all pocket text models: a word is a token, and every text model gives it the same number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from clipstudy.pocket.text.mixture import vocabulary

PAD, UNKNOWN, MASK, START, END = "<pad>", "<unk>", "<mask>", "<cls>", "<eot>"


@lru_cache
def tokens() -> tuple[str, ...]:
    """Every token, by its number. ``END`` is the last: open_clip pools a text where its highest number stands."""
    return (PAD, UNKNOWN, MASK, START, *vocabulary(), END)


@lru_cache
def numbers() -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens())}


def encode(words: Sequence[str]) -> list[int]:
    """``START`` … ``END``, as all pocket models are trained."""
    known = numbers()
    return [known[START], *(known[word] for word in words), known[END]]


def write(folder: Path, framed: bool) -> None:
    """Put the tokenizer's files into ``folder``.

    Args:
        framed: put ``START`` and ``END`` around every text, as BERT's and CLIP's tokenizers do; GPT-2's adds nothing.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel(numbers(), unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    if framed:
        tokenizer.post_processor = TemplateProcessing(
            single=f"{START} $A {END}",
            pair=f"{START} $A {END} $B {END}",
            special_tokens=[(token, numbers()[token]) for token in (START, END)],
        )
    special = {"cls_token": START, "sep_token": END} if framed else {}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        mask_token=MASK,
        bos_token=START,
        eos_token=END,
        **special,
    ).save_pretrained(folder)
