"""Are vulnerabilities known in the packages that are installed here? Asks pip-audit's advisory service.

Ends with 0: none known; 1: some, listed; 3: the service does not answer for them, so nothing is known either way.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from typing import Any

OURS = "clipstudy"  #: not published, so never found


def main(tool: str) -> int:
    """Args: tool: the program pip-audit, of an environment of its own."""
    asked = [tool, "--path", sysconfig.get_path("purelib"), "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(asked, capture_output=True, text=True)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        said = next(reversed(done.stderr.strip().splitlines()), f"it ended with {done.returncode}")
        return _unknown(f"it said: {said[:200]}")
    packages = [package for package in packages if package["name"] != OURS]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    known = [package for package in packages if package.get("vulns")]
    for package in known:
        for found in package["vulns"]:
            mended = ", ".join(found["fix_versions"]) or "no version yet"
            print(f"{package['name']} {package['version']}: {found['id']}, mended in {mended}")
    if len(skipped) == len(packages):
        return _unknown("it knows none of the packages, not even well-known ones")
    print(f"{len(packages) - len(skipped)} packages asked about: vulnerabilities are known in {len(known)}.")
    if skipped:
        print(f"Not known to the service, so unverified: {', '.join(skipped)}.")
    return 1 if known else 0


def _unknown(why: str) -> int:
    print(
        f"The advisory service cannot be asked from here ({why}). Nothing is known either way: type `make audit` on a "
        "machine with open network.",
        file=sys.stderr,
    )
    return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
