"""Who writes a study file, a row, a data file or a tracking server's answers gets no code run, no file outside its
place and no credential. What each of them is trusted with: docs/security.md."""

from __future__ import annotations

import ast
import io
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import clipstudy
from clipstudy import cli, data, hub, queueview, run, tasksfile
from clipstudy.cli import status
from clipstudy.data import boolq, conll2000, images, senteval, table
from clipstudy.errors import ClipstudyError, DataError, TrackingUnreachable
from clipstudy.features.cache import Store
from clipstudy.job import FailureKind, Group
from clipstudy.outcome import Artifact
from clipstudy.redaction import RedactedFormatter, redact
from clipstudy.settings import Settings, locate
from clipstudy.spec import DatasetSpec, ModelSpec, TaskSpec
from clipstudy.tracking import open as open_tracking
from clipstudy.tracking.entry import Entry, entry_tags, note
from clipstudy.tracking.runs import Tracking

ROOT = Path(clipstudy.__file__).parents[1]
CHECKSUM = "sha256:" + "0" * 64

# --- nothing that runs what it reads

#: Modules whose loaders run what a file says.
RUNNING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "jsonpickle"}
#: Where code is imported by a name, and why it may be: from a closed list of ours, or, of the worker's own packages.
BY_NAME = {
    "benchmarks/__main__.py",
    "clipstudy/backbones/__init__.py",
    "clipstudy/backbones/from_torch.py",
    "clipstudy/tasks/__init__.py",
    "clipstudy/tasks/parts/pairs.py",
}


def dangers(source: str) -> Iterator[str]:
    """What in ``source`` can run what it reads, as ``line: what``."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (f"{node.lineno}: import {n.name}" for n in names if n.name.partition(".")[0] in RUNNING)
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in RUNNING:
                yield f"{node.lineno}: from {module}"
            case ast.ImportFrom(module=str(module), names=names) if module.partition(".")[0] in ("torch", "numpy"):
                yield from (f"{node.lineno}: from {module} import {n.name}" for n in names if n.name.startswith("load"))
            case ast.Call():
                called = ast.unparse(node.func)
                given = {word.arg: word.value for word in node.keywords}
                if called in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"):
                    yield f"{node.lineno}: {called}()"
                if re.fullmatch(r"torch\.(\w+\.)*load(_\w+)?|(pd|pandas)\.read_pickle", called) or (
                    called in ("np.load", "numpy.load") and not _is(given, "allow_pickle", False)
                ):
                    yield f"{node.lineno}: {called}()"
                if called.endswith("import_module"):
                    yield f"{node.lineno}: import_module"
                if "trust_remote_code" in given and not _is(given, "trust_remote_code", False):
                    yield f"{node.lineno}: trust_remote_code"
                if "shell" in given and not _is(given, "shell", False):
                    yield f"{node.lineno}: shell"
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    if (
                        isinstance(key, ast.Constant)
                        and key.value == "trust_remote_code"
                        and ast.unparse(value) != "False"
                    ):
                        yield f"{node.lineno}: trust_remote_code"


def _is(given: dict[str | None, ast.expr], name: str, value: object) -> bool:
    return isinstance(found := given.get(name), ast.Constant) and found.value is value


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import joblib.memory",
        "from cloudpickle import loads",
        "eval(x)",
        "torch.load(x, weights_only=True)",
        "torch.jit.load(x)",
        "torch.hub.load_state_dict_from_url(x)",
        "from torch import load",
        "pd.read_pickle(x)",
        "np.load(x)",
        "np.load(x, allow_pickle=yes)",
        "importlib.import_module(x)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "f(**{'trust_remote_code': yes})",
        "subprocess.run(x, shell=True)",
    ],
)
def test_the_walk_finds(source: str) -> None:
    assert len(list(dangers(source))) == 1


def test_no_source_runs_what_it_reads() -> None:
    files = [file for part in ("clipstudy", "migrations", "benchmarks") for file in (ROOT / part).rglob("*.py")]
    found = [
        f"{file.relative_to(ROOT)}:{what}"
        for file in files
        for what in dangers(file.read_text(encoding="utf-8"))
        if not (what.endswith("import_module") and file.relative_to(ROOT).as_posix() in BY_NAME)
    ]
    assert len(files) > 150 and found == []


def test_no_row_imports_a_reader_that_does_not_exist() -> None:
    from clipstudy.tasks.parts.pairs import pairs_of

    for reader in ("table.os", "../os", "os", "", "images"):
        with pytest.raises(DataError, match=r"\[datasets\.d\] reader"):
            pairs_of(DatasetSpec("d", reader, path="./x"))


def test_nothing_that_is_started_imports_from_a_studys_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "this.py").write_text("import pathlib\npathlib.Path('it-ran').touch()\n")
    monkeypatch.chdir(tmp_path)
    start = [sys.executable, "-m", "this"]
    monkeypatch.setattr(cli, "app", lambda: subprocess.run(start, check=True, stdout=subprocess.DEVNULL))
    cli.main()
    assert not (tmp_path / "it-ran").exists()
    del os.environ["PYTHONSAFEPATH"]
    cli.app()
    assert (tmp_path / "it-ran").exists(), "it would have run"


@pytest.mark.parametrize("variable", ["DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY"])
def test_nothing_that_is_started_reports_its_use(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.read({"CLIPSTUDY_HOME": str(tmp_path)})

    def app() -> None:
        open_tracking(settings)  # what `ui` does before MLflow's server takes its place
        seen = f"import os, pathlib; pathlib.Path('seen').write_text(os.environ.get({variable!r}, ''))"
        subprocess.run([sys.executable, "-c", seen], check=True)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "app", app)
    cli.main()
    assert (tmp_path / "seen").read_text() == "true"
    monkeypatch.setenv(variable, "false")
    cli.main()
    assert (tmp_path / "seen").read_text() == "false", "a user's own word stands"


# --- paths


@pytest.mark.parametrize(
    "name",
    ["CLIPSTUDY_DATABASE", "CLIPSTUDY_TRACKING", "CLIPSTUDY_TOKEN", "CLIPSTUDY_ARTIFACTS", "CLIPSTUDY_X_PASSWORD"],
)
def test_a_path_reads_no_variable_that_may_hold_a_credential(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "/s3cret")
    assert "s3cret" not in str(locate(f"${{{name}}}/x", "/study"))
    assert "s3cret" not in str(locate(f"./${{{name}}}/x", "/study"))


@pytest.mark.parametrize("rest", ["../x", "../../../../etc/passwd", "/etc/passwd", "a/../../x", "./../x", "..", ""])
def test_no_path_leads_out_of_a_package(rest: str) -> None:
    found = locate(f"package:clipstudy/{rest}")
    assert found is not None and Path(os.path.normpath(found)).is_relative_to(Path(clipstudy.__file__).parent)


def test_odd_paths_are_no_traceback() -> None:
    assert locate("~nobody-of-that-name/x", "/study") == Path("/study/~nobody-of-that-name/x")
    assert locate("./a\0b") is None


@pytest.mark.parametrize("split", ["../secret.txt", "/etc/passwd", "a/../../secret.txt"])
@pytest.mark.parametrize(
    ("reader", "read"),
    [
        ("conll2000", lambda s: conll2000.read(s, "train")),
        ("boolq", boolq.read),
        ("images", images.read),
        ("table", table.read),
    ],
)
def test_a_split_is_in_its_folder(reader: str, read: Any, split: str, tmp_path: Path) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("The s3cret B-NP\n")
    spec = DatasetSpec("d", reader, path=str(tmp_path / "data"), splits={"train": split})
    with pytest.raises(DataError, match=r"\[datasets\.d\] splits: ") as caught:
        read(spec)
    assert "s3cret" not in caught.value.message


class TestWhereFetchWrites:
    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("study", "home", "elsewhere", "elsewhere}", "rows"):
            (tmp_path / name).mkdir()
        monkeypatch.setenv("CLIPSTUDY_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("CLIPSTUDY_ROWS", str(tmp_path / "rows"))
        (tmp_path / "study" / "link").symlink_to(tmp_path / "elsewhere")

    def place(self, path: str, tmp_path: Path) -> Path:
        spec = DatasetSpec(
            "d", "senteval", path=path, url="https://h/x", checksum=CHECKSUM, base=str(tmp_path / "study")
        )
        found = data.wanted(spec)
        assert isinstance(found, data.Released)
        return found.path

    @pytest.mark.parametrize(
        "path",
        [
            "./x.txt",
            "./data/x.tsv",
            "../home/x.csv",
            "${CLIPSTUDY_HOME}/a/x.txt",
            "${CLIPSTUDY_CACHE}/x.txt",
            "${CLIPSTUDY_ROWS}/x.txt",
        ],
    )
    def test_in_the_folders_that_are_its_own(self, path: str, tmp_path: Path) -> None:
        assert self.place(path, tmp_path).is_relative_to(tmp_path)

    @pytest.mark.parametrize(
        ("path", "says"),
        [
            ("/etc/cron.d/x.txt", "neither in the study file's folder"),
            ("../elsewhere/x.txt", "neither in the study file's folder"),
            ("./link/x.txt", "neither in the study file's folder"),
            ("~/x.txt", "neither in the study file's folder"),
            ("${CLIPSTUDY_ROWS}/../elsewhere/x.txt", "neither in the study file's folder"),
            ("${CLIPSTUDY_HOME}x/../../elsewhere}/x.txt", "neither in the study file's folder"),
            ("package:json/x.txt", "neither in the study file's folder"),
            ("./sitecustomize.py", "expected a name that ends with .txt"),
            ("./Makefile", "expected a name that ends with .txt"),
            ("./.ssh/x.txt", "in no hidden folder"),
            ("./.x.txt", "in no hidden folder"),
        ],
    )
    def test_nowhere_else(self, path: str, says: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"\[datasets\.d\] path") as caught:
            self.place(path, tmp_path)
        assert says in caught.value.message

    @pytest.mark.parametrize("value", ["", "/"])
    def test_nowhere_where_a_variable_names_the_whole_disk(
        self, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CLIPSTUDY_ROWS", value)
        with pytest.raises(DataError, match=r"\[datasets\.d\] path"):
            self.place("${CLIPSTUDY_ROWS}/anywhere/x.txt", tmp_path)


def test_a_view_of_a_row_names_no_other_file(tmp_path: Path) -> None:
    store, other = Store(tmp_path / "features"), tmp_path / "mine.0.npy"
    other.write_bytes(b"mine")
    for view in ("x/../../mine", "../mine", "", "a.b", "a b"):
        with pytest.raises(ValueError, match="no features can be kept"):
            store.read("k", view, 0, (1, 1))
        with pytest.raises(ValueError, match="no features can be kept"):
            store.sheet("k", view, 0, (1, 1))
    assert other.read_bytes() == b"mine"


def test_no_name_of_a_mirror_of_the_hub_leads_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["../../x.json", "a/../../../x.json", "config.json"]
    files = [SimpleNamespace(rfilename=name, size=1, lfs=None, blob_id="0") for name in names]
    told = SimpleNamespace(sha="c0ffee", siblings=files)
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *asked, **more: told)
    wanted = hub.Repository("datasets.d", "hub", "a/b", (hub.Part("rows", ("*.json",)),), "dataset")
    assert [entry.path for entry in hub.listing(wanted)[1]] == ["config.json"]


HOSTILE_NAMES = ["../x.png", "/tmp/x.png", "a/../../x.png", "..", "a\\..\\x.png"]


class Server:
    """A tracking server that answers as it likes, and otherwise the next time that it is asked."""

    def __init__(self, *places: str) -> None:
        self.places = list(places) or ["mlflow-artifacts:/1/r/artifacts"]

    def get_run(self, run_id: str) -> SimpleNamespace:
        place = self.places.pop(0) if len(self.places) > 1 else self.places[0]
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id, artifact_uri=place, status="RUNNING"))


class Kept:
    """What keeps a server's files, and lists names of its own choice."""

    def __init__(self) -> None:
        self.downloaded: list[str] = []

    def list_artifacts(self, path: str | None = None) -> list[SimpleNamespace]:
        if path is not None:
            return [SimpleNamespace(path=name, is_dir=False) for name in HOSTILE_NAMES]
        return [SimpleNamespace(path=name, is_dir=name == "..") for name in [*HOSTILE_NAMES, "good.png"]]

    def download_artifacts(self, name: str, place: str) -> str:
        self.downloaded.append(name)
        (Path(place) / name).write_bytes(b"good")
        return str(Path(place) / name)


ENTRY: Any = SimpleNamespace(artifacts=(Artifact("good.png", b"good"),), log="")


def asked(server: Server, artifacts: str = "") -> Tracking:
    tracking = Tracking("http://127.0.0.1:9", artifacts)
    tracking._opened = server, "0"  # type: ignore[assignment]
    return tracking


def test_no_name_of_a_tracking_server_leads_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    tracking, kept = asked(Server()), Kept()
    monkeypatch.setattr(tracking, "_repository", lambda run: kept)
    assert tracking.files("r") == ["good.png"] and tracking.artifact("r", "good.png") == b"good"
    for name in HOSTILE_NAMES:
        with pytest.raises(ClipstudyError, match="kept no"):
            tracking.artifact("r", name)
    assert kept.downloaded == ["good.png"]


#: Each would be checked as a folder of ours by who reads it as a URL; MLflow takes it as it stands.
ODD = ["{home}/artifacts/x?/../../../y", "{home}/artifacts/x#/../../y", "//tmp{home}/artifacts/x", "dbfs:/x"]
PLACES = [
    "{home}/x",
    "file:///etc",
    "{home}/artifacts/../x",
    "file://{home}/%2e%2e/x",
    "",
    "runs:/other/x",
    "models:/m/1",
]


@pytest.mark.parametrize("place", [*PLACES, *ODD, "FILE:{home}/x"])
def test_no_tracking_server_chooses_a_folder_of_ours(place: str, tmp_path: Path) -> None:
    server = Server(place.format(home=tmp_path))
    tracking = asked(server, str(tmp_path / "artifacts"))
    acts: list[Callable[[str], Any]] = [
        tracking.files,
        lambda run: tracking.artifact(run, "good.png"),
        lambda run: tracking._keep(server.get_run(run), ENTRY),  # type: ignore[arg-type]
    ]
    for act in acts:
        with pytest.raises(ClipstudyError, match="which it may not choose"):
            act("r")
    assert not any(tmp_path.iterdir())


def test_a_folder_that_both_share_is_one_that_we_named(tmp_path: Path) -> None:
    place = tmp_path / "artifacts" / "1" / "r"
    server = Server(place.as_uri())
    tracking = asked(server, str(tmp_path / "artifacts"))
    tracking._keep(server.get_run("r"), ENTRY)  # type: ignore[arg-type]
    assert (place / "good.png").read_bytes() == b"good"
    assert tracking.files("r") == ["good.png"] and tracking.artifact("r", "good.png") == b"good"


def test_a_tracking_server_that_changes_its_word_is_not_asked_again(tmp_path: Path) -> None:
    elsewhere = (tmp_path / "elsewhere").as_uri()
    server = Server("mlflow-artifacts:/1/r/artifacts", elsewhere)
    tracking = asked(server)
    with pytest.raises(TrackingUnreachable), tracking.reaching():  # nobody is at that address
        tracking._keep(server.get_run("r"), ENTRY)  # type: ignore[arg-type]
    for act in (tracking.files, lambda run: tracking.artifact(run, "good.png")):
        tracking._opened = Server("mlflow-artifacts:/1/r/artifacts", elsewhere), "0"  # type: ignore[assignment]
        with pytest.raises(TrackingUnreachable):
            act("r")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_no_artifact_of_a_row_is_written_elsewhere(name: str) -> None:
    tracking = Tracking("http://127.0.0.1:9", "")
    tracking._opened = SimpleNamespace(), "0"  # type: ignore[assignment]
    entry: Any = SimpleNamespace(artifacts=(Artifact(name, b"x"),), log="")
    with pytest.raises(ValueError, match="cannot be called"):
        tracking._keep("r", entry)


# --- data files that would make a reader do more than read


def test_images_that_other_programs_would_open_are_none(tmp_path: Path) -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(%pipe%touch x) (w) file\nshowpage\n%%EOF\n"
    with pytest.raises(DataError, match="no image that can be read"):
        images.Picture(eps, "here", "train").open()
    import PIL.Image

    for kind in images.FORMATS:
        held = io.BytesIO()
        PIL.Image.new("RGB", (3, 2), "red").save(held, kind)
        assert images.Picture(held.getvalue(), "here", "train").open().size == (3, 2)


def test_what_a_cell_calls_a_picture_is_not_opened(tmp_path: Path) -> None:
    """A column's metadata may say that its texts are places of pictures."""
    import datasets
    import PIL.Image
    import pyarrow as pa
    import pyarrow.parquet as pq

    PIL.Image.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    pictures = datasets.Features({"text": datasets.Sequence(datasets.Image()), "label": datasets.Value("string")})
    one = [[{"bytes": None, "path": str(tmp_path / "secret.png")}]]
    rows = pa.table({"text": one, "label": ["a"]}, schema=pictures.arrow_schema)
    (tmp_path / "data").mkdir()
    pq.write_table(rows, tmp_path / "data" / "train.parquet")
    found = table.load(DatasetSpec("d", "table", path=str(tmp_path / "data")), "train", ("text",))
    assert found.columns["text"] == one


@pytest.mark.parametrize("how", ["many rows", "long cells"])
def test_a_table_that_unfolds_without_end(how: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    some = pa.table({"text": ["a"] * 10**6 if how == "many rows" else [" " * 10**6]})
    with pq.ParquetWriter(tmp_path / "train.parquet", some.schema, compression="zstd") as file:
        for _ in range(24):
            file.write_table(some)
    with pytest.raises(DataError, match=r"train\.parquet cannot be read as parquet \(.* more than any data does"):
        table.load(DatasetSpec("d", "table", path=str(tmp_path)), "train", ("text",))


# --- credentials

SECRETS = {
    "HF_TOKEN": "tok-0123456789",
    "MLFLOW_TRACKING_PASSWORD": "pass-0123456789",
    "CLIPSTUDY_TOKEN": "dash-0123456789",
    "AWS_SECRET_ACCESS_KEY": "aws/0123456789",
    "PGPASSWORD": "pg-0123456789",
}


def test_a_credential_of_the_environment_is_told_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
        assert redact(f"refused: {value}.") == "refused: ***."
    monkeypatch.setenv("HF_TOKEN_PATH", "/home/me/token")
    monkeypatch.setenv("PGPASSWORD", "a")
    assert redact("a file /home/me/token") == "a file /home/me/token"


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer S3CRETS3CRET",
        "{'authorization': 'Basic S3CRETS3CRET='}",
        "the token hf_S3CRETS3CRETS3CRET is not valid",
        "http://me:S3CRET@host:5000/api/2.0/mlflow",
        "postgresql+psycopg://me:S3CRET@host/db",
        "https://ghp_S3CRETS3CRET@github.com/a/b",
        "https://S3CRETS3CRET@host/api",
        "cannot clone with ghp_S3CRETS3CRET",
        "https://a.blob.core.windows.net/c?sv=1&sig=S3CRET%3D&se=2",
        "https://bucket.s3.amazonaws.com/x?X-Amz-Credential=S3CRET&X-Amz-Signature=S3CRET&a=b",
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=S3CRET==",
        "password: S3CRET",
        "password = S3CRET",
        'aws_secret_access_key = "S3CRET"',
        "{'password': 'S3 CRET S3CRET', 'user': 'me'}",
        '{"api_key": "S3CRET"}',
        "sent bearer S3CRETS3CRET",
        "X-Api-Key: S3CRET",
    ],
)
def test_credentials_of_requests(text: str) -> None:
    assert "S3CRET" not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "pad_token='[PAD]', max_tokens=77, tokens: 5",
        "[models.x] key = 3 is unknown; the secret of its success",
        "password authentication failed for user me",
        "the bearer of news",
        "clipstudy.layer=3 sigma=2 significant=no",
    ],
)
def test_what_is_none_is_left_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_no_log_line_and_no_traceback_tells_a_password() -> None:
    held = io.StringIO()
    handler = logging.StreamHandler(held)
    handler.setFormatter(RedactedFormatter("%(message)s"))
    try:
        raise OSError("cannot reach postgresql://me:S3CRET@host/db")
    except OSError as error:
        record = logging.LogRecord(
            "x", logging.ERROR, "f", 1, "with %s", ("http://a:S3CRET@h",), (OSError, error, error.__traceback__)
        )
    handler.handle(record)
    assert "S3CRET" not in held.getvalue() and "Traceback" in held.getvalue() and "OSError" in held.getvalue()


def test_a_bug_prints_a_traceback_without_credentials(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("http://me:S3CRET@host refused \x1b]0;x\x07")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert (
        ended.value.code == 70
        and "\x1b" not in said
        and "S3CRET" not in said
        and "RuntimeError: http://me:***@host" in said
    )


def test_no_credential_reaches_the_table_or_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed attempt of a group whose author wrote a login where none belongs."""
    monkeypatch.setenv("HF_TOKEN", "S3CRET-0123456789")
    login = "http://me:S3CRET@host/x"
    error = RuntimeError(f"{login} says no to S3CRET-0123456789")
    failure = run.failure_of(error)
    held = DatasetSpec("d", "senteval", path=login)
    model = ModelSpec("m", "transformers", login, 2, label=login)
    group = Group("s", model, held, TaskSpec("t", "classify", "d", "accuracy"), login)
    now = datetime.now(UTC)
    entry = Entry(group, 1, 1, 0, "l", "failed", now, now, error=str(error), params={"x": login}, tags={"y": login})
    told = [failure.error, entry.title, note(group, entry), *entry_tags(entry).values()]
    told += entry.result("r").params.values()
    assert len(told) > 20 and "S3CRET" not in " ".join(told) and "http://me:***@host" in failure.error


def test_a_message_steers_no_terminal() -> None:
    message = ClipstudyError("found \x1b[2J\x1b]0;owned\x07 and \u202egnp.exe, caf\u00e9\n\tnext").message
    assert not {"\x1b", "\x07", "\u202e"} & set(message) and "caf\u00e9\n\tnext" in message


def test_a_row_steers_no_terminal() -> None:
    """`status` shows what the table says, and others may write it."""
    from rich.console import Console

    evil = "\x1b]0;owned\x07\x1b[2J"
    named = dict.fromkeys(("study", "model", "task", "label", "worker", "error"), evil)
    job: Any = SimpleNamespace(**named, id=1, status="failed", attempt=1, failure=FailureKind.CODE)
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    failed = status.failure_lines(1, queueview.failure_rows([job]))
    console.print(status.cell_table([job]), status.CountTable({(evil, evil, evil): {}}, {}), *failed)
    assert "owned" in shown.getvalue() and not {"\x1b", "\x07"} & set(shown.getvalue())


def test_no_login_in_a_study_file() -> None:
    text = f'''
[datasets.d]
reader = "senteval"
path = "./x.txt"
url = "https://me:S3CRET@host/x.txt"
checksum = "{CHECKSUM}"
'''
    with pytest.raises(ClipstudyError, match="url: found a login") as caught:
        tasksfile.parse(text, Path("study.toml"))
    assert "S3CRET" not in caught.value.message


def test_readers_quote_little_of_a_file(tmp_path: Path) -> None:
    """What an error quotes goes into the job table and MLflow: a row may name any file that the worker can read."""
    line = "k" * 5000
    for name, read in (("x.txt", lambda s: senteval.read(s)), ("train.txt", lambda s: conll2000.read(s, "train"))):
        file = tmp_path / name
        file.write_text(f"{line}\n")
        with pytest.raises(DataError) as caught:
            read(DatasetSpec("d", "x", path=str(file)))
        assert "k" * 100 not in caught.value.message
