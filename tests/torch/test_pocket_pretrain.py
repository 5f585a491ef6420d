"""Pretraining the pocket models: every objective learns, a seed decides everything, figures mean what they say."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import islice, repeat

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clipstudy.errors import ModelError
from clipstudy.pocket.images.scenes import rerender
from clipstudy.pocket.text import wordlist
from clipstudy.pocket.training import batches, evaluation, models, objectives
from clipstudy.pocket.training.pretrain import PICTURES, RECIPES, RECORD, TEXT, Recipe, pretrain, train

SHORT = Recipe(steps=15, batch=16, rate=3e-3, warm_up=3)


@pytest.mark.parametrize("name", models.MODELS)
def test_fifteen_steps_lower_the_loss(name, monkeypatch):
    """On one batch over and over: what a model could learn of new ones in so few steps, chance would hide."""
    lines, scenes = next(batches.line_batches(0, 16)), next(batches.scene_batches(0, 16))
    monkeypatch.setattr(batches, "line_batches", lambda *_: repeat(lines))
    told = next(batches.captioned(iter([scenes]), 0))
    monkeypatch.setattr(batches, "scene_batches", lambda *_: repeat(scenes))
    monkeypatch.setattr(batches, "captioned", lambda *_: repeat(told))
    monkeypatch.setattr(objectives.Pairs, "again", lambda _, first: rerender(np.random.default_rng(0), first))
    curve = train(name, models.build(name), SHORT)
    assert [step for step, _ in curve] == list(range(1, 16))
    losses = [loss for _, loss in curve]
    assert min(losses[-3:]) < losses[0] - 0.3


@pytest.mark.parametrize("name", ["bert", "clip-vit", "vit-pairs"])
def test_a_seed_decides_everything(name, tmp_path):
    folders = [tmp_path / label for label in ("one", "same", "other")]
    for folder, seed in zip(folders, (0, 0, 1), strict=True):
        torch.manual_seed(len(folder.name))  # whatever was drawn before does not matter
        pretrain(name, folder, steps=3, seed=seed, held=48)
    one, same, other = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders)
    assert one == same
    (weights,) = (file for file in one if file.endswith(".safetensors"))
    assert one[weights] != other[weights]


def test_pretraining_leaves_a_checkpoint_and_a_record_and_tells_how_far_it_is(tmp_path):
    told = []
    done = pretrain("gpt2", tmp_path, steps=5, seed=0, held=48, progress=lambda *x: told.append(x))
    assert told == [("gpt2", step, 5) for step in range(1, 6)]
    record = json.loads((tmp_path / RECORD).read_text())
    assert record["curve"] == [list(point) for point in done.curve] and len(done.curve) == 5
    assert record["figures"] == done.figures and record["untrained"] == done.untrained
    assert "seconds" not in record and done.seconds > 0
    # What is written is what is measured.
    assert done.figures == evaluation.figures("gpt2", models.load("gpt2", tmp_path), held=48)
    assert done.figures["perplexity"] < done.untrained["perplexity"]
    assert 10 < done.floors["grammar"] < done.floors["unigram"] < done.untrained["perplexity"]


def test_a_loss_that_is_no_number_is_said(monkeypatch):
    monkeypatch.setattr(objectives.Classes, "losses", lambda self: repeat(self.model.fc.weight.sum() * math.nan))
    with pytest.raises(ModelError, match=r"resnet: the loss is nan by step 1\."):
        train("resnet", models.build("resnet"), replace(SHORT, steps=1))


def test_twins_share_their_recipe_and_their_data():
    assert RECIPES["bert"] is RECIPES["gpt2"] is TEXT
    assert {RECIPES[name] for name, model in models.MODELS.items() if model.sees} == {PICTURES}
    one, same = (list(islice(batches.line_batches(5, 8), 20)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    scenes = next(batches.scene_batches(5, 128))
    assert scenes == next(batches.scene_batches(5, 128)) != next(batches.scene_batches(batches.HELD_OUT + 5, 128))


def test_the_rate_rises_once_and_falls_to_nothing():
    rates = [TEXT.rate_at(step) for step in range(TEXT.steps)]
    assert rates.index(max(rates)) in (TEXT.warm_up - 1, TEXT.warm_up) and max(rates) == TEXT.rate
    assert rates[0] == TEXT.rate / TEXT.warm_up and rates[-1] < TEXT.rate * 1e-5
    assert all(a >= b for a, b in zip(rates[TEXT.warm_up :], rates[TEXT.warm_up + 1 :], strict=False))
    assert Recipe(1, 1).rate_at(0) == TEXT.rate


def test_lines_are_of_about_one_length_and_fit_into_every_model():
    lines = list(islice(batches.line_batches(0, 32), 32))
    assert sum(int((ids == 0).sum()) for ids in lines) / sum(ids.numel() for ids in lines) < 0.08
    longest = max(ids.shape[1] for ids in lines)
    assert 32 < longest <= models.TEXT["context"]  # beyond one sentence: two are sometimes joined
    known = wordlist.numbers()
    for ids in lines:
        assert (ids[:, 0] == known[wordlist.START]).all()
        assert ((ids == known[wordlist.END]).sum(dim=1) == 1).all()
        assert not (ids == known[wordlist.UNKNOWN]).any()


def test_a_fifth_of_the_words_is_asked_for_and_most_of_those_are_hidden():
    ids, draw = batches.padded([list(range(3, 1003))] * 20), torch.Generator().manual_seed(0)
    asked = objectives.to_guess(ids, draw)
    seen = objectives.corrupted(ids, asked, draw)
    words = asked[:, 1:].float().mean().item()
    assert words == pytest.approx(objectives.MASKED, abs=0.01) and not asked[:, 0].any()
    assert torch.equal(seen[~asked], ids[~asked])
    hidden = (seen[asked] == wordlist.numbers()[wordlist.MASK]).float().mean().item()
    kept = (seen[asked] == ids[asked]).float().mean().item()
    assert hidden == pytest.approx(0.8, abs=0.02) and kept == pytest.approx(0.1, abs=0.02)


def test_equal_captions_are_right_answers_for_one_another():
    ids = torch.tensor([[3, 5, 9], [3, 6, 9], [3, 5, 9]])
    same = objectives.same_lines(ids)
    assert same.int().tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    vectors = F.normalize(torch.tensor([[1.0, 0], [0, 1.0], [1.0, 0]]), dim=1)
    # Two right answers share the target, so the best loss is ln 2 for two of three rows.
    assert objectives.info_nce(vectors, vectors, 50.0, same).item() == pytest.approx(2 / 3 * math.log(2), abs=1e-4)


def test_pairs_find_one_another_among_all():
    vectors = F.normalize(torch.eye(4).repeat(2, 1), dim=1)
    others = 6 * math.exp(-1 / objectives.TEMPERATURE)
    assert objectives.nt_xent(vectors).item() == pytest.approx(math.log(1 + others), rel=1e-3)
    wrong = torch.cat([vectors[:4], vectors[:4].roll(1, dims=0)])
    assert objectives.nt_xent(wrong).item() > 1 / objectives.TEMPERATURE


def test_captions_read_in_parts_are_read_the_same():
    model = models.build("clip-vit").eval()
    _, captions = next(batches.captioned(batches.scene_batches(0, 32), 0))
    ids = batches.caption_ids(captions)
    with torch.no_grad():
        whole, parts = models.encode_text(model, ids), objectives.read_captions(model, ids)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-4)


def test_a_perfect_model_of_pictures_gets_full_marks(monkeypatch):
    """Figures are measured from vectors alone: with the classes themselves as vectors, all but names are certain."""
    held, model = 100, models.build("resnet")
    monkeypatch.setattr(
        evaluation, "_vectors", lambda _name, _model, of: F.one_hot(batches.fine_labels(of), 100).float()
    )
    monkeypatch.setattr(model, "get_classifier", lambda: torch.nn.Identity())
    assert evaluation.figures("resnet", model, held) == {"top_1": 1.0, "top_1_shape": 1.0, "k_nn": 1.0}


def test_an_untrained_clip_is_at_chance():
    found = evaluation.figures("clip-vit", models.build("clip-vit"), held=256)
    assert found["retrieval"] < 0.03 and found["zero_shot"] < 0.05 and found["k_nn"] < 0.1
    assert 0.3 < found["true_over_twin"] < 0.7
