"""SentEval's probing files (Conneau et al. 2018): ``tr|va|te<TAB>label<TAB>sentence`` a line."""

from __future__ import annotations

from clipstudy.data import files, fingerprint, text_lines
from clipstudy.data.labelled import Labelled, checked
from clipstudy.errors import DataError
from clipstudy.spec import DatasetSpec
from clipstudy.wording import counted


def read(spec: DatasetSpec) -> Labelled[tuple[str, ...]]:
    """Read one file. Sentences are whitespace-tokenised as released; quotes are text, not CSV quoting.

    Raises:
        DataError: a malformed line (named by file and number), and all that ``labelled.checked`` refuses.
    """
    path = files(spec)
    parts: dict[str, list[tuple[tuple[str, ...], str]]] = {"tr": [], "va": [], "te": []}
    for number, line in enumerate(text_lines(path), start=1):
        if not line:
            continue
        fields = line.split("\t")
        if len(fields) != 3:
            raise DataError(
                f"{path}:{number}: found {counted(len(fields), 'column')}, expected 3 with tabs between "
                "them: tr|va|te, label, sentence. Fix the line."
            )
        split, label, sentence = fields
        if split not in parts:
            raise DataError(f'{path}:{number}: split "{split[:40]}" is not tr, va or te. Fix the line.')
        words = tuple(sentence.split())
        if not words or not label.strip():
            raise DataError(
                f"{path}:{number}: {'no sentence' if label.strip() else 'no label'}. Fix or remove the line."
            )
        parts[split].append((words, label))
    if absent := [name for name, rows in parts.items() if not rows]:
        raise DataError(
            f"{path}: no line begins with {' or with '.join(absent)}. tr is what probes are fitted on, va where they "
            "are stopped, te where they are scored. Name some lines so."
        )
    return checked(spec, parts["tr"], parts["va"], parts["te"], fingerprint([path.read_bytes()]), str(path))
