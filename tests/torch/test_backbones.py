"""One contract for every text model, whatever library it comes from."""

from __future__ import annotations

import os
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertTokenizer,
    CLIPTextModel,
    GPT2Config,
    GPT2Tokenizer,
)

from benchmarks.extraction import MINILM
from benchmarks.study import go, groups
from clipstudy import backbones, run
from clipstudy.backbones import open_clip_text, tokenizing
from clipstudy.backbones.wordpieces import WordPieces, lead_of
from clipstudy.data import conll2000
from clipstudy.errors import ModelError
from clipstudy.spec import DatasetSpec, ModelSpec
from tests.torch import checkpoints

TEXTS = [["the", "cat", "sat", "."], ["cats"], ["the", "unseen", "cat", ",", "sitting", "!"]]


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: build(root / name) for name, build in checkpoints.BUILDERS.items()}


@pytest.fixture(scope="module")
def loaded(samples):
    return {name: backbones.load(sample.spec, "cpu") for name, sample in samples.items()}


@pytest.fixture(params=list(checkpoints.BUILDERS))
def name(request):
    return request.param


def padded(pieces, filler=0):
    longest = max(len(p.ids) for p in pieces)
    ids = torch.full((len(pieces), longest), filler)
    mask = torch.zeros(len(pieces), longest, dtype=torch.bool)
    for row, p in enumerate(pieces):
        ids[row, : len(p.ids)], mask[row, : len(p.ids)] = torch.tensor(p.ids), True
    return ids, mask


def alone(backbone, words, layers=None):
    (pieces,) = backbone.pieces([words])
    layers = range(backbone.depth + 1) if layers is None else layers
    return backbone.states(*padded([pieces]), layers), pieces


def library(sample, ids):
    """The library's own states: embedding, each block, and the last after the final norm."""
    if sample.spec.source == "open_clip":
        model = open_clip.create_model(sample.spec.checkpoint).eval()
        tower = getattr(model, "text", model)
        whole = torch.zeros(1, tower.context_length, dtype=torch.long)  # all positions, as open_clip computes them
        whole[:, : ids.shape[1]] = ids
        with torch.no_grad():
            embedded = tower.token_embedding(whole) + tower.positional_embedding
            out = model.forward_intermediates(text=whole, intermediates_only=True)["text_intermediates"]
            last = tower.ln_final(out[-1])
        return [x[:, : ids.shape[1]] for x in (embedded, *out, last)]
    kind = CLIPTextModel if sample.spec.tower else AutoModel
    model = kind.from_pretrained(sample.spec.checkpoint).eval()
    with torch.no_grad():
        out = model(input_ids=ids, output_hidden_states=True)
    return [*out.hidden_states, out.last_hidden_state]


def test_layers_are_what_the_library_says(samples, loaded, name):
    backbone, sample = loaded[name], samples[name]
    states, pieces = alone(backbone, TEXTS[2])
    theirs = library(sample, torch.tensor([pieces.ids]))
    assert backbone.depth == sample.spec.layers and backbone.native == sample.native
    assert sorted(states) == list(range(backbone.depth + 1))
    # These models' own last hidden state is after their final norm, so that is what must lie between it and ours.
    norm = {"gpt2": "ln_f", "llama": "norm", "modernbert": "final_norm"}.get(name)
    compared = backbone.depth if norm else backbone.depth + 1
    for layer in range(compared):
        assert states[layer].shape == (1, len(pieces.ids), backbone.width)
        torch.testing.assert_close(states[layer], theirs[layer], atol=1e-5, rtol=1e-4)
    if norm:
        model = AutoModel.from_pretrained(sample.spec.checkpoint).eval()
        with torch.no_grad():
            normed = getattr(model, norm)(states[backbone.depth])
        torch.testing.assert_close(normed, theirs[-1], atol=1e-5, rtol=1e-4)
        assert not torch.allclose(states[backbone.depth], theirs[-1], atol=1e-2)


def test_final_norm_is_applied_to_the_last_layer_alone(samples, loaded, name):
    normed = backbones.load(replace(samples[name].spec, final_norm=True), "cpu")
    states, pieces = alone(normed, TEXTS[0])
    raw, _ = alone(loaded[name], TEXTS[0])
    last = library(samples[name], torch.tensor([pieces.ids]))[-1]
    torch.testing.assert_close(states[normed.depth], last, atol=1e-5, rtol=1e-4)
    for layer in range(normed.depth):
        assert torch.equal(states[layer], raw[layer])
    assert normed.resolved != loaded[name].resolved


def test_one_pass_gives_what_each_layer_gives_alone(loaded, name):
    together, _ = alone(loaded[name], TEXTS[2])
    for layer, states in together.items():
        by_itself, _ = alone(loaded[name], TEXTS[2], [layer])
        assert list(by_itself) == [layer] and torch.equal(by_itself[layer], states)


def test_padding_changes_nothing(loaded, name):
    backbone = loaded[name]
    pieces = backbone.pieces(TEXTS)
    layers = range(backbone.depth + 1)
    batch = backbone.states(*padded(pieces, filler=7), layers)
    for row, (words, p) in enumerate(zip(TEXTS, pieces, strict=True)):
        single, _ = alone(backbone, words)
        for layer in layers:
            torch.testing.assert_close(batch[layer][row, : len(p.ids)], single[layer][0], atol=1e-5, rtol=1e-4)


def test_pieces_belong_to_their_words(samples, loaded, name):
    sample = samples[name]
    for words, pieces in zip(TEXTS, loaded[name].pieces(TEXTS), strict=True):
        owners = list(pieces.words)
        inner = owners[sample.front : len(owners) - sample.back]
        assert owners[: sample.front] == [None] * sample.front
        assert owners[len(owners) - sample.back :] == [None] * sample.back
        assert inner == sorted(inner) and set(inner) == set(range(len(words)))
        assert len(pieces.ids) == len(owners) and not pieces.truncated


def test_pieces_are_those_of_the_whole_text(samples, loaded, name):
    """Word by word gives what the library's tokenizer gives for the text, a BOS apart."""
    sample = samples[name]
    for words, pieces in zip(TEXTS, loaded[name].pieces(TEXTS), strict=True):
        if sample.spec.source == "open_clip":
            whole = open_clip.SimpleTokenizer().encode(" ".join(words))
            assert list(pieces.ids[1:-1]) == whole
        else:
            whole = AutoTokenizer.from_pretrained(sample.spec.checkpoint)(" ".join(words), padding=False)["input_ids"]
            assert list(pieces.ids[1:] if sample.native == "last" else pieces.ids) == list(whole)


def test_long_texts_are_cut_and_keep_their_closing_token(samples, loaded, name):
    backbone, sample = loaded[name], samples[name]
    short = backbones.load(replace(sample.spec, max_tokens=8), "cpu")
    assert short.limit == 8 and short.resolved != backbone.resolved
    (whole,) = backbone.pieces([["the"] * 6])
    (cut,) = short.pieces([["the"] * 30])
    assert len(cut.ids) == 8 and cut.truncated
    assert cut.ids[: sample.front] == whole.ids[: sample.front]
    if sample.back:
        assert cut.ids[-1] == whole.ids[-1] and cut.words[-1] is None
    # the model's own limit: a text of that many tokens must run, and no more are let in
    (full,) = backbone.pieces([["the"] * (backbone.limit + 5)])
    assert len(full.ids) == backbone.limit
    backbone.states(*padded([full]), [0])


def test_a_word_cut_in_its_middle_is_named(samples):
    backbone = backbones.load(replace(samples["bert"].spec, max_tokens=6), "cpu")
    (pieces,) = backbone.pieces([["the", "cat", "xyzzy"]])  # 2 pieces, then 5 of which 2 fit
    assert pieces.words == (None, 0, 1, 2, 2, None) and pieces.cut == 2
    (whole,) = backbone.pieces([["the", "cat", "xy"]])
    assert whole.cut is None and not whole.truncated


def test_random_init_depends_on_its_seed_alone(samples, name):
    spec = replace(samples[name].spec, init="random", init_seed=3)
    torch.manual_seed(0)
    first = backbones.load(spec, "cpu")
    drawn = torch.rand(3)
    torch.manual_seed(99)
    again = backbones.load(spec, "cpu")
    other = backbones.load(replace(spec, init_seed=4), "cpu")
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(3)), "loading must not draw from the global generator"
    states = [alone(b, TEXTS[0])[0][first.depth] for b in (first, again, other)]
    assert torch.equal(states[0], states[1]) and not torch.allclose(states[0], states[2], atol=1e-2)
    assert first.resolved == again.resolved != other.resolved
    assert first.native == samples[name].native


def test_loading_a_checkpoint_leaves_the_generator_alone(samples, name):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    backbones.load(samples[name].spec, "cpu")
    assert torch.equal(torch.rand(3), expected)


def test_resolved_follows_the_content_of_the_files(samples, loaded, tmp_path):
    moved = checkpoints.gpt2(tmp_path / "elsewhere")
    assert backbones.load(moved.spec, "cpu").resolved == loaded["gpt2"].resolved
    weights = tmp_path / "elsewhere" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert backbones.load(moved.spec, "cpu").resolved != loaded["gpt2"].resolved


def test_bfloat16(samples, loaded, name):
    half = backbones.load(replace(samples[name].spec, dtype="bfloat16"), "cpu")
    states, _ = alone(half, TEXTS[0])
    exact, _ = alone(loaded[name], TEXTS[0])
    assert half.native == samples[name].native and half.resolved != loaded[name].resolved
    for layer, values in states.items():
        assert values.dtype == torch.bfloat16
        scale = exact[layer].abs().max()
        assert (values.float() - exact[layer]).abs().max() < 0.1 * scale


def test_no_gradients(loaded, name):
    states, _ = alone(loaded[name], TEXTS[0])
    assert not any(s.requires_grad or s.is_inference() for s in states.values())


def segments(pieces):
    second = torch.zeros(len(pieces), max(len(p.ids) for p in pieces), dtype=torch.bool)
    for row, p in enumerate(pieces):
        if p.second is not None:
            second[row, p.second : len(p.ids)] = True
    return second


def test_the_last_states_are_the_librarys_after_its_norm(samples, loaded, name):
    backbone = loaded[name]
    (pieces,) = backbone.pieces([TEXTS[2]])
    last = backbone.last(*padded([pieces]), segments([pieces]))
    torch.testing.assert_close(last, library(samples[name], torch.tensor([pieces.ids]))[-1], atol=1e-5, rtol=1e-4)
    assert not last.requires_grad


def test_a_thawed_model_has_gradients_in_every_block(samples, name):
    backbone = backbones.load(samples[name].spec, "cpu")
    backbone.module.requires_grad_(True)
    pieces = backbone.joined([(TEXTS[0], TEXTS[2])], 0)
    last = backbone.last(*padded(pieces), segments(pieces))
    position = pieces[0].summary(backbone.native)
    last[0, position].square().sum().backward()
    for block in backbone._blocks:
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())
    states = backbone.states(*padded(pieces), [backbone.depth])
    assert not states[backbone.depth].requires_grad


def test_joined_texts_are_laid_out_as_the_library_does(samples, loaded, name):
    sample, (one, two) = samples[name], (TEXTS[0][:2], TEXTS[1])
    (joined,) = loaded[name].joined([(one, two)], 0)
    assert [w for w in dict.fromkeys(joined.words) if w is not None] == list(range(len(one) + len(two)))
    assert joined.words[joined.second] == len(one) and joined.cut is None
    if sample.native == "cls":
        tokenizer = AutoTokenizer.from_pretrained(sample.spec.checkpoint)
        theirs = tokenizer(" ".join(one), " ".join(two), padding=False)
        assert list(joined.ids) == theirs["input_ids"]
        types = theirs.get("token_type_ids", [])
        if any(types):
            assert segments([joined])[0].long().tolist() == types
    else:  # a causal model reads on
        (whole,) = loaded[name].pieces([[*one, *two]])
        assert joined.ids == whole.ids and joined.words == whole.words


def test_token_types_reach_the_models_that_have_them(loaded, name):
    pieces = loaded[name].joined([(TEXTS[0][:2], TEXTS[1])], 0)
    typed = loaded[name].last(*padded(pieces), segments(pieces))
    plain = loaded[name].last(*padded(pieces), torch.zeros_like(segments(pieces)))
    assert torch.equal(typed, plain) == (name not in ("bert", "minilm"))


def test_the_limit_cuts_the_other_text(samples, name):
    backbone = backbones.load(replace(samples[name].spec, max_tokens=14), "cpu")
    short, long = ["the", "cat"], ["the"] * 30
    (after,), (before,) = backbone.joined([(short, long)], 0), backbone.joined([(long, short)], 1)
    for joined, kept, cut in ((after, {0, 1}, range(2, 32)), (before, {30, 31}, range(30))):
        assert len(joined.ids) == 14 and kept < set(joined.words) and joined.cut in cut
        assert joined.cut == min(set(cut) - set(joined.words))
    assert before.words[before.second] == 30
    (alone,) = backbone.joined([(long, short)], 0)
    assert alone.cut is not None and alone.cut < 30 and 30 not in alone.words


def test_a_tokenizer_is_read_once_while_its_files_are_the_same(samples, tmp_path):
    spec = samples["bert"].spec
    folder = Path(shutil.copytree(spec.checkpoint, tmp_path / "bert"))
    first = tokenizing.read(folder, spec)
    assert tokenizing.read(folder, spec) is first
    for file in folder.iterdir():
        os.utime(file, ns=(0, 0))
        second = tokenizing.read(folder, spec)
        assert second is not first, file
        first = second


def test_gpt2_puts_bos_first_unless_told_not_to(samples, loaded):
    bare = backbones.load(replace(samples["gpt2"].spec, bos=False), "cpu")
    (with_bos,), (without,) = loaded["gpt2"].pieces([TEXTS[0]]), bare.pieces([TEXTS[0]])
    assert with_bos.ids[1:] == without.ids and with_bos.words[0] is None and without.words[0] == 0
    assert bare.resolved != loaded["gpt2"].resolved
    (empty,) = bare.pieces([[]])
    assert len(empty.ids) == 1 and empty.own == (0,)
    alone(bare, [])


def test_the_native_view_can_be_overridden(samples):
    assert backbones.load(replace(samples["bert"].spec, view="last"), "cpu").native == "last"


def test_summaries_read_the_token_that_the_model_pools(samples, loaded):
    """CLIP's pooled output is its final norm of the token that ``eot`` names, in both libraries."""
    (pieces,) = loaded["clip"].pieces([TEXTS[2]])
    model = CLIPTextModel.from_pretrained(samples["clip"].spec.checkpoint).eval()
    with torch.no_grad():
        out = model(input_ids=torch.tensor([pieces.ids]))
    torch.testing.assert_close(out.pooler_output[0], out.last_hidden_state[0, pieces.summary("eot")])

    normed = backbones.load(replace(samples["open_clip"].spec, final_norm=True), "cpu")
    model = open_clip.create_model(samples["open_clip"].spec.checkpoint).eval()
    states, pieces = alone(normed, TEXTS[2])
    with torch.no_grad():
        theirs = model.encode_text(open_clip.SimpleTokenizer()(" ".join(TEXTS[2]), context_length=24))
    mine = states[normed.depth][0, pieces.summary("eot")] @ model.text_projection
    torch.testing.assert_close(mine, theirs[0], atol=1e-5, rtol=1e-4)


def test_a_tower_that_reads_its_padding_gets_it(tmp_path):
    """SigLIP's text tower has no mask and pools the last position, padding or not."""
    text = {"no_causal_mask": True, "pool_type": "last", "proj_bias": True, "pad_id": 0}
    sample = checkpoints.open_clip_text(tmp_path / "siglip", custom=True, **text)
    backbone = backbones.load(replace(sample.spec, final_norm=True), "cpu")
    states, pieces = alone(backbone, TEXTS[0])
    assert backbone.native == "eot" and len(pieces.ids) == 24 and pieces.summary("eot") == 23
    assert len(pieces.own) == len(set(pieces.words) - {None})
    model = open_clip.create_model(sample.spec.checkpoint).eval()
    with torch.no_grad():
        theirs = model.encode_text(open_clip.SimpleTokenizer()(" ".join(TEXTS[0]), context_length=24))
        mine = model.text.text_projection(states[3][:, pieces.summary("eot")])
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("closing", [(), (1,), (2,), (2, 1)])
def test_what_closes_a_text_may_be_the_padding(closing):
    """As in SigLIP and CLIPA: a short text cannot tell them apart, and one that is cut ends in it all the same."""

    class Tokenizer:
        clean_fn = staticmethod(str.strip)

        @staticmethod
        def tokenizer(texts, **_):
            return {"input_ids": [[5] * len(text.split()) for text in texts]}

        def __call__(self, texts):
            rows = [[7, *[5] * len(text.split())][: 8 - len(closing)] for text in texts]
            return torch.tensor([[*row, *closing, *[1] * 8][:8] for row in rows])

    assert open_clip_text._frame(Tokenizer()) == ((7,), closing, 1)


@pytest.mark.parametrize("pool", ["last", "argmax"])  # SigLIP, MobileCLIP
def test_a_lower_limit_takes_no_padding_from_a_tower_that_reads_it(tmp_path, pool):
    sample = checkpoints.open_clip_text(tmp_path / "tower", custom=True, no_causal_mask=True, pool_type=pool)
    whole, short = (backbones.load(replace(sample.spec, max_tokens=most), "cpu") for most in (None, 12))
    (states, pieces), (shorter, same) = alone(whole, TEXTS[0]), alone(short, TEXTS[0])
    assert pieces == same and short.limit == 12 and whole.resolved != short.resolved
    torch.testing.assert_close(shorter[3], states[3], atol=1e-6, rtol=1e-5)
    (cut,) = short.pieces([["the", "cat"] * 20])
    assert cut.truncated and len(cut.own) == 10 and len(cut.ids) == (24 if pool == "last" else 12)


@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=6), max_size=5))
def test_any_words_align(samples, loaded, words):
    """Byte-level pieces spell exactly their words; every tokenizer keeps order and ownership."""
    for name in ("gpt2", "bert", "clip", "open_clip"):
        (pieces,) = loaded[name].pieces([words])
        owners = [w for w in pieces.words if w is not None]
        assert owners == sorted(owners) and set(owners) <= set(range(len(words)))
        assert len(pieces.ids) == len(pieces.words) <= loaded[name].limit
        letters = {i for i, word in enumerate(words) if any(c in checkpoints.LETTERS for c in word)}
        assert {i for i in letters if pieces.cut is None or i < pieces.cut} <= set(owners)
    tokenizer = AutoTokenizer.from_pretrained(samples["gpt2"].spec.checkpoint)
    (pieces,) = loaded["gpt2"].pieces([words])
    whole = len(words) if pieces.cut is None else pieces.cut
    for index in range(whole):
        ids = [i for i, owner in zip(pieces.ids, pieces.words, strict=True) if owner == index]
        spelled = b"".join(_bytes(tokenizer, i) for i in ids).decode()
        assert spelled == ("" if index == 0 else " ") + words[index]


def _bytes(tokenizer, token_id):
    token = tokenizer.convert_ids_to_tokens(token_id)
    known = open_clip.tokenizer.bytes_to_unicode()
    return bytes({c: b for b, c in known.items()}[c] for c in token)


def test_special_tokens_spelled_in_a_text_are_text(loaded):
    for name, spelled in (("bert", "[SEP]"), ("gpt2", "<|endoftext|>"), ("clip", "<|endoftext|>")):
        (pieces,) = loaded[name].pieces([["the", spelled, "cat"]])
        (framed,) = loaded[name].pieces([["the"]])
        special = {i for i, word in zip(framed.ids, framed.words, strict=True) if word is None}
        assert not special & {i for i, word in zip(pieces.ids, pieces.words, strict=True) if word is not None}


def _sentences(real):
    """Every sentence of CoNLL-2000, 8,936 + 2,012."""
    for split in ("train", "test"):
        spec = DatasetSpec("conll2000", "conll2000", path=str(real / "conll2000"))
        yield from (list(sentence.words) for sentence in conll2000.read(spec, split).sentences)


@pytest.mark.real
@pytest.mark.parametrize("kind", ["bert-base-uncased", "gpt2"])
def test_pieces_lie_where_the_tokenizers_offsets_say(kind, tmp_path, real):
    folder = real / "tokenizers" / kind
    if kind == "gpt2":
        tokenizer = GPT2Tokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
        config = GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1)
    else:
        (tmp_path / "vocab.txt").write_bytes((folder / "vocab.txt").read_bytes())
        tokenizer = BertTokenizer.from_pretrained(tmp_path)
        config = BertConfig(
            vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
        )
    config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    backbone = backbones.load(ModelSpec(kind, "transformers", str(tmp_path), 1, init="random"), "cpu")
    sentences = list(_sentences(real))
    assert len(sentences) == 8936 + 2012
    theirs = tokenizer([" ".join(words) for words in sentences], return_offsets_mapping=True, add_special_tokens=False)
    for words, pieces, ids, offsets in zip(
        sentences, backbone.pieces(sentences), theirs["input_ids"], theirs["offset_mapping"], strict=True
    ):
        own = [(id_, word) for id_, word in zip(pieces.ids, pieces.words, strict=True) if word is not None]
        assert [id_ for id_, _ in own] == ids
        # The word of each character; a blank belongs to the word after it, as in byte-level pieces.
        word_at = [i for i, word in enumerate(words) for _ in range(len(word) + (i > 0))]
        assert [word for _, word in own] == [word_at[end - 1] for _, end in offsets]
        assert all(word_at[start] in (word_at[end - 1], word_at[end - 1] - 1) for start, end in offsets)


@pytest.mark.real
def test_clips_pieces_spell_the_words_that_they_belong_to(tmp_path, real):
    """open_clip's tokenizer knows no offsets: here each word is spelled from its pieces instead."""
    backbone = backbones.load(checkpoints.open_clip_text(tmp_path / "clip", context_length=200).spec, "cpu")
    tokenizer = open_clip.SimpleTokenizer()
    sentences = list(_sentences(real))
    longer = []
    for number, (words, pieces) in enumerate(zip(sentences, backbone.pieces(sentences), strict=True)):
        own = [(id_, word) for id_, word in zip(pieces.ids, pieces.words, strict=True) if word is not None]
        whole = tokenizer.encode(" ".join(words))
        assert [id_ for id_, _ in own] == whole
        if number < 8936 and len(whole) + 2 > 77:
            longer.append(number)
        spelled = [b""] * len(words)
        for id_, word in own:
            piece = tokenizer.decoder[id_].removesuffix("</w>")
            spelled[word] += bytes(tokenizer.byte_decoder[character] for character in piece)
        assert [word.decode() for word in spelled] == [tokenizer.clean_fn(word) for word in words]
    # What tasks.toml leaves out of the train split for all models alike.
    declared = tomllib.loads((Path(__file__).parents[2] / "tasks.toml").read_text(encoding="utf-8"))
    assert longer == declared["datasets"]["conll2000"]["exclude"]["train"] and len(longer) == 40


@pytest.mark.real
@pytest.mark.usefixtures("real")
def test_bfloat16_costs_a_probe_no_accuracy():
    """Trained weights on real rows: at every layer the same accuracy but for what the draw of seeds makes of it."""
    group = groups(MINILM, 300)[4]  # subj_number
    group = replace(group, task=replace(group.task, options={"max_epoch": 30, "draws": 10, "control": False}))
    accuracies = {}
    for dtype in ("float32", "bfloat16"):
        one = replace(group, model=replace(group.model, dtype=dtype))
        accuracies[dtype] = [outcome.metrics["accuracy"].value for _, outcome in go(one, run.Shelf("cpu"), None)]
    apart = [abs(exact - half) for exact, half in zip(*accuracies.values(), strict=True)]
    assert max(accuracies["float32"]) > 0.6, "there is something to be lost"
    assert sum(apart) / len(apart) < 0.02 and max(apart) < 0.05, apart


def test_an_unknown_source_says_what_exists():
    with pytest.raises(
        ModelError, match=r'Did you mean "open_clip"\? What exists: open_clip, timm, torch, transformers'
    ):
        backbones.load(ModelSpec("m", "openclip", "x", 1), "cpu")


def test_a_word_inside_a_text_keeps_its_mark_where_the_tokenizer_cleans_texts():
    """As SigLIP 2's does: SentencePiece's mark of a word's beginning, after a cleaning that strips blanks."""

    def encode(texts, **_):
        marked = [text.replace(" ", " ▁").split(" ") for text in texts]
        return {"input_ids": [[hash(piece) for piece in pieces if piece] for pieces in marked]}

    cleaning = SimpleNamespace(clean_fn=lambda text: " ".join(text.lower().split()), tokenizer=encode)
    own = open_clip_text._encoder(cleaning)
    assert lead_of(own) == " "
    (whole,) = own(["The dog runs"])
    assert [*own(["The"])[0], *own([" dog"])[0], *own([" runs"])[0]] == whole
    assert own(["  "]) == [[]]


@pytest.mark.parametrize("text", ['" Hello there', "( - Hello , there )", "Hello - there", '"', '" -', "Hello"])
def test_a_text_begins_where_its_pieces_do(text):
    """SigLIP 2's cleaning leaves nothing of punctuation: what then comes first is spelled as the first word."""

    def encode(texts):
        clean = [" ".join("".join(c for c in text if c not in '"-(),').split()) for text in texts]
        marked = [" " * text[:1].isspace() + own if own else "" for text, own in zip(texts, clean, strict=True)]
        return [[hash(piece) for piece in text.replace(" ", " ▁").split(" ") if piece] for text in marked]

    assert lead_of(encode) == " "
    words = WordPieces(encode, (), (), 50, 0, lead=" ")
    (whole,) = encode([text])
    for _ in range(2):  # also of words that are known
        (found,) = words.pieces([tuple(text.split())])
        assert list(found.ids) == (whole or [0])
    (joined,) = words.joined([(tuple(text.split()), ("a",))], 0)
    assert list(joined.ids) == whole + encode([" a"])[0]
