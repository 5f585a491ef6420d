"""The study the plain way: one layer, one probe, one k-means after another, the texts encoded again for each.

What the project's own way is measured and tested against. It is what one writes first with transformers and
scikit-learn, and no slower than that has to be.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.preprocessing import StandardScaler
from torch import nn
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from clipstudy import backbones
from clipstudy.probes.control import control_labels
from clipstudy.probes.inputs import Inputs, Labels
from clipstudy.probes.mlp import Recipe
from clipstudy.spec import ModelSpec
from clipstudy.tasks import classify, phrase_clusters
from clipstudy.tasks.parts import arms
from clipstudy.tasks.parts.items import Sentences


class Reader:
    """A BERT-like checkpoint of the transformers library and its tokenizer, as their manual uses them."""

    def __init__(self, spec: ModelSpec) -> None:
        folder = backbones.located(spec).checkpoint
        logging.disable_progress_bar()
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model = AutoModel.from_pretrained(folder, local_files_only=True).eval()

    def encode(self, texts: Sequence[Sequence[str]], layer: int, batch_size: int) -> Encoded:
        """States of one layer, the texts as they come, every batch padded to its longest."""
        means, firsts, tokens = [], [], []
        for start in range(0, len(texts), batch_size):
            batch = self.tokenizer(
                [list(text) for text in texts[start : start + batch_size]],
                is_split_into_words=True,
                padding=True,
                truncation=True,
                max_length=self.model.config.max_position_embeddings,
                return_special_tokens_mask=True,
                return_tensors="pt",
            )
            own = (1 - batch.pop("special_tokens_mask"))[..., None]
            with torch.no_grad():
                states = self.model(**batch, output_hidden_states=True).hidden_states[layer]
            means.append((states * own).sum(1) / own.sum(1))
            firsts.append(states[:, 0])
            tokens += [(row, batch.word_ids(i)) for i, row in enumerate(states)]
        return Encoded(torch.cat(means).numpy(), torch.cat(firsts).numpy(), tokens)


@dataclass(frozen=True)
class Encoded:
    """One layer's vectors."""

    mean: np.ndarray  #: of each text's own pieces, ``[N, d]``
    native: np.ndarray  #: of its first token, ``[N, d]``
    tokens: list[tuple[torch.Tensor, list[int | None]]]  #: each text's states and the word of each

    def ends(self, text: int, start: int, stop: int) -> np.ndarray:
        """States of the first piece of a span's first word and of the last piece of its last: ``[2, d]``."""
        states, words = self.tokens[text]
        first, last = words.index(start), len(words) - 1 - words[::-1].index(stop - 1)
        return states[[first, last]].numpy()


def layer_of_classify(
    found: Encoded, data: Sentences, seeds: Sequence[int], options: classify.Options
) -> dict[str, float]:
    """Test accuracy of every arm at one layer, mean over seeds, by the names that `classify` gives them."""
    parts = (data.labelled.train, data.labelled.dev, data.labelled.test)
    number = data.labelled.class_number
    truth = Labels(*(np.array([number[label] for label in part.labels]) for part in parts))
    types = [[words[0].lower() for words in part.items] for part in parts]
    control = Labels(*(control_labels(t, truth.train, len(number)) for t in types))
    accuracy = {}
    for arm in arms.arms(options):
        split = np.split(getattr(found, arm.view), np.cumsum([len(part) for part in parts])[:-1])
        if options.standardise:
            scaler = StandardScaler().fit(split[0])
            split = [scaler.transform(x) for x in split]
        asked = {"accuracy": truth}
        if options.control and arm.view == options.views[0]:
            asked["control/accuracy"] = control
        for name, labels in asked.items():
            recipe = arms.recipe(options, arm.probe)
            fits = [fit_grid(Inputs(*split), labels, len(number), recipe, seed) for seed in seeds]
            accuracy[arm.prefix + name] = float(np.mean([(f.predictions == labels.test).mean() for f in fits]))
    return accuracy


def layer_of_phrases(
    found: Encoded, data: phrase_clusters.Spans, seeds: Sequence[int], options: phrase_clusters.Options
) -> Iterator[np.ndarray]:
    """Clusters of the scored spans ``[scored]`` for every arm, sample and seed at one layer."""
    asked = [(i, span) for i, text in enumerate(data.texts) for span in text.spans]
    ends = np.stack([found.ends(text, *span) for text, span in asked])
    several = np.array([span.end - span.start > 1 for span in data.spans])
    for arm in ("", *options.arms):
        for sample in data.samples:
            kept = [[i for i in part if several[i] or arm != "multi_word"] for part in (sample.fit, sample.score)]
            fit, score = (
                phrase_clusters.span_vectors(ends[part], difference=arm != "no_difference", decimals=options.decimals)
                for part in kept
            )
            if options.standardise:
                scaler = StandardScaler().fit(fit)
                fit, score = scaler.transform(fit), scaler.transform(score)
            clusters = len({data.spans[i].label for part in kept for i in part})
            for seed in seeds:
                yield KMeans(clusters, n_init=options.restarts, random_state=seed).fit(fit).predict(score)


@dataclass(frozen=True)
class PlainFit:
    predictions: np.ndarray  #: ``[n_test]``
    dev_accuracy: float
    l2: float
    epochs: int
    evaluations: int


def fit_one(inputs: Inputs, labels: Labels, n_classes: int, recipe: Recipe, seed: int, l2: float) -> PlainFit:
    """One probe: ``nn.Module``, autograd, ``torch.optim.Adam(weight_decay=l2, fused=True)``, a loop over batches."""
    train, dev, test = (torch.as_tensor(x) for x in (inputs.train, inputs.dev, inputs.test))
    targets = torch.as_tensor(labels.train)
    width = train.shape[1]
    order = np.random.RandomState(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if recipe.hidden:
            model = nn.Sequential(
                nn.Linear(width, recipe.hidden),
                nn.Dropout(recipe.dropout),
                nn.Sigmoid(),
                nn.Linear(recipe.hidden, n_classes),
            )
        else:
            model = nn.Sequential(nn.Linear(width, n_classes))
        optimiser = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate, weight_decay=l2, fused=True)
        loss_of = nn.CrossEntropyLoss()
        best, strikes, passes, evaluations, stop = -1.0, 0, 0, 0, False
        kept = copy.deepcopy(model)
        while not stop and (passes <= recipe.max_epoch if recipe.early_stop else evaluations < 1):
            model.train()
            for _ in range(recipe.epoch_size):
                permutation = torch.from_numpy(order.permutation(len(train)))
                for rows in permutation.split(recipe.batch_size):
                    loss = loss_of(model(train[rows]), targets[rows])
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
            passes += recipe.epoch_size
            evaluations += 1
            model.eval()
            with torch.no_grad():
                right = (model(dev).argmax(1).numpy() == labels.dev).mean()
            if right > best:
                best, kept = float(right), copy.deepcopy(model)
            elif recipe.early_stop:
                stop = strikes >= recipe.tenacity
                strikes += 1
        kept.eval()
        with torch.no_grad():
            predictions = kept(test).argmax(1).numpy()
    return PlainFit(predictions, best, l2, passes, evaluations)


def fit_grid(inputs: Inputs, labels: Labels, n_classes: int, recipe: Recipe, seed: int) -> PlainFit:
    """One probe for each weight decay; the best on dev, the first of equals (two decimals of a percentage decide)."""
    fits = [fit_one(inputs, labels, n_classes, recipe, seed, l2) for l2 in recipe.l2]
    return fits[int(np.argmax([round(100 * f.dev_accuracy, 2) for f in fits]))]
