"""Who is let in, and what a hostile request gets: no results, no files, no traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from clipstudy.dashboard import app, guard
from clipstudy.errors import ClipstudyError, TrackingUnreachable
from clipstudy.job import Status
from clipstudy.queue import dialect, jobs, migration
from clipstudy.results.run_files import RunFiles
from tests.browser.served import desk, picture
from tests.made_up import BERT, MODELS, SHIFT, result
from tests.queue import samples

TOKEN = "0123456789abcdef0123"
RUN = result(BERT, SHIFT, 1).run_id


def client(**how: Any) -> FlaskClient:
    shown = desk(
        [result(BERT, SHIFT, k) for k in (0, 1)], files={RUN: {"maps/a b.png": picture("red"), "log.txt": b""}}
    )
    return app.application(shown, **how).server.test_client()


@pytest.mark.parametrize("host", ["127.0.0.1:8050", "localhost", "LOCALHOST:1", "[::1]:8050", "gpu-7.lab:8050"])
def test_known_names_are_answered(host: str) -> None:
    assert client(hosts=["gpu-7.lab"]).get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("path", app.PAGES)
def test_an_address_that_is_no_page_is_not_found(path: str) -> None:
    assert client().get(f"{path}?no=such").status_code == 200
    answer = client().get(f"{path}nowhere")
    assert answer.status_code == 404 and b"react-entry-point" in answer.data, "the frame says what there is"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil:80", "[", "a@b@localhost"])
def test_other_names_are_not(host: str) -> None:
    for path in ("/", "/_dash-layout", "/take/tables.csv", f"/picture/{RUN}/maps/a%20b.png"):
        answer = client().get(path, headers={"Host": host})
        assert answer.status_code in (400, 403) and b"bert" not in answer.data.lower()


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_a_page_elsewhere_cannot_ask_for_changes(headers: dict[str, str]) -> None:
    answer = client().post("/_dash-update-component", json={}, headers={"Host": "localhost", **headers})
    assert answer.status_code == 403


@pytest.mark.parametrize("allowed", [False, True])
def test_a_request_changes_a_row_only_where_that_is_allowed(allowed: bool, tmp_path: Path) -> None:
    """As the page's own button sends it: there is none to press without ``--allow-actions``, and nothing behind it."""
    engine = dialect.connect(f"sqlite:///{tmp_path / 'q.db'}")
    migration.migrate(engine)
    failed = samples.one_of_each(engine)[Status.FAILED].id
    verbs = [{"type": "act", "verb": verb} for verb in ("retry", "cancel")]
    press = {
        "output": "..did.children...tick.n_intervals..",
        "outputs": [{"id": "did", "property": "children"}, {"id": "tick", "property": "n_intervals"}],
        "inputs": [[{"id": verb, "property": "n_clicks", "value": 1} for verb in verbs]],
        "changedPropIds": [json.dumps(verbs[0], separators=(",", ":"), sort_keys=True) + ".n_clicks"],
        "state": [
            {"id": "cells", "property": "selectedRows", "value": [{"id": failed}]},
            {"id": "tick", "property": "n_intervals", "value": 0},
        ],
    }
    shown = desk([], engine=engine, allow_actions=allowed)
    visitor = app.application(shown).server.test_client()
    answer = visitor.post("/_dash-update-component", json=press, headers={"Host": "localhost"})
    assert (answer.status_code == 200) is allowed
    assert jobs.get(engine, failed).status is (Status.QUEUED if allowed else Status.FAILED)
    engine.dispose()


def test_a_token_is_asked_for_and_then_forgotten_by_the_address() -> None:
    visitor = client(token=TOKEN)
    for path in ("/", "/_dash-layout", "/take/tables.csv", "/assets/app.js", f"/?token={TOKEN}"):
        answer = visitor.get(path)
        assert answer.status_code == 401 and TOKEN not in answer.text and "BERT" not in answer.text
    assert visitor.post("/token", data={"token": "wrong"}).status_code == 401
    assert visitor.post("/token", data={"token": "ü"}).status_code == 401
    welcome = visitor.post("/token", data={"token": TOKEN})
    assert (welcome.status_code, welcome.headers["Location"]) == (303, "/")
    cookie = welcome.headers["Set-Cookie"]
    assert TOKEN not in cookie and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert visitor.get("/").status_code == 200
    assert client(token=TOKEN).get("/", headers={"Cookie": cookie}).status_code == 401, "of another server"
    assert client(token=TOKEN).get("/", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_other_machines_need_a_token() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.8.0.1"):
        guard.check(host, None)
    for host in ("0.0.0.0", "::", "10.1.2.3", "gpu-7.lab", ""):
        with pytest.raises(ClipstudyError, match="export CLIPSTUDY_TOKEN"):
            guard.check(host, None)
        guard.check(host, TOKEN)
    with pytest.raises(ClipstudyError, match="has 5 characters, expected at least 16"):
        guard.check("127.0.0.1", "short")


@pytest.mark.parametrize(
    "path",
    ["../../etc/passwd", "maps/../../../etc/passwd", "/etc/passwd", "%2e%2e%2fetc%2fpasswd", "maps", "log.txt", "%00"],
)
def test_a_picture_is_one_that_a_run_keeps(path: str) -> None:
    answer = client().get(f"/picture/{RUN}/{path}")
    # A path that is no picture's may be one of the application's own, which answers with its empty frame.
    assert answer.status_code == 404 or answer.mimetype == "text/html"
    assert "root:" not in answer.text


@pytest.mark.parametrize("path", ["/take/tables.csv?table=differences&first=bert&second=gpt2", f"/picture/{RUN}/a.png"])
def test_files_while_mlflow_is_away(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said as pages say it, not as an error of the server's."""

    def away(*_: object) -> None:
        raise TrackingUnreachable("MLflow at http://me:s3cret@mlflow:5000 does not answer.")

    for asked in ("tested", "picture"):
        monkeypatch.setattr(RunFiles, asked, away)
    shown = desk([result(model, SHIFT, 1) for model in MODELS[:2]])
    answer = app.application(shown).server.test_client().get(path)
    assert (answer.status_code, answer.mimetype) == (503, "text/plain")
    assert "does not answer" in answer.text and "s3cret" not in answer.text


def test_a_picture_that_is_kept() -> None:
    answer = client().get(f"/picture/{RUN}/maps/a%20b.png")
    assert (answer.status_code, answer.mimetype) == (200, "image/png") and answer.data == picture("red")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert client().get("/picture/nobody/maps/a%20b.png").status_code == 404


def test_the_policy_lets_a_page_run_its_own_scripts_alone() -> None:
    policy = client().get("/").headers["Content-Security-Policy"]
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    assert rules["default-src"] == ["'none'"] and rules["connect-src"] == ["'self'"]
    assert rules["script-src"][0] == "'self'" and all(r.startswith("'sha256-") for r in rules["script-src"][1:])


@pytest.mark.parametrize("name", ["tables.exe", "tables.", "nothing.csv", "..%2Ftables.csv", "queue.csv"])
def test_no_other_files_are_made(name: str) -> None:
    answer = client().get(f"/take/{name}")
    assert answer.status_code == 404 or answer.mimetype == "text/html", "at most the application's empty frame"
    assert "Content-Disposition" not in answer.headers


def test_files_come_under_a_plain_name() -> None:
    answer = client().get("/take/layers.csv?panel=Syntactic&task=bigram_shift&model=%0d%0aSet-Cookie:x")
    assert answer.status_code == 200 and answer.headers["Content-Disposition"] == (
        'attachment; filename="paper-bigram_shift-accuracy.csv"'
    )
    assert "Set-Cookie" not in answer.headers


def test_a_callback_takes_any_value() -> None:
    """Values of wrong types for every input: a page comes back, or nothing, and no error."""
    visitor = client()
    drawn = ("controls.children", "chosen.data", "body.children", "pages.children", "said.children")
    outputs = (*drawn, "tick.disabled", "tick.interval", "drawn.data")
    for path in ("/", "/tables", "/claims", "/gallery", "/runs", "/queue", "/nowhere", 7, None, {"a": 1}, "//"):
        for query in (
            "?x=1&task=%00&study=<b>",
            "?first=a&second=a&table=differences",
            5,
            None,
            ["?"],
            "?" + "a" * 9999,
        ):
            sent = {
                "output": f"..{'...'.join(outputs)}..",
                "outputs": [dict(zip(("id", "property"), out.split("."), strict=True)) for out in outputs],
                "changedPropIds": ["at.search"],
                "inputs": [
                    {"id": "at", "property": "pathname", "value": path},
                    {"id": "at", "property": "search", "value": query},
                    {"id": "tick", "property": "n_intervals", "value": {"x": []}},
                ],
                "state": [
                    [{"id": {"type": "control", "key": "task"}, "property": "id", "value": [1, None]}],
                    [{"id": {"type": "control", "key": "task"}, "property": "value", "value": {"a": 1}}],
                    {"id": "chosen", "property": "data", "value": [query]},
                    {"id": "drawn", "property": "data", "value": query},
                ],
            }
            answer = visitor.post("/_dash-update-component", json=sent)
            assert answer.status_code == 200, (path, query, answer.text[-500:])
            assert "Traceback" not in answer.text and "body" in json.loads(answer.text)["response"]
