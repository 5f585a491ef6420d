"""What a pocket model can do on held-out text and pictures, and what can be done without a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice, product
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from clipstudy.pocket.images.scenes import FINE, Scene
from clipstudy.pocket.images.silhouettes import TEXTURES
from clipstudy.pocket.text import wordlist
from clipstudy.pocket.text.captions import SYNONYMS
from clipstudy.pocket.text.language import Language
from clipstudy.pocket.text.tree import Sentence
from clipstudy.pocket.text.wordlist import END, MASK
from clipstudy.pocket.training import batches, objectives
from clipstudy.pocket.training.models import MODELS, PocketModel, encode_image, encode_text

#: Held-out sentences or pictures, and how many of them a retrieval chooses from.
HELD, CHOICE = 1024, 256
#: Neighbours that vote, and how many labelled pictures there are to each held-out one.
NEIGHBOURS, LABELLED = 20, 2
#: How a class is named to a CLIP; each with every word that captions have for the texture and for the shape.
PROMPTS = ("there is a {} {} .", "the picture shows a {} {} .")
#: Sentences that words are counted in for the unigram model.
COUNTED = 5000
AT_ONCE = 128


def figures(name: str, model: Any, held: int = HELD, seed: int = 0) -> dict[str, float]:
    """Held-out figures of a pocket model, by what it was trained for; it is left in evaluation mode.

    ``perplexity``
        per word, on sentences of the language alone, whose entropy is known: of the masked words, ``MASKED`` of each
        sentence (BERT), or of each next word and the sentence's end (GPT-2).
    ``retrieval``, ``true_over_twin``, ``zero_shot``
        a caption's picture or a picture's caption found among ``CHOICE``, the mean of both; the true caption preferred
        to a false one of the same words (chance is a half); the fine class by its name (chance is a hundredth).
    ``top_1``, ``top_1_shape``
        the fine class, or its shape at least, by the model's own classifier.
    ``k_nn``, ``k_nn_object``
        the fine class by the vote of the nearest among pictures whose class is known; and the fine class and the
        colour, which is what pairs of renders have in common.
    """
    described = MODELS[name]
    model.eval()
    with torch.inference_mode():
        if not described.sees:
            surprise = _masked if described.objective == "masked words" else _next
            return {"perplexity": surprise(model, _sentences(held, seed), seed)}
        scenes = next(batches.scene_batches(batches.HELD_OUT + seed, held))
        vectors = _vectors(name, model, scenes)
        measured: dict[str, float] = {}
        if described.reads:
            measured |= _read(model, scenes, vectors, seed)
        elif described.objective == "classes":
            guess, truth = model.get_classifier()(vectors).argmax(dim=1), batches.fine_labels(scenes)
            measured |= {"top_1": _share(guess == truth), "top_1_shape": _share(_shape(guess) == _shape(truth))}
        labelled = next(batches.scene_batches(batches.HELD_OUT + seed + 1, LABELLED * held))
        near = _nearest(vectors, _vectors(name, model, labelled))
        if described.objective == "pairs":
            measured["k_nn_object"] = _voted(near, batches.object_labels(labelled), batches.object_labels(scenes))
        return measured | {"k_nn": _voted(near, batches.fine_labels(labelled), batches.fine_labels(scenes))}


def floors(name: str, held: int = HELD, seed: int = 0) -> dict[str, float]:
    """What ``figures`` are to be held against, of the same sentences: ``unigram``, the perplexity of words by their
    frequency alone, and ``grammar``, what next words cost whoever knows the grammar by heart.

    ``grammar`` is an upper bound of the language's own perplexity: what a sentence could also have come about by is not
    counted. Pictures have chance to be held against, which is in the figures' descriptions.
    """
    described: PocketModel = MODELS[name]
    if described.sees:
        return {}
    sentences = _sentences(held, seed)
    counts = Counter(dict.fromkeys(wordlist.tokens(), 1))
    for sentence in islice(Language(f"counted/{seed}"), COUNTED):
        counts.update((*sentence.words, END))
    nats = {word: -float(np.log(count / counts.total())) for word, count in counts.items()}
    words = sum(len(sentence.words) for sentence in sentences)
    if described.objective == "masked words":
        asked = [word for _, _, hidden in _hidden(sentences, seed) for word in hidden.tolist()]
        unigram = sum(nats[wordlist.tokens()[word]] for word in asked) / len(asked)
    else:
        unigram = sum(nats[word] for sentence in sentences for word in (*sentence.words, END)) / words
    grammar = sum(sentence.nats for sentence in sentences) / words
    return {"unigram": float(np.exp(unigram)), "grammar": float(np.exp(grammar))}


# --- text


def _sentences(held: int, seed: int) -> list[Sentence]:
    return sorted(islice(Language(f"held out/{seed}"), held), key=lambda sentence: len(sentence.words))


def _ids(sentences: Sequence[Sentence]) -> list[torch.Tensor]:
    lines = [wordlist.encode(sentence.words) for sentence in sentences]
    return [batches.padded(lines[start : start + AT_ONCE]) for start in range(0, len(lines), AT_ONCE)]


def _next(model: Any, sentences: Sequence[Sentence], seed: int) -> float:
    nats = sum(float(objectives.next_word(model, ids).sum()) for ids in _ids(sentences))
    return float(np.exp(nats / sum(len(sentence.words) for sentence in sentences)))


def _hidden(sentences: Sequence[Sentence], seed: int) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Ids with some masked, where, and what stood there: the same for whoever asks."""
    draw = torch.Generator().manual_seed(seed)
    mask = wordlist.numbers()[MASK]
    found = []
    for ids in _ids(sentences):
        chosen = objectives.to_guess(ids, draw)
        found.append((ids.masked_fill(chosen, mask), chosen, ids[chosen]))
    return found


def _masked(model: Any, sentences: Sequence[Sentence], seed: int) -> float:
    nats = words = 0.0
    for ids, chosen, truth in _hidden(sentences, seed):
        nats += float(F.cross_entropy(objectives.guesses(model, ids, chosen), truth, reduction="sum"))
        words += len(truth)
    return float(np.exp(nats / words))


# --- pictures


def _vectors(name: str, model: Any, scenes: Sequence[Scene]) -> torch.Tensor:
    parts = [scenes[start : start + AT_ONCE] for start in range(0, len(scenes), AT_ONCE)]
    return torch.cat([encode_image(name, model, batches.pixels(part)) for part in parts])


def _nearest(vectors: torch.Tensor, known: torch.Tensor) -> Any:
    """Cosines and rows of the ``NEIGHBOURS`` nearest of ``known``."""
    return (F.normalize(vectors, dim=1) @ F.normalize(known, dim=1).T).topk(min(NEIGHBOURS, len(known)), dim=1)


def _voted(near: Any, labels: torch.Tensor, truth: torch.Tensor) -> float:
    """The share that their neighbours' ``labels`` tell; votes count by cosine."""
    votes = torch.zeros(len(truth), int(max(labels.max(), truth.max())) + 1)
    votes.scatter_add_(1, labels[near.indices], near.values)
    return _share(votes.argmax(dim=1) == truth)


def _read(model: Any, scenes: list[Scene], vectors: torch.Tensor, seed: int) -> dict[str, float]:
    """What a CLIP makes of captions of the pictures whose ``vectors`` are given."""
    seen = F.normalize(vectors, dim=1)
    _, captions = next(batches.captioned(iter([scenes]), batches.HELD_OUT + seed))
    ids = batches.caption_ids(captions)
    read = F.normalize(objectives.read_captions(model, ids), dim=1)
    hits = []
    for start in range(0, max(len(ids) - CHOICE, 0) + 1, CHOICE):
        group = slice(start, start + CHOICE)
        likeness, same = seen[group] @ read[group].T, objectives.same_lines(ids[group])
        rows = torch.arange(len(same))
        hits += [same[rows, likeness.argmax(dim=1)], same[rows, likeness.argmax(dim=0)]]

    both = [(i, one.twin) for i, one in enumerate(captions) if one.twin is not None]
    rows = torch.tensor([i for i, _ in both])
    lies = batches.padded([wordlist.encode(wrong.words) for _, wrong in both])
    false = F.normalize(encode_text(model, lies), dim=1)
    preferred = (seen[rows] * read[rows]).sum(dim=1) > (seen[rows] * false).sum(dim=1)

    guess = (seen @ _named(model).T).argmax(dim=1)
    return {
        "retrieval": _share(torch.cat(hits)),
        "true_over_twin": _share(preferred),
        "zero_shot": _share(guess == batches.fine_labels(scenes)),
    }


def _named(model: Any) -> torch.Tensor:
    """A unit vector for each fine class: the mean over all ways to name it."""
    means = []
    for name in FINE:
        words = [SYNONYMS[word].items if word in SYNONYMS else (word,) for word in name.split()]
        lines = [prompt.format(*ways).split() for prompt in PROMPTS for ways in product(*words)]
        vectors = F.normalize(encode_text(model, batches.padded([wordlist.encode(line) for line in lines])), dim=1)
        means.append(vectors.mean(dim=0))
    return F.normalize(torch.stack(means), dim=1)


def _shape(fine: torch.Tensor) -> torch.Tensor:
    return fine // len(TEXTURES)


def _share(hits: torch.Tensor) -> float:
    return float(hits.float().mean())
