"""Readers: what they make of good files, and what they say of bad ones."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipstudy import data
from clipstudy.data import conll2000, formats, labelled, senteval, table
from clipstudy.data.conll2000 import Chunk
from clipstudy.errors import DataError
from clipstudy.spec import DatasetSpec

#: What is not whole parquet, made from what is.
BROKEN: list[Callable[[bytes], bytes]] = [
    lambda whole: whole[:-20],
    lambda whole: b"",
    lambda whole: bytes(len(whole)),
    lambda whole: whole[:4] + bytes(300) + whole[304:],
]
CONLL = "He PRP B-NP\nruns VBZ B-VP\n. . O\n\nDogs NNS B-NP\nbark VBP B-VP\n"
ROWS = "tr\tA\tone two\ntr\tB\tthree\nva\tA\tfour\nte\tB\tfive six\n"


def conll(path: Path) -> DatasetSpec:
    return DatasetSpec("chunks", "conll2000", path=str(path))


def probing(path: Path, text: str, **more: object) -> DatasetSpec:
    (path / "rows.txt").write_text(text, encoding="utf-8")
    return DatasetSpec("rows", "senteval", path=str(path / "rows.txt"), **more)  # type: ignore[arg-type]


def tags_of(chunks: list[Chunk]) -> list[str]:
    """The tags that chunks were read from."""
    tags = []
    for chunk in chunks:
        begins, goes_on = ("O", "O") if chunk.label == "O" else (f"B-{chunk.label}", f"I-{chunk.label}")
        tags += [begins, *[goes_on] * (chunk.end - chunk.start - 1)]
    return tags


class TestConll:
    def test_sentences(self, tmp_path: Path) -> None:
        (tmp_path / "train.txt").write_text(CONLL)
        corpus = conll2000.read(conll(tmp_path), "train")
        assert [s.words for s in corpus.sentences] == [("He", "runs", "."), ("Dogs", "bark")]
        assert corpus.sentences[0].tags == ("B-NP", "B-VP", "O")
        assert corpus.fingerprint.startswith("sha256:")

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ("He PRP", 'train.txt:2: found "He PRP"'),
            ("He  PRP B-NP", ":2: found"),
            ("He PRP NP", '"NP" is not B-'),
            ("He PRP B-", '"B-" is not B-'),
            ("He PRP B-O", '"B-O" is not B-'),
        ],
    )
    def test_malformed_line_is_named(self, tmp_path: Path, line: str, says: str) -> None:
        (tmp_path / "train.txt").write_text(f"a b O\n{line}\n")
        with pytest.raises(DataError, match="Fix the line") as error:
            conll2000.read(conll(tmp_path), "train")
        assert says in error.value.message

    def test_empty_split(self, tmp_path: Path) -> None:
        (tmp_path / "train.txt").write_text("\n\n")
        with pytest.raises(DataError, match="is empty"):
            conll2000.read(conll(tmp_path), "train")

    def test_missing_split_says_what_exists(self, tmp_path: Path) -> None:
        (tmp_path / "train.txt").write_text(CONLL)
        with pytest.raises(DataError, match=r'Did you mean "train\.txt".*splits = { tran = "…" }$'):
            conll2000.read(conll(tmp_path), "tran")

    def test_one_file_is_no_split(self, tmp_path: Path) -> None:
        (tmp_path / "train.txt").write_text(CONLL)
        with pytest.raises(DataError, match=r"is one file, but each split has its own.*splits = { test = "):
            conll2000.read(conll(tmp_path / "train.txt"), "test")
        folder, file = conll2000.read(conll(tmp_path), "train"), conll2000.read(conll(tmp_path / "train.txt"), "train")
        assert folder == file, "it may be that split's"

    def test_missing_folder_says_what_is_there(self, tmp_path: Path) -> None:
        (tmp_path / "conll2000").mkdir()
        with pytest.raises(DataError, match=r"does not exist. In .*: conll2000.* Fix the path"):
            conll2000.read(conll(tmp_path / "conll200"), "train")

    def test_missing_files_that_the_table_knows_how_to_get(self, tmp_path: Path) -> None:
        spec = replace(conll(tmp_path / "none"), hint="Type: make data")
        with pytest.raises(DataError, match=r"does not exist. In .*: nothing. Type: make data$"):
            conll2000.read(spec, "train")

    def test_not_utf8(self, tmp_path: Path) -> None:
        (tmp_path / "train.txt").write_bytes(b"caf\xe9 NN B-NP\n")
        with pytest.raises(DataError, match="byte 3 is not UTF-8"):
            conll2000.read(conll(tmp_path), "train")

    def test_excluded_sentence_must_exist(self, tmp_path: Path) -> None:
        (tmp_path / "train.txt").write_text(CONLL)
        spec = DatasetSpec("c", "conll2000", path=str(tmp_path), exclude={"train": [7]})
        with pytest.raises(DataError, match="sentence 7 does not exist"):
            conll2000.read(spec, "train")

    @pytest.mark.parametrize(
        ("tags", "says"),
        [
            (["B-NP", "S-NP"], r'row 1 \(from 0\): chunk tag "S-NP" is not B-'),
            (["NP", "NP"], 'chunk tag "NP" is not B-'),
            ([3, 4], 'chunk tag "3" is not B-'),
            (["O"], "found 2 tokens, 2 pos_tags, 1 chunk_tags, expected lists of one length"),
            ("OO", "expected lists of one length"),
        ],
    )
    def test_tables_of_other_tags(self, monkeypatch: pytest.MonkeyPatch, tags: object, says: str) -> None:
        """They would be read as other chunks."""
        good = ["B-NP", "O"]
        columns = {"tokens": [["a", "b"]] * 2, "pos_tags": [["X", "X"]] * 2, "chunk_tags": [good, tags]}
        held = table.Table(columns, "0", "org/name@0", ((Path("train.parquet"), 2),))
        monkeypatch.setattr(table, "load", lambda *_: held)
        with pytest.raises(DataError, match=says) as error:
            conll2000.read(DatasetSpec("c", "conll2000", hub="org/name"), "train")
        assert "columns" in error.value.message

    def test_chunks(self) -> None:
        tags = ("B-NP", "I-NP", "B-NP", "O", "O", "I-VP", "I-PP", "B-VP", "O")
        assert conll2000.chunks(tags) == [
            Chunk("NP", 0, 2), Chunk("NP", 2, 3), Chunk("O", 3, 5), Chunk("VP", 5, 6), Chunk("PP", 6, 7),
            Chunk("VP", 7, 8), Chunk("O", 8, 9),
        ]  # fmt: skip

    @given(st.lists(st.sampled_from(["O", "B-NP", "I-NP", "B-VP", "I-VP"])))
    def test_chunks_tile_the_sentence(self, tags: list[str]) -> None:
        found = conll2000.chunks(tags)
        assert [i for c in found for i in range(c.start, c.end)] == list(range(len(tags)))
        assert conll2000.chunks(tags_of(found)) == found
        for chunk in found:
            inside = {t if t == "O" else t[2:] for t in tags[chunk.start : chunk.end]}
            assert inside == {chunk.label}

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_real_tags_survive_the_way_to_chunks_and_back(self, real: Path, split: str) -> None:
        for sentence in conll2000.read(conll(real / "conll2000"), split).sentences:
            assert tags_of(conll2000.chunks(sentence.tags)) == list(sentence.tags)

    def test_real_counts(self, real: Path) -> None:
        corpus = conll2000.read(conll(real / "conll2000"), "train")
        assert len(corpus.sentences) == 8936
        counts = Counter(c.label for s in corpus.sentences for c in conll2000.chunks(s.tags))
        assert counts.pop("O") == 24728
        assert sum(counts.values()) == 106978
        assert counts["NP"] == 55081 and counts["UCP"] == 2


class TestSentEval:
    def test_rows(self, tmp_path: Path) -> None:
        found = senteval.read(probing(tmp_path, ROWS))
        assert found.train.items == (("one", "two"), ("three",))
        assert (len(found.train), len(found.dev), len(found.test)) == (2, 1, 1)
        assert found.classes == ("A", "B")

    def test_quotes_and_odd_spaces_are_text(self, tmp_path: Path) -> None:
        found = senteval.read(probing(tmp_path, ROWS + 'te\tA\t" quoted\u2028line\u00a0here\n'))
        assert found.test.items[-1][0] == '"'
        assert len(found.test) == 2  # a line separator inside a sentence ends no row

    @pytest.mark.parametrize(
        ("row", "says"),
        [
            ("te\tA", "rows.txt:5: found 2 columns"),
            ("te\tA\tx\ty", ":5: found 4 columns"),
            ("test\tA\tx", 'split "test"'),
            ("te\tA\t ", ":5: no sentence"),
            ("te\t\tx", ":5: no label"),
        ],
    )
    def test_malformed_row_is_named(self, tmp_path: Path, row: str, says: str) -> None:
        with pytest.raises(DataError) as error:
            senteval.read(probing(tmp_path, f"{ROWS}{row}\n"))
        assert says in error.value.message and "line" in error.value.message

    def test_label_only_in_test(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match='label "C" is in test but not in train'):
            senteval.read(probing(tmp_path, ROWS + "te\tC\tseven\n"))

    def test_empty_split(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no line begins with te"):
            senteval.read(probing(tmp_path, ROWS.replace("te\t", "va\t")))

    def test_label_only_in_test_may_be_left_out(self, tmp_path: Path) -> None:
        found = senteval.read(probing(tmp_path, ROWS + "te\tC\tseven\nva\tD\teight\n", unseen_labels="drop"))
        assert (found.test.labels, found.dev.labels, found.dropped) == (("B",), ("A",), 2)

    def test_labels_that_look_the_same(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"labels 'A' and 'A ' differ in white space alone"):
            senteval.read(probing(tmp_path, ROWS + "tr\tA \tseven\n"))

    def test_texts_of_test_that_train_has_are_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        senteval.read(probing(tmp_path, ROWS))
        assert not caplog.records
        senteval.read(probing(tmp_path, ROWS + "te\tA\tone  two\n"))
        assert '1 of 2 texts of test are in train, too ("one two")' in caplog.text

    def test_one_split_for_choosing_and_for_reporting_is_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        rows = "".join(line for line in ROWS.splitlines(True) if line.startswith("tr"))
        senteval.read(probing(tmp_path, rows + "va\tA\tx y\nva\tB\tz\nte\tA\tx y\nte\tB\tz\n"))
        assert "dev and test are the same rows" in caplog.text

    def test_one_class(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="one class only"):
            senteval.read(probing(tmp_path, ROWS.replace("\tB\t", "\tA\t")))

    def test_released_layout(self, real: Path, tmp_path: Path) -> None:
        """Genuine rows of all ten files pass the reader, but for labels that so small a sample lacks in train."""
        files = sorted((real / "senteval_original_sample").glob("*[a-z].txt"))
        assert len(files) == 10
        for path in files:
            rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
            same = "".join(f"{split}\t{label}\t{i}\n" for split in ("tr", "va", "te") for i, label in enumerate("AB"))
            found = senteval.read(probing(tmp_path, same + "".join(f"{s}\tA\t{text}\n" for s, _, text in rows)))
            assert sum(map(len, (found.train, found.dev, found.test))) == len(rows) + 6


class TestLimit:
    def test_keeps_shares_and_order(self) -> None:
        labels = ["a"] * 60 + ["b"] * 30 + ["c"] * 10
        kept = labelled.stratified(labels, 10, 0)
        assert Counter(labels[i] for i in kept) == {"a": 6, "b": 3, "c": 1}
        assert kept == sorted(kept) and kept != list(range(10))
        assert labelled.stratified(labels, 10, 0) == kept != labelled.stratified(labels, 10, 1)

    @given(st.lists(st.sampled_from("abcd"), min_size=1), st.integers(1, 40), st.integers(0, 3))
    def test_size_and_balance(self, labels: list[str], limit: int, seed: int) -> None:
        kept = labelled.stratified(labels, limit, seed)
        assert len(kept) == len(set(kept)) == min(limit, len(labels))
        for label, n in Counter(labels).items():
            share = n * len(kept) / len(labels)
            assert abs(sum(labels[i] == label for i in kept) - share) <= 1

    def test_applies_to_each_split(self, tmp_path: Path) -> None:
        text = "".join(f"{s}\t{label}\tw{i}\n" for s in ("tr", "va", "te") for label in "AB" for i in range(50))
        found = senteval.read(probing(tmp_path, text, limit=10))
        assert Counter(found.train.labels) == {"A": 5, "B": 5}
        assert len(found.dev) == len(found.test) == 10


class TestTable:
    """Local tables; the Hub's are the same code after the download."""

    def spec(
        self, folder: Path, classes: list[str] | None = None, test: list[int | None] | None = None, **more: object
    ) -> DatasetSpec:
        import pyarrow as pa
        import pyarrow.parquet as pq

        label = {"names": classes, "_type": "ClassLabel"} if classes else {"dtype": "int64", "_type": "Value"}
        told = json.dumps({"info": {"features": {"y": label, "sentence": {"dtype": "string", "_type": "Value"}}}})
        for split, labels in {"train": [0, 1, 0, 1], "validation": [0, 1], "test": test or [0, 1]}.items():
            columns = {"sentence": [f"a b {i}" for i in range(len(labels))], "y": labels}
            made = pa.table(columns).replace_schema_metadata({"huggingface": told})
            pq.write_table(made, folder / f"{split}-00000-of-00001.parquet")
        keys = {"columns": {"text": "sentence", "label": "y"}, "splits": {"dev": "validation"}, **more}
        return DatasetSpec("t", "table", path=str(folder), **keys)  # type: ignore[arg-type]

    def texts(self, folder: Path, ending: str, train: str) -> DatasetSpec:
        """``train`` as it is; dev and test the same."""
        folder.mkdir(exist_ok=True)
        for split in ("train", "dev", "test"):
            (folder / f"{split}.{ending}").write_text(train, encoding="utf-8")
        return DatasetSpec("t", "table", path=str(folder))

    def test_named_columns(self, tmp_path: Path) -> None:
        found = table.read(self.spec(tmp_path))
        assert found.train.items[1] == ("a", "b", "1") and found.train.labels == ("0", "1", "0", "1")

    def test_csv_cells_are_texts_as_they_stand(self, tmp_path: Path) -> None:
        rows = '\ufefftext,label\nNA,01\n"one, two",1\n'
        found = table.read(self.texts(tmp_path, "csv", rows))
        assert found.train.items == (("NA",), ("one,", "two")) and found.train.labels == ("01", "1")

    def test_tsv_and_endings_in_capitals(self, tmp_path: Path) -> None:
        for ending in ("tsv", "TSV"):
            found = table.read(self.texts(tmp_path / ending, ending, 'text\tlabel\n"a\tb, c"\t1\nd\t0\n'))
            assert found.train.items == (("a", "b,", "c"), ("d",)) and found.train.labels == ("1", "0")

    def test_quotes_of_a_tsv_are_text_where_they_enclose_no_cells(self, tmp_path: Path) -> None:
        """As in GLUE's: the first quote would take all rows up to the second one into its cell."""
        plain = 'text\tlabel\n"one two\t1\nthree\t0\nfour "five\t0\n"six" seven\t1\n'
        found = table.read(self.texts(tmp_path / "plain", "tsv", plain)).train
        assert found.items == (('"one', "two"), ("three",), ("four", '"five'), ('"six"', "seven"))
        assert found.labels == ("1", "0", "0", "1")
        ended = table.read(self.texts(tmp_path / "ended", "tsv", 'text\tlabel\n"one\t1\ntwo\t0\nthree"\t0\n')).train
        assert ended.items == (('"one',), ("two",), ('three"',))
        enclosed = '"text"\t"label"\n"one ""two"""\t"1"\nthree\t0\n'
        found = table.read(self.texts(tmp_path / "enclosed", "tsv", enclosed)).train
        assert found.items == (("one", '"two"'), ("three",)) and found.labels == ("1", "0")
        lines = 'text\tlabel\n"one\ntwo"\t1\nthree\t0\n'
        assert table.read(self.texts(tmp_path / "lines", "tsv", lines)).train.items == (("one", "two"), ("three",))

    @pytest.mark.parametrize(
        ("ending", "rows", "says"),
        [
            ("csv", 'text,label\none,0\n"two,1\nthree,0\nfour "five,0\n', "line 3: a quote begins a cell"),
            ("csv", 'text,label\n"one" two,1\nthree,0\n', "line 2: a quote begins a cell and does not end it"),
            ("csv", 'text,label\none,1\n"two,0\n', "line 3: a quote begins a cell and does not end it"),
            ("tsv", 'text\tlabel\n"one\t1\ntwo\t0\t0\n', r"Expected 2 columns, got 3: two"),
        ],
    )
    def test_quotes_that_would_make_one_row_of_several(self, tmp_path: Path, ending: str, rows: str, says: str) -> None:
        with pytest.raises(DataError, match=rf"train\.{ending} cannot be read as {ending} .*{says}"):
            table.read(self.texts(tmp_path, ending, rows))

    def test_line_ends_within_cells_of_a_large_csv(self, tmp_path: Path) -> None:
        """More than the megabyte that a block of the library's has, and one cell as large."""
        texts = [*(f"first {i}\nsecond, of {i}" for i in range(60_000)), "long " * 300_000]
        rows = "".join(f'"{text}",{i % 2}\n' for i, text in enumerate(texts))
        found = table.read(self.texts(tmp_path, "csv", f"text,label\n{rows}"))
        assert found.train.items == tuple(tuple(text.split()) for text in texts)

    @pytest.mark.parametrize(
        ("header", "says"),
        [
            ("text;label", "have semicolons between them: save it with commas.$"),
            ("text\tlabel", "have tabs between them: save it with commas, or as .tsv.$"),
            ("Text,label", 'Did you mean "Text"?.*Write the one meant: columns = { text = "…" }. Names stand in'),
        ],
    )
    def test_columns_that_are_not_there_say_what_to_write(self, tmp_path: Path, header: str, says: str) -> None:
        with pytest.raises(DataError, match=says):
            table.read(self.texts(tmp_path, "csv", f"{header}\n{header}\n"))

    @pytest.mark.parametrize("coding", ["latin-1", "utf-16"])
    def test_a_csv_that_is_not_utf8(self, tmp_path: Path, coding: str) -> None:
        spec = self.texts(tmp_path, "csv", "")
        (tmp_path / "train.csv").write_bytes("text,label\ncafé,1\n".encode(coding))
        with pytest.raises(DataError, match=r"is not UTF-8\. Convert the file"):
            table.read(spec)

    @pytest.mark.parametrize(
        ("there", "says"),
        [
            ("validation.csv", 'Write: splits = { dev = "validation" }'),
            ("valid-00000-of-00001.csv", 'Write: splits = { dev = "valid" }'),
            ("test.csv", "put some rows of train aside for it.$"),
        ],
    )
    def test_no_dev_split_says_what_to_write(self, tmp_path: Path, there: str, says: str) -> None:
        for name in ("train.csv", there):
            (tmp_path / name).write_text("text,label\na,0\nb,1\n")
        with pytest.raises(DataError, match=says):
            table.read(DatasetSpec("t", "table", path=str(tmp_path)))

    def test_a_folder_with_no_table_says_what_it_has(self, tmp_path: Path) -> None:
        (tmp_path / "train.xlsx").write_text("")
        with pytest.raises(DataError, match=r"What exists: train\.xlsx"):
            table.read(DatasetSpec("t", "table", path=str(tmp_path)))

    def test_bytes_are_no_text_and_no_label(self, tmp_path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for text, label, says in ((b"a", "0", "text is 1 bytes"), ("a", b"xy", "label is 2 bytes")):
            pq.write_table(pa.table({"text": [text], "label": [label]}), tmp_path / "train.parquet")
            with pytest.raises(DataError, match=says):
                table.read(DatasetSpec("t", "table", path=str(tmp_path)))

    def test_parquet_without_rows_is_empty(self, tmp_path: Path) -> None:
        import pyarrow.parquet as pq

        spec = self.spec(tmp_path)
        path = tmp_path / "test-00000-of-00001.parquet"
        pq.write_table(pq.read_table(path).slice(0, 0), path)
        with pytest.raises(DataError, match=r'split "test" of .* is empty'):
            table.read(spec)

    @pytest.mark.parametrize("rows", ['{"text": "a b", "label": 1}\n\n{"label": 0, "text": "c"}\n', None])
    def test_json(self, tmp_path: Path, rows: str | None) -> None:
        array = json.dumps([{"text": "a b", "label": 1}, {"text": "c", "label": 0}], indent=1)
        found = table.read(self.texts(tmp_path, "json", rows or array))
        assert found.train.items == (("a", "b"), ("c",)) and found.train.labels == ("1", "0")

    @pytest.mark.parametrize(
        ("ending", "text", "says"),
        [
            ("csv", "text,label\na,b,1\n", "train.csv cannot be read as csv (CSV parse error"),
            ("csv", "text,label\na\n", "Expected 2 columns, got 1"),
            ("csv", 'text,label\n"a,1\n', "train.csv cannot be read as csv"),
            ("csv", "", "train.csv cannot be read as csv (Empty CSV file)"),
            ("jsonl", '{"text": "a", "label": 1}\n{"text": "b", ', "train.jsonl cannot be read as json"),
            ("jsonl", '{"text": "a", "label": 1}\n3\n', "train.jsonl cannot be read as json"),
            ("json", '[{"text": "a", "label": 1}, 3]', "train.json cannot be read as json"),
            ("jsonl", "", "train.jsonl cannot be read as json"),
        ],
    )
    def test_malformed_text_is_named(self, tmp_path: Path, ending: str, text: str, says: str) -> None:
        with pytest.raises(DataError) as error:
            table.read(self.texts(tmp_path, ending, text))
        assert says in error.value.message

    def test_brackets_in_a_path_are_no_pattern(self, tmp_path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for folder, word in (("run[1]", "mine"), ("run1", "other")):
            (tmp_path / folder).mkdir()
            for split in ("train", "dev"):
                pq.write_table(pa.table({"text": [word]}), tmp_path / folder / f"{split}.parquet")
            (tmp_path / folder / "test.jsonl").write_text(f'{{"text": "{word}"}}\n')
        spec = DatasetSpec("t", "table", path=str(tmp_path / "run[1]"))
        assert [table.load(spec, split, ["text"]).columns["text"] for split in ("train", "test")] == [["mine"]] * 2

    @pytest.mark.parametrize("memory", [0, formats.IN_MEMORY])
    @pytest.mark.parametrize("ending", ["parquet", "jsonl"])
    def test_a_file_that_is_another_one_of_the_same_age(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, memory: int
    ) -> None:
        """As `cp -p` and `tar` leave it."""
        import datasets
        import pyarrow as pa
        import pyarrow.parquet as pq

        monkeypatch.setattr(formats, "IN_MEMORY", memory)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        path = tmp_path / f"train.{ending}"
        for word in ("one", "two", "two"):
            if ending == "parquet":
                pq.write_table(pa.table({"text": [word, None], "label": [[1], [2]]}), path)
            else:
                path.write_text(f'{{"text": "{word}"}}\n{{"text": null}}\n')
            os.utime(path, ns=(0, 0))
            found = formats.read(path, ["text", "nowhere"])
            assert (found.rows, found.columns) == (2, {"text": [word, None]})
        kept = list((tmp_path / "cache").rglob("*.*"))
        assert len(kept) == (2 if ending == "parquet" and not memory else 0)

    def test_a_column_that_nobody_asks_for(self, tmp_path: Path) -> None:
        """Of a type that the `datasets` library has no name for."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        about = pa.array([[("a", "b")]], pa.map_(pa.string(), pa.string()))
        kinds = pa.array(["pos"]).dictionary_encode()
        pq.write_table(pa.table({"text": ["one two"], "label": kinds, "about": about}), tmp_path / "train.parquet")
        found = table.load(DatasetSpec("t", "table", path=str(tmp_path)), "train", ["text", "label"])
        assert found.columns == {"text": ["one two"], "label": ["pos"]}

    def test_names_of_classes_are_of_columns_of_numbers(self, tmp_path: Path) -> None:
        """Who writes texts over the numbers may leave what was said of them."""
        import datasets
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = datasets.Features({"label": datasets.ClassLabel(names=["neg", "pos"])}).arrow_schema.metadata
        for labels, found in (([1, 0], ["pos", "neg"]), (["1", "x"], ["1", "x"])):
            held = pa.table({"label": labels}).replace_schema_metadata(names)
            pq.write_table(held, tmp_path / "train.parquet")
            assert formats.read(tmp_path / "train.parquet", ["label"]).columns == {"label": found}

    @pytest.mark.parametrize("broken", BROKEN)
    def test_malformed_parquet_is_named(self, tmp_path: Path, broken: Callable[[bytes], bytes]) -> None:
        spec = self.spec(tmp_path)
        path = tmp_path / "validation-00000-of-00001.parquet"
        path.write_bytes(broken(path.read_bytes()))
        with pytest.raises(DataError, match=r"validation-00000-of-00001\.parquet cannot be read as parquet"):
            table.read(spec)

    @pytest.mark.parametrize("bad", [-1, 2, None])
    def test_hidden_labels_are_refused(self, tmp_path: Path, bad: int | None) -> None:
        """The Hub's test splits often have class number -1, which is no class; not the last one."""
        spec = self.spec(tmp_path, classes=["neg", "pos"], test=[0, bad])
        assert table.load(spec, "train", ["label"]).columns == {"label": ["neg", "pos", "neg", "pos"]}
        with pytest.raises(DataError, match=r'split "test", row 1 \(from 0\): label is absent or hidden'):
            table.read(spec)

    def test_hidden_tags_are_refused(self, tmp_path: Path) -> None:
        assert formats._named([1, 0], ["O", "B-NP"]) == ["B-NP", "O"]
        spec = self.texts(tmp_path, "jsonl", '{"tokens": ["a", "b"], "chunk_tags": ["O", null]}\n')
        with pytest.raises(DataError, match=r'split "train", row 0 .*chunk_tags is absent'):
            table.load(spec, "train", ["tokens", "chunk_tags"])

    @pytest.mark.parametrize(
        ("row", "says"),
        [
            ({"label": 1}, "text is absent"),
            ({"text": None, "label": 1}, "text is absent"),
            ({"text": " ", "label": 1}, 'text is " ", expected a text'),
            ({"text": 17, "label": 1}, 'text is "17", expected a text'),
            ({"text": ["a"], "label": 1}, "expected a text"),
            ({"text": "a"}, "label is absent"),
            ({"text": "a", "label": ""}, 'label is ""'),
            ({"text": "a", "label": float("nan")}, 'label is "nan"'),
            ({"text": "a", "label": [1]}, 'label is "[1]", expected one label'),
        ],
    )
    def test_what_is_no_text_or_label_is_refused(self, tmp_path: Path, row: dict[str, Any], says: str) -> None:
        good = json.dumps({"text": "a", "label": 0})
        with pytest.raises(DataError) as error:
            table.read(self.texts(tmp_path, "jsonl", f"{good}\n{json.dumps(row)}\n"))
        assert 'split "train", row 1' in error.value.message and says in error.value.message

    def test_one_file_is_not_three_splits(self, tmp_path: Path) -> None:
        (tmp_path / "all.csv").write_text("text,label\na,0\nb,1\n")
        with pytest.raises(DataError, match="is one file"):
            table.read(DatasetSpec("t", "table", path=str(tmp_path / "all.csv")))

    @pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
    def test_what_names_alone_show_is_known_before_a_worker_reads(self, tmp_path: Path, ending: str) -> None:
        good = self.spec(tmp_path)
        if ending != "parquet":
            comma = "\t" if ending == "tsv" else ","
            good = self.texts(tmp_path / ending, ending, f"sentence{comma}y\na b{comma}0\nc d{comma}1\n")
            good = replace(good, columns={"text": "sentence", "label": "y"})
        assert data.doubt(good) is None
        for wrong in (
            replace(good, columns={"text": "sentense", "label": "y"}),
            replace(good, splits={"dev": "held"}),
            replace(good, path=str(next(path for path in Path(str(good.path)).iterdir() if path.is_file()))),
        ):
            with pytest.raises(DataError) as refused:
                table.read(wrong)
            assert data.doubt(wrong) == refused.value.message, "enqueue says what the worker will"

    def test_a_split_is_of_one_folder_and_form(self, tmp_path: Path) -> None:
        for config in ("one", "two"):
            (tmp_path / config / "train").mkdir(parents=True)
            (tmp_path / config / "train" / "0000.csv").write_text(f"text\n{config}\n")
        spec = DatasetSpec("t", "table", path=str(tmp_path))
        with pytest.raises(DataError, match=r"several tables for .train.: one/train/0000\.csv, two/train/0000\.csv"):
            table.load(spec, "train", ["text"])
        spec = DatasetSpec("t", "table", path=str(tmp_path), config="two")
        assert table.load(spec, "train", ["text"]).columns == {"text": ["two"]}
        with pytest.raises(DataError, match=r'no table for "train" of config "three"'):
            table.load(DatasetSpec("t", "table", path=str(tmp_path), config="three"), "train", ["text"])

    def test_a_split_may_be_a_file_name_and_never_a_part_of_one(self, tmp_path: Path) -> None:
        for name in ("train-hard", "train-00000-of-00002", "train-00001-of-00002"):
            (tmp_path / f"{name}.csv").write_text(f"text\n{name}\n")
        splits = {"dev": "train-hard.csv", "test": "train-00001-of-00002.csv"}
        spec = DatasetSpec("t", "table", path=str(tmp_path), splits=splits)
        by_stem = replace(spec, splits={"test": "train-00001-of-00002"})
        assert table.load(by_stem, "test", ["text"]).columns["text"] == ["train-00001-of-00002"]
        assert table.load(spec, "dev", ["text"]).columns["text"] == ["train-hard"]
        assert table.load(spec, "test", ["text"]).columns["text"] == ["train-00001-of-00002"]
        assert "train-hard" not in table.load(spec, "train", ["text"]).columns["text"]

    @pytest.mark.parametrize(
        ("names", "says"),
        [
            (["train"], None),
            (["train-00000-of-00002", "train-00001-of-00002"], None),
            (["train-1-of-2", "train-2-of-2"], None),
            (["train-00000-of-00002-5f3a9c", "train-00001-of-00002-0c2e11"], None),
            (["train-1", "train-2"], None),
            (["train/train-1", "train/train"], None),
            (["train", "train-1000"], "several tables .* that are not parts of one: train-1000.csv, train.csv"),
            (["train", "train-00000-of-00001"], "that are not parts of one"),
            (["train-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"], "that are not parts of one"),
            (["train-00000-of-00004"], '1 file of the 4 parts of "train". Bring those'),
            (["train/en-00000-of-00002", "train/en-00001-of-00002", "train/de-00000-of-00001"], None),
            (["train/en-00000-of-00002", "train/de-00000-of-00001"], '1 file of the 2 parts of "en"'),
            (["train-00000-of-00002-5f3a9c", "train-00000-of-00002-0c2e11"], "what is there twice"),
        ],
    )
    def test_a_split_is_all_its_parts_each_once(self, tmp_path: Path, names: list[str], says: str | None) -> None:
        for name in names:
            path = tmp_path / f"{name}.csv"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"text\n{name}\n")
        spec = DatasetSpec("t", "table", path=str(tmp_path))
        if says is None:
            assert sorted(table.load(spec, "train", ["text"]).columns["text"]) == sorted(names)
        else:
            with pytest.raises(DataError, match=says):
                table.load(spec, "train", ["text"])

    def test_only_a_splits_tables_are_downloaded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub.utils import filter_repo_objects

        there = ["README.md", "images/train.tar"]
        there += [f"{config}/{split}/0000.csv" for config in ("one", "two") for split in ("train", "test", "constrain")]
        fetched: list[str] = []

        def snapshot(repo: str, *, allow_patterns: list[str], **more: object) -> str:
            for name in filter_repo_objects(there, allow_patterns=allow_patterns):
                fetched.append(name)
                path = tmp_path / "commit" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"text\n{name}\n")
            (tmp_path / "commit").mkdir(exist_ok=True)
            return str(tmp_path / "commit")

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
        monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *args, **more: there)
        spec = DatasetSpec("t", "table", hub="org/name", config="two")
        found = table.load(spec, "train", ["text"])
        assert fetched == ["two/train/0000.csv"]
        assert (found.columns["text"], found.source) == (["two/train/0000.csv"], "org/name@commit")
        with pytest.raises(DataError, match=r'no table for "dev" of config "two".*two/train/0000\.csv'):
            table.load(spec, "dev", ["text"])
        fetched.clear()
        table.load(DatasetSpec("t", "table", hub="org/name", config="one"), "test", ["text"])
        assert fetched == ["one/test/0000.csv"]

    def test_bad_hub_id(self) -> None:
        with pytest.raises(DataError, match=r'hub = "a b/c/d"'):
            table.load(DatasetSpec("t", "table", hub="a b/c/d"), "train", ["text"])

    def test_unknown_column(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"sentense.*Did you mean .sentence."):
            table.read(self.spec(tmp_path, columns={"text": "sentense", "label": "y"}))

    def test_unknown_split(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r'no table for "dev".* A split is dev\.csv \(or'):
            table.read(self.spec(tmp_path, splits={}))

    def test_not_in_the_cache(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(DataError, match=r"not in the local cache.*clipstudy fetch; with --study FILE"):
            table.read(DatasetSpec("t", "table", hub="nobody/nothing"))


def _refuses(*_: object, **__: object) -> Any:
    raise PermissionError(errno.EACCES, "Permission denied")


class TestFoldersThatMayNotBeEntered:
    """Made up: for root, as whom tests may run, there are none."""

    def test_their_files_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = replace(probing(tmp_path, ROWS), url="https://h/x.txt", checksum=f"sha256:{'0' * 64}")
        monkeypatch.setattr(Path, "exists", _refuses)
        with pytest.raises(DataError, match=r"\[datasets\.rows\] path: .* cannot be looked at .*ls -ld") as refused:
            data.files(spec)
        assert not data.to_fetch(spec) and data.doubt(spec) == refused.value.message

    def test_a_file_that_may_not_be_read_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = probing(tmp_path, ROWS)
        monkeypatch.setattr("clipstudy.checksum.like", _refuses)
        with pytest.raises(DataError, match="cannot be looked at"):
            data.files(replace(spec, url="https://h/x.txt", checksum=f"sha256:{'0' * 64}"))
        monkeypatch.setattr(Path, "read_bytes", _refuses)
        with pytest.raises(DataError, match=r"rows\.txt cannot be read \(Permission denied\)"):
            senteval.read(spec)

    def test_what_is_in_them_is_not_listed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Path, "iterdir", _refuses)
        with pytest.raises(DataError, match=r"does not exist\. In .*: what may not be listed\. Fix the path\."):
            data.files(conll(tmp_path / "gone"))
