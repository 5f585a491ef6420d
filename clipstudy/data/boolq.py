"""BoolQ (Clark et al. 2019): a question, a passage, and whether the passage says yes.

Reads ``<split>.jsonl`` as released (``question``, ``passage``, ``answer``) and as SuperGLUE has it (``label``), or a
Hub table. A passage is what the file calls so: SuperGLUE's begins with the article's title, the released one does not.
"""

from __future__ import annotations

from clipstudy.data import COLUMNS, fingerprint, table
from clipstudy.data.pairs import Pair, Pairs, Row, Split, json_rows, split_file, split_of, table_rows, together
from clipstudy.spec import DatasetSpec


def read(spec: DatasetSpec) -> Pairs:
    """Train, its development part and the released dev split. All questions about a passage are on one side of the cut.

    Raises:
        DataError: as :func:`released`, and all that ``pairs.together`` refuses.
    """
    return together(spec, released(spec, "train"), released(spec, "dev"), lambda pair: " ".join(pair.second))


def released(spec: DatasetSpec, split: str) -> Split:
    """One split, as released: ``first`` the question, ``second`` the passage.

    Raises:
        DataError: no such file or split, a malformed row (named by file and line), a row without its label.
    """
    if spec.hub:
        loaded = table.load(spec, split, COLUMNS["boolq"])
        pairs = [_pair(split, row) for row in table_rows(spec, split, loaded)]
        return split_of(spec, split, loaded.source, pairs, loaded.fingerprint)
    path = split_file(spec, split, ("{0}.jsonl",))
    pairs = [_pair(split, row) for row in json_rows(path)]
    return split_of(spec, split, str(path), pairs, fingerprint([path.read_bytes()]))


def _pair(split: str, row: Row) -> Pair:
    question, passage = (tuple(row.text(key).split()) for key in ("question", "passage"))
    return Pair(f"{split}/{row.number}", question, passage, row.label("answer", "label"))
