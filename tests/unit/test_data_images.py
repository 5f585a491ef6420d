"""Labelled images: tables that hold them and folders of class folders, what is cut and what is refused."""

from __future__ import annotations

import io
import json
import os
import struct
import warnings
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clipstudy import data
from clipstudy.data import images
from clipstudy.data.images import Foreground, Picture
from clipstudy.errors import DataError
from clipstudy.spec import DatasetSpec

NAMES = ["apple", "bear", "chair", "dolphin", "elm"]
#: The Hub's CIFAR-100, and what its columns are called here.
COLUMNS = {"image": "img", "label": "fine_label"}


def encoded(number: int, kind: str = "png") -> bytes:
    """A 4 × 4 picture whose red says which it is."""
    held = io.BytesIO()
    Image.new("RGB", (4, 4), (number % 256, 0, 0)).save(held, format=kind)
    return held.getvalue()


def number(picture: Picture) -> int:
    return int(np.asarray(picture.open())[0, 0, 0])


def cifar(folder: Path, rows: dict[str, list[tuple[Any, int]]], files: int = 1) -> Path:
    """Tables in the layout of the Hub's CIFAR-100."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {"img": {"_type": "Image"}, "fine_label": {"names": NAMES, "_type": "ClassLabel"}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema([("img", image), ("fine_label", pa.int64())], metadata=about)
    folder.mkdir(parents=True, exist_ok=True)
    for split, found in rows.items():
        for file, part in enumerate(np.array_split(np.arange(len(found)), files)):
            columns = {
                "img": [{"bytes": found[i][0], "path": f"{i}.png"} for i in part],
                "fine_label": [found[i][1] for i in part],
            }
            name = f"{split}-{file:05d}-of-{files:05d}.parquet"
            pq.write_table(pa.table(columns, schema=schema), folder / name)
    return folder


def of(folder: Path, **more: Any) -> DatasetSpec:
    return DatasetSpec("pictures", "images", path=str(folder), **{"columns": COLUMNS, **more})


def made(n: int, start: int = 0) -> list[tuple[bytes, int]]:
    return [(encoded(start + i), i % len(NAMES)) for i in range(n)]


class TestTables:
    def test_cifars_layout(self, tmp_path: Path) -> None:
        found = images.read(of(cifar(tmp_path, {"train": made(50), "test": made(10, 100)}, files=3)))
        assert found.classes == tuple(NAMES)
        assert [number(p) for p in found.test.items] == list(range(100, 110))
        assert found.test.labels[:2] == ("apple", "bear")
        assert (len(found.train), len(found.dev), len(found.test)) == (45, 5, 10)
        assert found.fingerprint.startswith("sha256:") and found.source == str(tmp_path)

    def test_dev_is_cut_from_train_alike_for_every_class(self, tmp_path: Path) -> None:
        folder = cifar(tmp_path, {"train": made(100), "test": made(10)})
        found = images.read(of(folder, development=0.2))
        assert Counter(found.dev.labels) == {name: 4 for name in NAMES}
        everything = [*found.train.items, *found.dev.items]
        assert sorted(map(number, everything)) == list(range(100))
        assert images.read(of(folder, development=0.2)).dev.items == found.dev.items
        assert images.read(of(folder, development=0.2, development_seed=1)).dev.items != found.dev.items
        assert {p.split for p in found.dev.items} == {"dev"} and {p.split for p in found.test.items} == {"test"}

    def test_dev_takes_no_classs_only_image(self, tmp_path: Path) -> None:
        """Largest remainders may fall on classes of one image each, which nothing could learn then."""
        rows = [(encoded(i), 0) for i in range(14)] + [(encoded(100 + i), i) for i in range(1, 5)]
        for seed in range(5):
            folder = cifar(tmp_path / str(seed), {"train": rows, "test": made(5)})
            found = images.read(of(folder, development=0.2, development_seed=seed))
            assert set(found.train.labels) == set(NAMES) and set(found.dev.labels) == {NAMES[0]}

    def test_a_dev_split_that_is_there_is_taken(self, tmp_path: Path) -> None:
        folder = cifar(tmp_path, {"train": made(20), "validation": made(10, 50), "test": made(10, 100)})
        found = images.read(of(folder, splits={"dev": "validation"}))
        assert len(found.train) == 20 and [number(p) for p in found.dev.items] == list(range(50, 60))
        with pytest.raises(DataError, match='no table for "valid"'):
            images.read(of(folder, splits={"dev": "valid"}))

    def test_limit_is_stratified_and_holds_for_train_with_its_dev(self, tmp_path: Path) -> None:
        folder = cifar(tmp_path, {"train": made(100), "test": made(50)})
        found = images.read(of(folder, limit=20))
        assert (len(found.train), len(found.dev), len(found.test)) == (18, 2, 20)
        assert Counter(found.test.labels) == {name: 4 for name in NAMES}

    def test_images_that_no_feature_describes(self, tmp_path: Path) -> None:
        """Bytes alone, and class numbers without names."""
        for split in ("train", "dev", "test"):
            rows = {"picture": [encoded(i, "jpeg") for i in range(4)], "kind": [0, 1, 0, 1]}
            pq.write_table(pa.table(rows), tmp_path / f"{split}.parquet")
        spec = of(tmp_path, columns={"image": "picture", "label": "kind"})
        assert data.doubt(spec) is None
        for columns in ({"image": "picture"}, {"label": "kind"}):
            wrong = of(tmp_path, columns=columns)
            with pytest.raises(DataError) as refused:
                images.read(wrong)
            assert data.doubt(wrong) == refused.value.message, "enqueue says what the worker will"
        found = images.read(spec)
        assert found.classes == ("0", "1") and found.dev.items[0].open().size == (4, 4)

    def test_a_malformed_image_names_file_and_row(self, tmp_path: Path) -> None:
        rows = made(20)
        rows[13] = (encoded(13)[:40], 3)
        folder = cifar(tmp_path, {"train": made(20), "test": rows}, files=2)
        found = images.read(of(folder))
        with pytest.raises(DataError, match=r"test-00001-of-00002\.parquet, row 3 \(from 0\): no image") as error:
            [p.open() for p in found.test.items]
        assert error.value.message.endswith("Fix or remove it.")

    @pytest.mark.parametrize("content", [b"", b"not an image", encoded(1)[:45], b"\x89PNG\r\n\x1a\n" + bytes(60)])
    def test_what_is_no_image(self, content: bytes) -> None:
        with pytest.raises(DataError, match="here: no image that can be read"):
            Picture(content, "here", "train").open()

    def test_what_is_no_image_is_told_by_what_it_may_be(self) -> None:
        with pytest.raises(DataError, match=r"none of PNG, JPEG") as error:
            Picture(b"not an image", "here", "train").open()
        assert "0x" not in error.value.message  # an address says nothing, and differs from run to run

    def test_a_picture_too_large_to_be_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        with pytest.raises(DataError, match="here: no image that can be read"):
            Picture(encoded(1), "here", "train").open()

    def test_a_picture_that_claims_to_be_huge(self) -> None:
        """Refused by its header, whatever the thread and its filter of warnings; nothing of it is decoded."""

        def chunk(kind: bytes, held: bytes) -> bytes:
            return len(held).to_bytes(4) + kind + held + zlib.crc32(kind + held).to_bytes(4)

        for side in (12_000, 50_000):
            head = side.to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
            bomb = (
                b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with pytest.raises(DataError, match=r"here: no image that can be read .*pixels"):
                    Picture(bomb, "here", "train").open()

    def test_sixteen_bits_are_not_cut_at_255(self) -> None:
        held = io.BytesIO()
        Image.fromarray(np.array([[0, 257, 32_768, 65_535]], dtype=np.uint16)).save(held, format="png")
        found = Picture(held.getvalue(), "here", "train").open()
        assert np.asarray(found.convert("RGB"))[0, :, 1].tolist() == [0, 1, 128, 255]

    def test_a_pgm_of_sixteen_bits(self) -> None:
        found = Picture(b"P5 3 1 65535\n" + b"\0\0\x80\0\xff\xff", "here", "train").open()
        assert np.asarray(found.convert("RGB"))[0, :, 1].tolist() == [0, 128, 255]

    @pytest.mark.parametrize(
        ("bits", "black", "held"),
        [
            (12, 1, bytes([0x00, 0x08, 0x00, 0xFF, 0xF0])),  # 0, 2048, 4095, each in a byte and a half
            (16, 1, b"\0\0\0\x80\xff\xff"),
            (16, 0, b"\xff\xff\xff\x7f\0\0"),
        ],
    )
    def test_a_tiff_says_how_many_bits_and_which_is_black(self, bits: int, black: int, held: bytes) -> None:
        tags = {256: 3, 257: 1, 258: bits, 259: 1, 262: black, 273: 8, 277: 1, 278: 1, 279: len(held)}
        at = 8 + len(held) + len(held) % 2
        entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, n) for tag, n in tags.items())
        tiff = struct.pack("<2sHI", b"II", 42, at) + held.ljust(at - 8, b"\0") + struct.pack("<H", len(tags)) + entries
        found = Picture(tiff + b"\0\0\0\0", "here", "train").open()
        assert np.asarray(found.convert("RGB"))[0, :, 1].tolist() == [0, 128, 255]

    def test_a_range_that_nothing_says(self) -> None:
        held = io.BytesIO()
        Image.fromarray(np.array([[0.0, 0.5]], dtype=np.float32)).save(held, format="tiff")
        with pytest.raises(DataError, match="32 bits a channel"):
            Picture(held.getvalue(), "here", "train").open()

    @pytest.mark.parametrize(
        ("mode", "kind"), [("L", "png"), ("CMYK", "jpeg"), ("LA", "png"), ("P", "gif"), ("1", "png")]
    )
    def test_every_kind_of_image_is_read(self, mode: str, kind: str) -> None:
        held = io.BytesIO()
        Image.new("RGB", (4, 4), (250, 250, 250)).convert(mode).save(held, format=kind)
        found = Picture(held.getvalue(), "here", "train").open().convert("RGB")
        assert np.asarray(found).min() > 230

    def test_a_few_broken_images_are_left_out_and_counted(self, tmp_path: Path) -> None:
        rows = made(50)
        rows[7], rows[31] = (b"torn", 2), (encoded(31)[:40], 1)
        folder = cifar(tmp_path, {"train": rows, "dev": made(10), "test": [*made(19), (b"torn", 4)]})
        found = images.read(of(folder, unreadable=0.05))
        assert [number(p) for p in found.train.items] == [i for i in range(50) if i not in (7, 31)]
        assert found.train.labels[7] == NAMES[8 % 5] and len(found.test) == 19 and found.unreadable == 3
        assert images.read(of(folder)).unreadable == 0, "nothing is looked at where nothing is allowed"
        with pytest.raises(DataError, match=r"2 of 50 images of train cannot be read.*0\.03 allows.*row 7"):
            images.read(of(folder, unreadable=0.03))

    def test_classes_missing_from_a_split(self, tmp_path: Path) -> None:
        """One that test lacks is no harm; one that train lacks cannot be learnt."""
        some = [row for row in made(30) if row[1] != 3]
        found = images.read(of(cifar(tmp_path / "a", {"train": made(50), "dev": made(10), "test": some})))
        assert found.classes == tuple(NAMES) and "dolphin" not in found.test.labels
        folder = cifar(tmp_path / "b", {"train": some, "dev": some, "test": made(30)})
        with pytest.raises(DataError, match='label "dolphin" is in test but not in train'):
            images.read(of(folder))
        found = images.read(of(folder, unseen_labels="drop"))
        assert found.dropped == 6 and len(found.test) == 24

    def test_absent_images_and_labels(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="row 2"):
            images.read(of(cifar(tmp_path / "a", {"train": [*made(2), (None, 1)], "test": made(5)})))
        with pytest.raises(DataError, match="hidden"):
            images.read(of(cifar(tmp_path / "b", {"train": made(10), "test": [(encoded(1), -1)]})))

    def test_columns_that_are_not_images(self, tmp_path: Path) -> None:
        folder = cifar(tmp_path, {"train": made(10), "test": made(5)})
        with pytest.raises(DataError, match=r'image = "image": .* has no such column\. .*fine_label, img'):
            images.read(of(folder, columns={}))
        with pytest.raises(DataError, match=r'row 0 .* holds "apple", expected an encoded image'):
            images.read(of(folder, columns={"image": "fine_label", "label": "fine_label"}))

    def test_splits_that_do_not_exist(self, tmp_path: Path) -> None:
        folder = cifar(tmp_path, {"train": made(10)})
        with pytest.raises(DataError, match='no table for "test"'):
            images.read(of(folder))
        with pytest.raises(DataError, match="leaves no dev split"):
            images.read(of(cifar(tmp_path, {"test": made(5)}), development=0.01))

    def test_a_label_of_bytes_is_refused(self, tmp_path: Path) -> None:
        table = pa.table({"image": [encoded(0), encoded(1)], "label": [b"cat", b"dog"]})
        for split in ("train", "test"):
            pq.write_table(table, tmp_path / f"{split}.parquet")
        with pytest.raises(DataError, match="label is 3 bytes, expected one label"):
            images.read(of(tmp_path, columns={}))

    def test_images_stay_where_they_are_until_opened(self, tmp_path: Path) -> None:
        found = images.read(of(cifar(tmp_path, {"train": made(20), "test": made(5)})))
        assert isinstance(found.test.items[0].content, pa.Buffer)


class TestFolders:
    def write(self, root: Path, splits: dict[str, int], nested: str = "") -> Path:
        for split, n in splits.items():
            for i in range(n):
                home = root / split / NAMES[i % 2] / nested
                home.mkdir(parents=True, exist_ok=True)
                (home / f"{i:03d}.{'PNG' if i % 3 else 'jpg'}").write_bytes(encoded(i, "png" if i % 3 else "jpeg"))
        return root

    @pytest.mark.parametrize("nested", ["", "images"])
    def test_class_folders(self, tmp_path: Path, nested: str) -> None:
        folder = self.write(tmp_path, {"train": 20, "val": 4, "test": 6}, nested)
        (folder / "train" / "apple" / "notes.txt").write_text("not an image")
        found = images.read(of(folder, columns={}, splits={"dev": "val"}))
        assert found.classes == ("apple", "bear")
        assert (len(found.train), len(found.dev), len(found.test)) == (20, 4, 6)
        assert all(
            NAMES[int(Path(p.where).stem) % 2] == label
            for p, label in zip(found.dev.items, found.dev.labels, strict=True)
        )

    def test_dev_is_cut(self, tmp_path: Path) -> None:
        found = images.read(of(self.write(tmp_path, {"train": 20, "test": 6})))
        assert (len(found.train), len(found.dev)) == (18, 2)

    def test_the_fingerprint_follows_names_and_contents(self, tmp_path: Path) -> None:
        prints = set()
        folder = self.write(tmp_path / "here", {"train": 20, "test": 6})
        prints.add(images.read(of(folder)).fingerprint)
        moved = folder.rename(tmp_path / "there")
        prints.add(images.read(of(moved)).fingerprint)
        assert len(prints) == 1
        (moved / "train" / "apple" / "002.PNG").write_bytes(encoded(77))
        prints.add(images.read(of(moved)).fingerprint)
        (moved / "train" / "apple" / "002.PNG").rename(moved / "train" / "bear" / "002.PNG")
        prints.add(images.read(of(moved)).fingerprint)
        assert len(prints) == 3

    def test_a_broken_file_is_named(self, tmp_path: Path) -> None:
        folder = self.write(tmp_path, {"train": 20, "test": 6})
        (folder / "test" / "bear" / "001.PNG").write_bytes(b"torn")
        with pytest.raises(DataError, match=r"test/bear/001\.PNG: no image"):
            [p.open() for p in images.read(of(folder)).test.items]

    def test_hidden_files_and_folders_are_no_images_and_no_classes(self, tmp_path: Path) -> None:
        folder = self.write(tmp_path, {"train": 20, "test": 6})
        print_ = images.read(of(folder)).fingerprint
        (folder / "train" / ".ipynb_checkpoints").mkdir()
        (folder / "train" / "apple" / "._000.jpg").write_bytes(b"what a Mac writes beside a file")
        found = images.read(of(folder))
        assert found.classes == ("apple", "bear") and found.fingerprint == print_

    def test_a_split_that_is_missing(self, tmp_path: Path) -> None:
        folder = self.write(tmp_path, {"train": 20, "tests": 6})
        with pytest.raises(
            DataError, match=r'no folder "test". Did you mean "tests"?.*: test/CLASS/. .* splits = { test'
        ):
            images.read(of(folder))

    @pytest.mark.parametrize("homes", [["apple", "bear"], ["train", "test"]])
    def test_images_that_lie_a_folder_too_high(self, tmp_path: Path, homes: list[str]) -> None:
        for home in homes:
            (tmp_path / home).mkdir()
            (tmp_path / home / "0.png").write_bytes(encoded(0))
        with pytest.raises(DataError, match=r"expected a folder of images for each class in it \(train/CLASS/\)"):
            images.read(of(tmp_path))

    @pytest.mark.parametrize("config", [None, "cifar100"])
    def test_tables_in_a_folder_a_config_and_a_split(self, tmp_path: Path, config: str | None) -> None:
        """As the Hub's converted tables lie: cifar100/train/0000.parquet."""
        for split in ("train", "test"):
            home = cifar(tmp_path / "made", {split: [(encoded(i), i % 5) for i in range(10)]})
            (tmp_path / "held" / "cifar100" / split).mkdir(parents=True)
            (home / f"{split}-00000-of-00001.parquet").rename(tmp_path / "held" / "cifar100" / split / "0000.parquet")
        found = images.read(of(tmp_path / "held", columns=COLUMNS, config=config, development=0.5))
        assert [len(part) for part in found.parts] == [5, 5, 10]

    @pytest.mark.parametrize("beside", ["assets/sample.png", "docs/figures/plot.png"])
    def test_pictures_beside_tables_are_no_classes(self, tmp_path: Path, beside: str) -> None:
        rows = [(encoded(i), i % 5) for i in range(10)]
        cifar(tmp_path, {"train": rows, "test": rows})
        (tmp_path / beside).parent.mkdir(parents=True)
        (tmp_path / beside).write_bytes(encoded(1))
        assert len(images.read(of(tmp_path, columns=COLUMNS, development=0.5)).test) == 10

    @pytest.mark.parametrize("layout", ["tables", "folders"])
    def test_images_of_train_are_told(self, layout: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        rows = {split: [(encoded(i + 100 * k), i % 5) for i in range(10)] for k, split in enumerate(("train", "test"))}
        if layout == "tables":
            cifar(tmp_path, rows)
        else:
            for split, found in rows.items():
                for i, (content, label) in enumerate(found):
                    (tmp_path / split / NAMES[label]).mkdir(parents=True, exist_ok=True)
                    (tmp_path / split / NAMES[label] / f"{i}.png").write_bytes(content)
        more = {"columns": COLUMNS} if layout == "tables" else {}
        images.read(of(tmp_path, **more, development=0.5))
        assert not caplog.text
        images.read(of(tmp_path, **more, splits={"dev": "test"}))
        assert "dev and test are the same rows" in caplog.text and "in train" not in caplog.text
        caplog.clear()
        images.read(of(tmp_path, **more, splits={"dev": "test", "test": "train"}))
        assert "10 of 10 images of test are in train, too" in caplog.text and "same rows" not in caplog.text
        if layout == "folders":
            caplog.clear()
            copied = next((tmp_path / "train" / NAMES[0]).iterdir())
            (tmp_path / "test" / NAMES[1] / "copy.png").write_bytes(copied.read_bytes())
            images.read(of(tmp_path, development=0.2))
            assert "1 of 11 images of test are in train, too" in caplog.text and "copy.png" in caplog.text

    def test_files_that_are_taken_for_no_image_are_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        for split in ("train", "test"):
            for label in NAMES[:2]:
                (tmp_path / split / label).mkdir(parents=True)
                for i, ending in enumerate(("png", "jfif", "pgm", "PNM", "txt", "heic")):
                    kind = {"jfif": "jpeg", "pgm": "ppm", "PNM": "ppm"}.get(ending, "png")
                    (tmp_path / split / label / f"{i}.{ending}").write_bytes(encoded(i, kind))
        found = images.read(of(tmp_path, development=0.5))
        assert [len(part) for part in found.parts] == [4, 4, 8]
        assert "train: 4 files in class folders taken for no image, by the ending: apple/4.txt" in caplog.text

    def test_a_dev_split_of_another_name_is_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        images.read(of(self.write(tmp_path, {"train": 20, "val": 4, "test": 6})))
        assert f'"val" of {tmp_path} is not read. If that is meant: splits = {{ dev = "val" }}' in caplog.text

    def test_so_is_that_of_a_table(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        rows = {"train": made(50), "validation": made(10, 50), "test": made(10, 100)}
        images.read(of(cifar(tmp_path, rows)))
        assert 'If that is meant: splits = { dev = "validation" }' in caplog.text

    def test_a_name_that_is_not_utf_8(self, tmp_path: Path) -> None:
        folder = self.write(tmp_path, {"train": 20, "test": 6})
        one = next(path for path in sorted((folder / "train").rglob("*")) if path.is_file())
        one.rename(one.with_name(os.fsdecode(b"caf\xe9.png")))
        with pytest.raises(DataError, match=r"caf\ufffd\.png: its name is not UTF-8\. Rename it\."):
            images.read(of(folder))

    def test_an_empty_class_folder(self, tmp_path: Path) -> None:
        folder = self.write(tmp_path, {"train": 20, "test": 6})
        (folder / "train" / "void").mkdir()
        with pytest.raises(DataError, match=r"train/void: no image in this class folder"):
            images.read(of(folder))


def mask(pixels: Any, mode: str | None = None) -> bytes:
    held = io.BytesIO()
    image = Image.fromarray(np.asarray(pixels, dtype=np.uint8))
    (image if mode is None else image.convert(mode)).save(held, format="png")
    return held.getvalue()


def masked(folder: Path, masks: list[bytes | None], **more: Any) -> DatasetSpec:
    """A table of pictures of 4 × 4 pixels with a column of masks, the same for every split."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [{"bytes": encoded(i), "path": None} for i in range(len(masks))]
    columns = {
        "image": pa.array(images, kind),
        "label": [f"class {i % 2}" for i in range(len(masks))],
        "where": pa.array([None if m is None else {"bytes": m, "path": None} for m in masks], kind),
    }
    folder.mkdir()
    for split in ("train", "dev", "test"):
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")
    return DatasetSpec("pictures", "images", path=str(folder), **{"columns": {"mask": "where"}, **more})


NUMBERS = np.arange(16).reshape(4, 4) % 4


def test_masks_are_read_where_the_table_names_them(tmp_path: Path) -> None:
    spec = masked(tmp_path / "t", [mask(NUMBERS), mask(np.eye(4) * 255)])
    first, second = images.read(spec).test.items
    assert np.array_equal(np.asarray(Foreground(first).open()), np.where(NUMBERS != 0, 255, 0))
    assert np.array_equal(np.asarray(Foreground(first, (1, 3)).open()), np.where(NUMBERS % 2, 255, 0))
    assert np.array_equal(np.asarray(Foreground(second).open()), np.eye(4) * 255)
    unnamed = images.read(DatasetSpec("pictures", "images", path=str(tmp_path / "t"))).test.items
    assert [picture.mask for picture in unnamed] == [None, None]


def test_a_mask_with_a_palette_is_read_by_its_numbers(tmp_path: Path) -> None:
    held = io.BytesIO()
    image = Image.fromarray(NUMBERS.astype(np.uint8), mode="P")
    image.putpalette([0, 0, 0, 9, 9, 9, 0, 0, 0, 255, 0, 0])  # number 2 is as black as the background
    image.save(held, format="png")
    picture = images.read(masked(tmp_path / "t", [held.getvalue()] * 2)).test.items[0]
    assert np.array_equal(np.asarray(Foreground(picture, [2]).open()), np.where(NUMBERS == 2, 255, 0))


def test_a_mask_of_16_bits_keeps_its_numbers(tmp_path: Path) -> None:
    held = io.BytesIO()
    Image.fromarray(NUMBERS.astype(np.uint16)).save(held, format="png")
    picture = images.read(masked(tmp_path / "t", [held.getvalue()] * 2)).test.items[0]
    assert np.array_equal(np.asarray(Foreground(picture, (1, 3)).open()), np.where(NUMBERS % 2, 255, 0))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (mask(np.zeros((4, 4, 3))), "mask: found RGB of 3 channels, expected one number a pixel"),
        (mask(np.zeros((2, 4))), "mask: 4 × 2 pixels, but its picture has 4 × 4"),
        (b"no mask", "mask: no image that can be read"),
    ],
)
def test_masks_that_are_none(tmp_path: Path, content: bytes, says: str) -> None:
    picture = images.read(masked(tmp_path / "t", [content] * 2)).test.items[1]
    with pytest.raises(DataError) as error:
        Foreground(picture).open()
    assert says in error.value.message and "test.parquet, row 1" in error.value.message


def test_a_size_is_the_headers_and_nothing_is_decoded() -> None:
    pixels_cut = Picture(encoded(7)[:45], "the table, row 0", "train")  # 41 bytes of header
    assert pixels_cut.size == (4, 4)
    with pytest.raises(DataError, match="the table, row 0: no image that can be read"):
        pixels_cut.open()
    with pytest.raises(DataError, match="the table, row 1: no image that can be read"):
        _ = Picture(b"no image", "the table, row 1", "train").size


def test_a_missing_mask_and_a_column_of_others(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 1 \(from 0\): mask is absent"):
        images.read(masked(tmp_path / "t", [mask(NUMBERS), None]))
    with pytest.raises(DataError, match=r'mask: .*row 0.* holds "class 0", expected an encoded image'):
        images.read(masked(tmp_path / "u", [mask(NUMBERS)] * 2, columns={"mask": "label"}))
    with pytest.raises(DataError, match=r'mask = "masks": .* has no such column'):
        images.read(masked(tmp_path / "v", [mask(NUMBERS)] * 2, columns={"mask": "masks"}))
