"""Outcomes, settings and messages."""

from __future__ import annotations

import errno
import inspect
import io
import logging
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipstudy import errors
from clipstudy.cli import screen
from clipstudy.outcome import Estimate, Outcome, estimates, flat, metrics_from_json, metrics_to_json
from clipstudy.progress import Bars, Lines, paced
from clipstudy.redaction import redact
from clipstudy.settings import Settings, locate
from clipstudy.wording import duration

finite = st.floats(-1e6, 1e6)
metrics = st.dictionaries(
    st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8})?", fullmatch=True),
    st.one_of(st.builds(Estimate, finite), st.builds(Estimate, finite, finite, finite)),
)


@given(metrics)
def test_metrics_round_trip(found: dict[str, Estimate]) -> None:
    assert estimates(flat(found)) == found
    assert metrics_from_json(metrics_to_json(found)) == found


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite: accuracy"):
        metrics_to_json({"accuracy": Estimate(bad)})


def test_outcome_numbers() -> None:
    outcome = Outcome(3, {"accuracy": Estimate(0.5, 0.4, 0.6), "n": Estimate(7)})
    assert outcome.numbers() == {"accuracy": 0.5, "accuracy.low": 0.4, "accuracy.high": 0.6, "n": 7}


def test_settings_defaults_are_embedded(tmp_path: Path) -> None:
    settings = Settings.read({"CLIPSTUDY_HOME": str(tmp_path)})
    assert settings.database == f"sqlite:///{tmp_path}/mlruns/clipstudy.db"
    assert settings.tracking == f"sqlite:///{tmp_path}/mlruns/mlflow.db"


def test_settings_read_the_environment() -> None:
    settings = Settings.read({"CLIPSTUDY_DATABASE": "postgresql://h/d", "MLFLOW_TRACKING_URI": "http://h:5000"})
    assert (settings.database, settings.tracking) == ("postgresql://h/d", "http://h:5000")


@pytest.mark.parametrize("text", ["inf", "nan", "-1", "0", "1e999", "much"])
def test_a_size_is_a_number_above_0(text: str) -> None:
    with pytest.raises(errors.ClipstudyError, match=f'CLIPSTUDY_CACHE_GB is "{text}", expected a number above 0'):
        Settings.read({"CLIPSTUDY_CACHE_GB": text})
    assert Settings.read({"CLIPSTUDY_CACHE_GB": "0.5"}).cache_gb == 0.5


@pytest.mark.parametrize("name", ["CLIPSTUDY_DATABASE", "CLIPSTUDY_TRACKING", "MLFLOW_TRACKING_URI"])
@pytest.mark.parametrize(
    "url", ["sqlite://x.db", "sqlite:x.db", "sqlite:/x.db", "SQLite+pysqlite://x.db", "sqlite://", "sqlite:///"]
)
def test_a_sqlite_url_names_a_file(name: str, url: str) -> None:
    with pytest.raises(errors.ClipstudyError) as told:
        Settings.read({name: url})
    assert told.value.message.startswith(f'{name} is "{url}", which names no file')
    assert told.value.message.endswith(f"export {name}=sqlite:///FOLDER/file.db")
    for good in ("sqlite:///x.db", "sqlite:////a/x.db", "sqlite+pysqlite:///x.db?timeout=1"):
        assert good in vars(Settings.read({name: good})).values()


def test_a_folder_may_be_in_a_home_that_there_is() -> None:
    settings = Settings.read({"CLIPSTUDY_HOME": "~/study", "CLIPSTUDY_CACHE": "~/cache"})
    assert (settings.home, settings.cache) == ((Path.home() / "study").resolve(), Path.home() / "cache")
    for name in ("CLIPSTUDY_HOME", "CLIPSTUDY_CACHE"):
        with pytest.raises(errors.ClipstudyError, match=f'{name} is "~nobody-of-that-name/x".*export {name}='):
            Settings.read({name: "~nobody-of-that-name/x"})


def test_where_files_are_kept_is_a_url_or_a_whole_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is written into the store, which is read from other folders."""
    monkeypatch.chdir(tmp_path)
    for text, meant in (("~/runs", Path.home() / "runs"), ("runs", tmp_path / "runs"), ("s3://b/runs", "s3://b/runs")):
        assert Settings.read({"CLIPSTUDY_ARTIFACTS": text}).artifacts == str(meant)


def test_passwords_are_redacted() -> None:
    assert "s3cret" not in redact("cannot reach postgresql+psycopg://me:s3cret@host/db or http://a:s3cret@b")
    assert redact("postgresql://me:p@ss/w:d@host/db") == "postgresql://me:***@host/db"
    assert redact("postgresql://h/db?user=me&password=s3cret&x=1") == "postgresql://h/db?user=me&password=***&x=1"
    assert redact("a://me:s3cret?password=b@h c") == "a://me:***@ c"
    assert redact("host=h password='s3cret 2' user=me") == "host=h password=*** user=me"
    assert redact("'http://a:s3cret@h' and b@h") == "'http://a:***@h' and b@h"
    for harmless in ("http://host:5000/x", "sqlite:////a:b/c.db", "lower max_tokens=512", "postgresql://me@host/db"):
        assert redact(harmless) == harmless


#: What a password may be made of in a URL of free text: anything but white space and quotes.
around = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\"'"), max_size=12)
#: A query's values end at the next `&` or `#`.
in_query = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\"'&#"), max_size=12)
where = st.sampled_from(["postgresql://me:{}@host/db", "http://:{}@host:5000", "a://b/c:{}@h?password=x@y"])
asked = st.sampled_from(["postgresql://me:x@host/db?password={}", "http://h:5000/x?a=b&token={}", "PASSWORD={}"])


@given(where, around, around)
def test_no_password_of_a_url_is_told(url: str, before: str, after: str) -> None:
    told = redact(f"cannot reach '{url.format(before + 'S3CRET' + after)}': refused")
    assert "S3CRET" not in told and told.endswith("': refused")


@given(asked, in_query, in_query)
def test_no_password_of_a_query_is_told(text: str, before: str, after: str) -> None:
    assert "S3CRET" not in redact(text.format(before + "S3CRET" + after) + " refused")


@given(
    st.sampled_from(["CLIPSTUDY_TRACKING", "CLIPSTUDY_DATABASE", "HTTPS_PROXY"]),
    st.text(max_size=12),
    st.text(max_size=12),
)
def test_of_a_url_in_the_environment_no_password_is_told_whatever_it_is_made_of(
    name: str, before: str, after: str
) -> None:
    password = f"{before}S3CRET{after}".replace("\0", "").encode(errors="replace").decode()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(name, f"http://me:{password}@host:5000")
        for told in (f"http://me:{password}@host:5000 refused", f"{f'http://me:{password}@host:5000'!r} refused"):
            assert "S3CRET" not in redact(told)


class TestLocate:
    def test_names_are_not_paths(self) -> None:
        assert locate("google-bert/bert-base-uncased") is None

    def test_paths(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CLIPSTUDY_REAL_DATA", "/rows")
        assert locate("./a/b", "/study") == Path("/study/a/b")
        assert locate("../a", "/study") == Path("/a")
        assert locate("/a/b", "/study") == Path("/a/b")
        assert locate("${CLIPSTUDY_REAL_DATA}/x") == Path("/rows/x")

    def test_variables_that_have_a_default_need_not_be_set(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for name in ("CLIPSTUDY_CACHE", "CLIPSTUDY_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert locate("${CLIPSTUDY_CACHE}/rows.txt") == tmp_path / "clipstudy" / "rows.txt"
        assert locate("${CLIPSTUDY_HOME}/rows.txt") == Path.cwd() / "rows.txt"
        monkeypatch.setenv("CLIPSTUDY_CACHE", "/elsewhere")
        assert locate("${CLIPSTUDY_CACHE}/rows.txt") == Path("/elsewhere/rows.txt")

    def test_a_variable_that_is_set_to_nothing_is_not_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CLIPSTUDY_REAL_DATA", "")
        assert locate("${CLIPSTUDY_REAL_DATA}/x", "/study") == Path("/study/${CLIPSTUDY_REAL_DATA}/x")

    def test_other_variables_stay_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SECRET", "s3cret")
        assert "s3cret" not in str(locate("./${SECRET}/x", "/study"))
        assert locate("${SECRET}/x") is None

    def test_packages(self) -> None:
        import clipstudy

        assert locate("package:clipstudy/tasks") == Path(clipstudy.__file__).parent / "tasks"
        assert not locate("package:no_such_package/x").exists()  # type: ignore[union-attr]


def test_every_error_says_what_to_do() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.ClipstudyError)]
    assert len(classes) > 8
    what_to_do = re.compile(r"\b(clipstudy [a-z]+|CLIPSTUDY_[A-Z]+|Fix|Check|Say|Try|Update)\b")
    for cls in classes:
        if cls is not errors.ClipstudyError:
            _, _, then = cls().message.partition(". ")
            assert what_to_do.search(then), cls


def test_did_you_mean() -> None:
    assert errors.did_you_mean("brt", ["bert", "gpt2"]) == 'Did you mean "bert"? What exists: bert, gpt2.'
    assert errors.did_you_mean("zzz", []) == "What exists: none."
    assert errors.nearest("F1", ["native/macro_f1", "accuracy", "macro_f1"]) == 'Did you mean "macro_f1"? '
    assert errors.nearest("od", ["model"]) == "" and "clip-vit" in errors.nearest("CLIP", ["small", "clip-vit"])
    assert errors.nearest("m", ["macro_f1"]) == errors.nearest("", ["macro_f1"]) == ""


def test_stages_that_take_turns_are_both_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    lines = Lines(every=0)
    for done in (1, 2):
        for what in ("bert", "gpt2"):
            lines(what, done, 10)
    lines("bert", 0, 10)  # again from the start: nothing to say of its pace yet
    assert [record.message.split(",")[0] for record in caplog.records] == [": bert 2/10", ": gpt2 2/10"]


def test_what_was_there_before_says_nothing_of_the_pace(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    now = [1000.0]
    monkeypatch.setattr("clipstudy.progress.time.monotonic", lambda: now[0])
    lines = Lines()
    for done in (300, 310, 600, 0, 600):
        lines("cells", done, 600)
        now[0] += 20
    assert [record.message for record in caplog.records] == [
        ": cells 310/600, 0.5/s, 9 min 40 s left",
        ": cells 600/600, 7.5/s in 40 s",
        ": cells 600/600, 30.0/s in 20 s",  # begun once more
    ]


def test_bars_tell_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("clipstudy.progress.time.monotonic", lambda: now[0])
    bars = Bars()
    bars.batch("bert · shift")
    for done in (0, 1.5, 6, 0):
        bars("probes", done, 6)
        (bar,) = bars.rich.tasks
        told = bar.description, bar.fields["paced"]
        expected = {0: "probes 0/6, – left", 1.5: "probes 2/6, 0.1/s, 1 min 0 s left", 6: "probes 6/6, 0.1/s in 40 s"}
        assert told == ("bert · shift", expected[done])
        now[0] += 20
    bars.batch("gpt2 · shift")
    assert bars.rich.tasks == []
    bars.close()


def test_a_terminal_that_was_closed_ends_nothing() -> None:
    bars = Bars()

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

    bars.rich.console.file = Closed()
    bars.batch("bert · shift")
    bars("probes", 1, 6)
    bars.say("a line")
    screen.log(False, bars)
    logging.getLogger("clipstudy").warning("a warning")
    bars.close()


def test_progress_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    lines = Lines(every=0)
    lines.batch("bert · shift")
    for done in (0, 5, 10):
        lines("encode", done, 10)
    assert "bert · shift: encode 5/10" in caplog.text
    assert paced("encode", 30, 120, 10) == "encode 30/120, 3.0/s, 30 s left"
    # The first step of many has not been taken: nobody knows how long they take.
    assert paced("probes", 0.02, 54, 2.5) == paced("probes", 0.1, 54, 60) == "probes 0/54, – left"
    assert paced("probes", 0.6, 54, 60) == "probes 1/54, 0.0/s, 1 h 29 min left"
    assert paced("probes", 2, 54, 1) == "probes 2/54, 2.0/s, 26 s left"
    assert [duration(s) for s in (42, 190, 7500)] == ["42 s", "3 min 10 s", "2 h 5 min"]
