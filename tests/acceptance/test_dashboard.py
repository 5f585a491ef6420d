"""`clipstudy dashboard` serves what is there, says so in one line, and keeps others out."""

from __future__ import annotations

import socket
import urllib.request

import pytest

from tests.acceptance.conftest import Place, Typed


def test_served(place: Place) -> None:
    place("enqueue", "--all")
    running = place.start("dashboard", "--port", "0", CLIPSTUDY_TOKEN="0123456789abcdef")
    try:
        assert running.stdout
        line = running.stdout.readline()
        assert line.startswith("0 results on http://127.0.0.1:") and "abcdef" not in line
        request = urllib.request.Request(line.split()[3], headers={"Authorization": "Bearer 0123456789abcdef"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200 and b"What each layer knows" in answer.read()
    finally:
        running.terminate()
        running.communicate(timeout=60)


def test_mistakes_are_told(place: Place) -> None:
    away = place("dashboard", "--host", "0.0.0.0", ok=False)
    assert away.returncode == 2 and "export CLIPSTUDY_TOKEN" in away.stderr and "Traceback" not in away.stderr
    unknown = place("dashboard", "--dashboard", "layrs", "--port", "0", ok=False)
    assert unknown.returncode == 2 and 'Did you mean "layers"?' in unknown.stderr


def test_a_study_that_is_nowhere_is_not_served(typed: Typed) -> None:
    typed("enqueue", "--all")
    assert 'There is no study "smal". Did you mean "small"?' in typed("dashboard", "--study", "smal", code=2).err


def test_a_port_that_another_program_has(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = typed("dashboard", "--port", str(port), code=2).err
    assert said.splitlines()[-1] == (
        f"clipstudy: --port {port}: another program listens there. Type: clipstudy dashboard --port {port + 1} "
        "(or --port 0, which takes a free one)"
    )
    assert "in use" not in said
    monkeypatch.setenv("CLIPSTUDY_TOKEN", "0123456789abcdef")
    assert "cannot listen there" in typed("dashboard", "--host", "192.0.2.1", "--port", "0", code=2).err  # nobody's
