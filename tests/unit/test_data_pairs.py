"""Readers of BoolQ and WiC: their layouts, what they say of bad rows, and where the development part comes from."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipstudy.data import COLUMNS, boolq, pairs, wic
from clipstudy.data.pairs import Pair
from clipstudy.errors import DataError
from clipstudy.metrics import majority
from clipstudy.spec import DatasetSpec

ASKED = {"question": "is it  so", "title": "So", "answer": True, "passage": "It is\nso ."}
PLACE = {
    "word": "place", "sentence1": "Come over to my place?", "sentence2": "No places  here.", "label": False, "idx": 9,
    "start1": 16, "end1": 21, "start2": 3, "end2": 9, "version": 1.1,
}  # fmt: skip
WIC = "place\tN\t4-1\tCome over to my place ?\tNo places here .\ncarry\tV\t2-1\tYou must carry it .\tSound carries .\n"


def jsonl(path: Path, rows: Sequence[Mapping[str, Any] | str]) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return path


def spec(reader: str, folder: Path, **more: Any) -> DatasetSpec:
    return DatasetSpec("d", reader, path=str(folder), **more)


def released(folder: Path, data: str = WIC, gold: str = "F\nT\n", split: str = "train") -> DatasetSpec:
    (folder / split).mkdir()
    (folder / split / f"{split}.data.txt").write_text(data, encoding="utf-8")
    (folder / split / f"{split}.gold.txt").write_text(gold)
    return spec("wic", folder)


def hub(monkeypatch: pytest.MonkeyPatch, folder: Path, split: str, columns: Mapping[str, list[Any]]) -> None:
    """A Hub repository with one parquet table, whose labels are class numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {str: "string", int: "int32", bool: "bool"}
    features: dict[str, Any] = {
        name: {"dtype": kinds[type(values[0])], "_type": "Value"} for name, values in columns.items()
    }
    if "label" in columns:
        features["label"] = {"names": ["False", "True"], "_type": "ClassLabel"}
    told = json.dumps({"info": {"features": features}})
    path = folder / "commit" / "x" / f"{split}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)).replace_schema_metadata({"huggingface": told}), path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **more: str(folder / "commit"))


class TestBoolQ:
    def test_both_spellings(self, tmp_path: Path) -> None:
        jsonl(tmp_path / "dev.jsonl", [ASKED, ""])
        jsonl(tmp_path / "val.jsonl", [{"question": "is it so", "passage": "It is so .", "idx": 0, "label": True}])
        one = boolq.released(spec("boolq", tmp_path), "dev")
        other = boolq.released(spec("boolq", tmp_path, splits={"dev": "val"}), "dev")
        assert one.pairs == other.pairs == (Pair("dev/0", ("is", "it", "so"), ("It", "is", "so", "."), "True"),)
        assert one.fingerprint != other.fingerprint and other.source.endswith("val.jsonl")

    @pytest.mark.parametrize(
        ("row", "says"),
        [
            ('{"question": ', "dev.jsonl:2: not JSON (Expecting value"),
            ("[" * 100_000, "dev.jsonl:2: not JSON"),
            ("[1]", "dev.jsonl:2: found [1], expected an object"),
            ({"passage": "p", "answer": True}, "dev.jsonl:2: no question"),
            ({**ASKED, "passage": " "}, "passage is ' ', expected a text"),
            ({**ASKED, "passage": 3}, "passage is 3, expected a text"),
            ({**ASKED, "answer": "maybe"}, "answer is 'maybe', expected true or false"),
            ({**ASKED, "answer": None}, "answer is None, expected true or false"),
            ({**ASKED, "answer": [True]}, "answer is [True], expected"),
            ({**ASKED, "answer": -1}, "answer is -1, expected"),
            (
                {"question": "q", "passage": "p", "idx": 0},
                "no answer or label: the labels of test splits are not public",
            ),
        ],
    )
    def test_malformed_row_is_named(self, tmp_path: Path, row: Any, says: str) -> None:
        jsonl(tmp_path / "dev.jsonl", [ASKED, row])
        with pytest.raises(DataError) as error:
            boolq.released(spec("boolq", tmp_path), "dev")
        assert says in error.value.message and "Fix" in error.value.message

    def test_missing_split_says_what_exists_and_what_to_type(self, tmp_path: Path) -> None:
        jsonl(tmp_path / "val.jsonl", [ASKED])
        with pytest.raises(DataError, match=r"has no dev\.jsonl\. .*What exists: val\.jsonl\. Name one: splits = "):
            boolq.released(spec("boolq", tmp_path), "dev")
        with pytest.raises(DataError, match="is one file, but each split has its own"):
            boolq.released(spec("boolq", tmp_path / "val.jsonl"), "dev")

    def test_empty_split(self, tmp_path: Path) -> None:
        jsonl(tmp_path / "dev.jsonl", [])
        with pytest.raises(DataError, match=r'split "dev" of .* is empty'):
            boolq.released(spec("boolq", tmp_path), "dev")

    @pytest.mark.parametrize("column", ["answer", "label"])
    def test_hub(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, column: str) -> None:
        answers = [True, False] if column == "answer" else [1, 0]
        hub(monkeypatch, tmp_path, "validation", {"question": ["q"] * 2, "passage": ["a b"] * 2, column: answers})
        keys: dict[str, Any] = {"splits": {"dev": "validation"}, "columns": {"label": column}}
        found = boolq.released(DatasetSpec("d", "boolq", hub="org/boolq", **keys), "dev")
        assert [(p.id, p.second, p.label) for p in found.pairs] == [
            ("dev/0", ("a", "b"), "True"), ("dev/1", ("a", "b"), "False"),
        ]  # fmt: skip
        assert found.source == "org/boolq@commit"

    def test_hub_row_is_named(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        hub(monkeypatch, tmp_path, "dev", {"question": ["q", ""], "passage": ["p", "p"], "label": [1, 0]})
        with pytest.raises(
            DataError, match=r'org/boolq@commit, split "dev", row 1 \(from 0\): question is .., expected'
        ):
            boolq.released(DatasetSpec("d", "boolq", hub="org/boolq"), "dev")
        hub(monkeypatch, tmp_path, "dev", {"question": ["q", "q"], "passage": ["p", "p"], "label": [1, -1]})
        with pytest.raises(DataError, match=r"row 1 .*label is absent or hidden"):
            boolq.released(DatasetSpec("d", "boolq", hub="org/boolq"), "dev")

    @pytest.mark.real
    def test_real_counts(self, real: Path) -> None:
        """3,270 and 62.17: the published size and majority of dev."""
        folder = real / "boolq"
        plain = boolq.released(spec("boolq", folder), "dev")
        superglue = boolq.released(spec("boolq", folder, splits={"dev": "superglue_val"}), "dev")
        assert len(plain.pairs) == 3270
        assert round(100 * majority([p.label for p in plain.pairs]), 2) == 62.17
        for one, other in zip(plain.pairs, superglue.pairs, strict=True):
            assert (one.id, one.first, one.label) == (other.id, other.first, other.label)
            assert other.second[-len(one.second) :] == one.second and "--" in other.second  # a title stands before it
        with pytest.raises(DataError, match="not public"):
            boolq.released(spec("boolq", folder, splits={"dev": "superglue_test"}), "dev")

    @pytest.mark.real
    def test_real_cut(self, real: Path) -> None:
        found = boolq.read(spec("boolq", real / "boolq", splits={"train": "dev_split_train", "dev": "dev_split_val"}))
        assert (len(found.train) + len(found.development), len(found.reported)) == (2616, 654)
        assert Counter(p.label for p in found.development) == {"True": 162, "False": 100}
        assert not {p.second for p in found.train} & {p.second for p in found.development}


class TestWiC:
    def test_released(self, tmp_path: Path) -> None:
        found = wic.released(released(tmp_path), "train")
        first, second = found.pairs
        assert first == Pair(
            "train/0",
            ("Come", "over", "to", "my", "place", "?"),
            ("No", "places", "here", "."),
            "False",
            "place",
            (4, 1),
        )
        assert (second.word, second.marked, second.label, second.id) == ("carry", (2, 1), "True", "train/1")

    def test_gold_is_part_of_the_fingerprint(self, tmp_path: Path) -> None:
        one = wic.released(released(tmp_path), "train")
        (tmp_path / "train" / "train.gold.txt").write_text("T\nT\n")
        assert wic.released(spec("wic", tmp_path), "train").fingerprint != one.fingerprint

    def test_files_may_lie_in_one_folder(self, tmp_path: Path) -> None:
        released(tmp_path)
        for file in (tmp_path / "train").iterdir():
            file.rename(tmp_path / file.name)
        assert len(wic.released(spec("wic", tmp_path), "train").pairs) == 2

    def test_superglue_marks_are_words(self, tmp_path: Path) -> None:
        """The same words at the same places as in the release, though it writes the question mark apart."""
        jsonl(tmp_path / "train.jsonl", [PLACE])
        (found,) = wic.released(spec("wic", tmp_path), "train").pairs
        assert found.first == ("Come", "over", "to", "my", "place", "?")
        assert (found.second, found.marked, found.label) == (("No", "places", "here."), (4, 1), "False")

    def test_hub(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        hub(monkeypatch, tmp_path, "train", {c: [0 if c == "label" else PLACE[c]] for c in COLUMNS["wic"]})
        (found,) = wic.released(DatasetSpec("d", "wic", hub="org/superglue", config="x"), "train").pairs
        assert (found.word, found.marked, found.label, found.id) == ("place", (4, 1), "False", "train/0")

    def test_other_white_space_moves_no_mark(self, tmp_path: Path) -> None:
        """Two rows of the real train split hold no-break spaces; positions count plain spaces."""
        (found,) = wic.released(
            released(tmp_path, "he\tN\t3-0\tIt . \u00a0\u00a0 He .\u00a0\tHe  is\n", "T\n"), "train"
        ).pairs
        assert (found.first, found.second, found.marked) == (("It", ".", "He", "."), ("He", "is"), (2, 0))

    @pytest.mark.parametrize(
        ("row", "says"),
        [
            ("a\tN\t0-0\ta b", "train.data.txt:3: found 4 columns, expected 5"),
            ("", "train.data.txt:3: found 1 columns"),
            ("a\tX\t0-0\ta b\ta", 'train.data.txt:3: found "X" and "0-0", expected N or V'),
            ("a\tN\t0\ta b\ta", 'found "N" and "0"'),
            ("a\tN\t-1-0\ta b\ta", 'found "N" and "-1-0"'),
            ("a\tN\t0-1\ta b\ta", 'train.data.txt:3: word 1 (from 0) of "a" does not exist: it has 1'),
            ("a\tN\t1-0\ta  b\ta", '"" is marked in "a  b", expected one word'),
            (" \tN\t0-0\ta b\ta", "word is ' ', expected a text"),
            ("a\tN\t0-0\ta b\t", "sentence2 is '', expected a text"),
        ],
    )
    def test_malformed_row_is_named(self, tmp_path: Path, row: str, says: str) -> None:
        with pytest.raises(DataError) as error:
            wic.released(released(tmp_path, f"{WIC}{row}\n{WIC}", "F\nT\nT\nF\nT\n"), "train")
        assert says in error.value.message and "Fix" in error.value.message

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"end1": 99}, 'train.jsonl:1: characters 16 to 99 of "Come over to my place?" do not exist: it has 22'),
            ({"end1": 16}, "characters 16 to 16"),
            ({"start2": 0}, '"No places" is marked in "No places  here.", expected one word'),
            ({"start1": "16"}, "start1 is '16', expected a whole number from 0"),
            ({"start1": True}, "start1 is True"),
            ({"label": "yes"}, "label is 'yes', expected true or false"),
        ],
    )
    def test_malformed_json_row_is_named(self, tmp_path: Path, change: dict[str, Any], says: str) -> None:
        jsonl(tmp_path / "train.jsonl", [{**PLACE, **change}])
        with pytest.raises(DataError) as error:
            wic.released(spec("wic", tmp_path), "train")
        assert says in error.value.message and "Fix" in error.value.message

    def test_a_row_without_its_mark(self, tmp_path: Path) -> None:
        jsonl(tmp_path / "train.jsonl", [{k: v for k, v in PLACE.items() if k != "end2"}])
        with pytest.raises(DataError, match=r"train\.jsonl:1: no end2\. Fix"):
            wic.released(spec("wic", tmp_path), "train")

    def test_gold(self, tmp_path: Path) -> None:
        found = released(tmp_path, gold="F\nT\nT\n")
        with pytest.raises(DataError, match=r"has 2 rows, but .*train\.gold\.txt has 3 labels.*Fetch both again"):
            wic.released(found, "train")
        (tmp_path / "train" / "train.gold.txt").write_text("F\nTrue\n")
        with pytest.raises(DataError, match=r'train\.gold\.txt:2: found "True", expected T or F'):
            wic.released(found, "train")
        (tmp_path / "train" / "train.gold.txt").unlink()
        with pytest.raises(DataError, match=r"no gold: train\.gold\.txt is not beside it"):
            wic.released(found, "train")

    def test_which_file(self, tmp_path: Path) -> None:
        found = released(tmp_path)
        with pytest.raises(DataError, match=r'no split "dev".*has no dev/dev\.data\.txt or .*train/train\.data\.txt'):
            wic.released(found, "dev")
        (tmp_path / "odd.txt").touch()
        with pytest.raises(DataError, match=r"odd\.txt: expected NAME\.data\.txt"):
            wic.released(spec("wic", tmp_path, splits={"dev": "odd.txt"}), "dev")
        jsonl(tmp_path / "train.jsonl", [PLACE])
        with pytest.raises(DataError, match=r"several files for .*: train/train\.data\.txt, train\.jsonl\. Name one"):
            wic.released(found, "train")
        assert len(wic.released(spec("wic", tmp_path, splits={"train": "train.jsonl"}), "train").pairs) == 1

    def test_a_word_that_cannot_be_the_target_is_kept_and_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            found = wic.released(released(tmp_path, WIC.replace("2-1", "1-1")), "train")
        assert [pair.doubtful for pair in found.pairs] == [False, True]
        assert 'of 2 pairs 1 mark a word that cannot be a form of theirs ("carry" in train/1)' in caplog.text

    @pytest.mark.parametrize(
        ("form", "lemma", "can"),
        [("Went", "go", True), ("caught", "catch", True), ("were", "be", True), ("round", "call", False)],
    )
    def test_can_be(self, form: str, lemma: str, can: bool) -> None:
        assert wic.can_be(form, lemma) is can

    @pytest.mark.real
    def test_real_counts(self, real: Path) -> None:
        """5,428 (half T) and 638 (half T) as released. One row of train marks "round" of "called round" for *call*."""
        found = wic.read(spec("wic", real / "wic"))
        train = found.train + found.development
        assert Counter(p.label for p in train) == {"True": 2714, "False": 2714}
        assert Counter(p.label for p in found.reported) == {"True": 319, "False": 319}
        assert [p.id for p in train if p.doubtful] == ["train/1556"] and found.doubtful == 1
        assert Counter(p.label for p in found.development) == {"True": 271, "False": 271}
        assert not {p.word for p in found.train} & {p.word for p in found.development}
        for pair in train + found.reported:
            assert pair.marked and all(w and w == w.strip() for w in (*pair.first, *pair.second))


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), max_size=60),
    st.floats(0.05, 0.95),
    st.integers(0, 3),
)
def test_cut(rows: list[tuple[str, bool]], share: float, seed: int) -> None:
    every = tuple(Pair(str(i), (), (), str(label), word) for i, (word, label) in enumerate(rows))
    rest, part = pairs.cut(every, share, seed, lambda pair: pair.word)
    assert sorted([*rest, *part], key=lambda p: int(p.id)) == list(every)
    assert not {p.word for p in rest} & {p.word for p in part}
    assert (rest, part) == pairs.cut(every, share, seed, lambda pair: pair.word)
    for label, n in Counter(p.label for p in every).items():
        assert sum(p.label == label for p in part) <= round(share * n)


@pytest.mark.parametrize("reader", [boolq, wic])
def test_files_of_another_form_are_named(tmp_path: Path, reader: Any) -> None:
    (tmp_path / "train.csv").write_text("question,passage,answer\n")
    with pytest.raises(DataError, match=r"There is: train\.csv\. Write train\.jsonl, with a JSON object a line\.$"):
        reader.read(DatasetSpec("mine", reader.__name__.rpartition(".")[2], path=str(tmp_path)))


def test_cut_of_single_rows_has_the_share_of_each_label() -> None:
    every = tuple(Pair(str(i), (), (), str(i % 4 == 0), str(i)) for i in range(200))
    parts = [pairs.cut(every, 0.1, seed, lambda pair: pair.word)[1] for seed in (0, 1)]
    assert all(Counter(p.label for p in part) == {"True": 5, "False": 15} for part in parts) and parts[0] != parts[1]


class TestTogether:
    def questions(self, folder: Path, **more: Any) -> DatasetSpec:
        for split, n in (("train", 100), ("dev", 40)):
            jsonl(
                folder / f"{split}.jsonl", [{**ASKED, "passage": f"{split} {i}", "answer": i % 4 > 0} for i in range(n)]
            )
        return spec("boolq", folder, **more)

    def test_the_development_part_is_cut_from_train_alone(self, tmp_path: Path) -> None:
        found = boolq.read(self.questions(tmp_path, development=0.2))
        assert [len(part) for part in (found.train, found.development, found.reported)] == [80, 20, 40]
        assert {p.id.partition("/")[0] for p in found.development} == {"train"}
        assert Counter(p.label for p in found.development) == {"True": 15, "False": 5}
        assert found.classes == ("False", "True") and found.doubtful == 0
        again = boolq.read(self.questions(tmp_path, development=0.2, development_seed=1))
        assert again.development != found.development and again.reported == found.reported
        assert again.fingerprint == found.fingerprint

    def test_limit_is_of_the_released_splits(self, tmp_path: Path) -> None:
        found = boolq.read(self.questions(tmp_path, limit=30))
        assert [len(part) for part in (found.train, found.development, found.reported)] == [27, 3, 30]

    def test_each_part_has_both_labels(self, tmp_path: Path) -> None:
        """With one label alone to stop by, the first epoch that always says it would be the best."""
        with pytest.raises(DataError, match=r"leaves 18 to fit on and 2 for early stopping .* both need both labels"):
            boolq.read(self.questions(tmp_path, limit=20))

    def test_pairs_of_train_among_the_reported_ones_are_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        found = self.questions(tmp_path)
        lines = (tmp_path / "train.jsonl").read_text().splitlines()
        with caplog.at_level(logging.WARNING):
            boolq.read(found)
            assert not caplog.text
            jsonl(tmp_path / "dev.jsonl", [*lines[:3], *(tmp_path / "dev.jsonl").read_text().splitlines()])
            boolq.read(found)
        assert '3 of the 43 pairs of dev are in train, too ("dev/0"), so a model may know them by heart' in caplog.text

    def test_the_same_rows_twice_are_refused(self, tmp_path: Path) -> None:
        found = self.questions(tmp_path, splits={"train": "dev"})
        with pytest.raises(DataError, match=r"train and dev are the same rows .* Name two files in `splits`"):
            boolq.read(found)

    def test_nothing_left(self, tmp_path: Path) -> None:
        with pytest.raises(
            DataError, match=r"development = 0\.01: of the 20 rows of train .* and 0 for early stopping"
        ):
            boolq.read(self.questions(tmp_path, limit=20, development=0.01))

    def test_one_label(self, tmp_path: Path) -> None:
        found = self.questions(tmp_path)
        jsonl(tmp_path / "train.jsonl", [ASKED, {**ASKED, "passage": "other"}])
        with pytest.raises(DataError, match=r'has one label only \("True"\)'):
            boolq.read(found)
