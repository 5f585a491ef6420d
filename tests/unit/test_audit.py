"""`make audit` says what is known, and never that nothing is where nobody could be asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "audit.py"
SOUND = {"name": "sound", "version": "1", "vulns": []}
WEAK = {"name": "weak", "version": "2", "vulns": [{"id": "V-1", "fix_versions": ["2.1"]}]}
UNKNOWN = {"name": "unknown", "skip_reason": "not found"}
OURS = {"name": "clipstudy", "skip_reason": "not found"}


def answered(tmp_path: Path, *packages: object, says: str | None = None) -> subprocess.CompletedProcess[str]:
    """What the script makes of an advisory service that answers with ``packages``."""
    text = json.dumps({"dependencies": packages}) if says is None else ""
    tool = tmp_path / "tool"
    tool.write_text(
        f"#!{sys.executable}\nimport sys\nprint({text!r})\nprint({says or ''!r}, file=sys.stderr)\nsys.exit(1)\n"
    )
    tool.chmod(0o755)
    return subprocess.run([sys.executable, str(SCRIPT), str(tool)], capture_output=True, text=True)


def test_none_known(tmp_path: Path) -> None:
    done = answered(tmp_path, SOUND, UNKNOWN, OURS)
    assert done.returncode == 0 and "1 packages asked about: vulnerabilities are known in 0." in done.stdout
    assert "unverified: unknown." in done.stdout


def test_some_known(tmp_path: Path) -> None:
    done = answered(tmp_path, SOUND, WEAK)
    assert done.returncode == 1 and "weak 2: V-1, mended in 2.1" in done.stdout


@pytest.mark.parametrize("says", [None, "ConnectionError: no route to host"])
def test_nobody_to_ask(tmp_path: Path, says: str | None) -> None:
    done = answered(tmp_path, UNKNOWN, OURS, says=says)
    assert done.returncode == 3 and "Nothing is known either way" in done.stderr and "Traceback" not in done.stderr
