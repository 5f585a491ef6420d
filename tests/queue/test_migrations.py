from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, select, text

from clipstudy.errors import NotMigrated, QueueError
from clipstudy.job import Status
from clipstudy.queue import dialect, jobs, migration
from clipstudy.queue.dialect import connect, reading, writing
from clipstudy.queue.migration import migrate
from clipstudy.queue.schema import HEAD, metadata
from tests.queue.samples import cells, claim, group, one_of_each


@pytest.fixture
def own(empty_url: str) -> Iterator[Engine]:
    """A migrated database of this test's own, to be changed."""
    engine = connect(empty_url)
    migrate(engine)
    yield engine
    engine.dispose()


def config(connection: object = None) -> Config:
    found = Config()
    found.set_main_option("script_location", str(migration.migrations_folder()))
    found.attributes["connection"] = connection
    return found


def structure(engine: Engine) -> dict[str, object]:
    """Everything an inspector sees of our tables, CHECKs included, which Alembic does not compare."""
    seen = inspect(engine)
    return {
        name: (
            [(c["name"], str(c["type"]), c["nullable"]) for c in seen.get_columns(name)],
            seen.get_pk_constraint(name),
            sorted(map(str, seen.get_foreign_keys(name))),
            sorted(map(str, seen.get_unique_constraints(name))),
            sorted((str(c["name"]), c["sqltext"]) for c in seen.get_check_constraints(name)),
            sorted(map(definition, seen.get_indexes(name))),
        )
        for name in metadata.tables
    }


def definition(index: Any) -> str:
    options = {key: str(value) for key, value in index.get("dialect_options", {}).items()}
    return str({**index, "dialect_options": options})


def test_migrations_end_where_the_tables_are_declared(engine: Engine, empty_url: str) -> None:
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    declared = connect(empty_url)
    metadata.create_all(declared)
    assert structure(engine) == structure(declared)
    declared.dispose()


def test_the_newest_migration_is_the_one_that_check_asks_for() -> None:
    assert ScriptDirectory.from_config(config()).get_heads() == [HEAD]


def test_alembic_by_itself_is_told_who_migrates() -> None:
    with pytest.raises(QueueError, match="Type: clipstudy init"):
        command.current(config())


def test_down_and_up_again(own: Engine) -> None:
    before = structure(own)
    with writing(own) as connection:
        command.downgrade(config(connection), "base")
    assert inspect(own).get_table_names() == ["alembic_version"]
    migrate(own)
    assert structure(own) == before
    assert jobs.enqueue(own, cells(group())).new == 4


def test_down_and_up_again_keeps_every_row(own: Engine) -> None:
    one_of_each(own)

    def rows() -> dict[str, list[str]]:
        with reading(own) as connection:
            return {name: sorted(map(str, connection.execute(select(each)))) for name, each in metadata.tables.items()}

    before = rows()
    assert len(before["jobs"]) == len(Status) and before["outbox"]
    with writing(own) as connection:
        command.downgrade(config(connection), "0001")
    migrate(own)
    assert rows() == before


def test_rows_of_the_first_version_learn_their_study(own: Engine) -> None:
    jobs.enqueue(own, cells(group(), group(study="mine")))
    with writing(own) as connection:
        command.downgrade(config(connection), "0001")
    assert "study" not in {c["name"] for c in inspect(own).get_columns("jobs")}
    migrate(own)
    assert {job.study for job in claim(own, study="mine").jobs} == {"mine"}


def test_migrating_again_keeps_what_is_there(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group()))
    migrate(engine)
    assert len(claim(engine).jobs) == 4


def test_a_database_without_tables_says_what_to_type(empty_url: str) -> None:
    engine = connect(empty_url)
    for act in (migration.check, jobs.totals):
        with pytest.raises(NotMigrated, match="clipstudy init"):
            act(engine)
    engine.dispose()


def test_a_lock_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "jobs.db.lock").mkdir()
    with pytest.raises(QueueError, match=r"jobs\.db\.lock cannot be written .* Check CLIPSTUDY_DATABASE"):
        migrate(connect(f"sqlite:///{tmp_path / 'jobs.db'}"))


def test_checking_creates_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotMigrated):
        migration.check(connect(f"sqlite:///{tmp_path / 'none.db'}"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("version", "then"), [("0000", "clipstudy init"), ("9999", "Upgrade clipstudy")])
def test_another_version_is_told(own: Engine, version: str, then: str) -> None:
    with writing(own) as connection:
        connection.execute(text(f"UPDATE alembic_version SET version_num = '{version}'"))
    with pytest.raises(NotMigrated, match=f'"{version}".*{then}'):
        migration.check(own)


def test_another_programs_database_is_left_alone(empty_url: str) -> None:
    engine = connect(empty_url)
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('5b0e9adcef9c')"))
    with pytest.raises(QueueError, match=r"5b0e9adcef9c.*a database of its own"):
        migrate(engine)
    assert inspect(engine).get_table_names() == ["alembic_version"]
    engine.dispose()


def test_a_migration_that_breaks_leaves_nothing_half_done(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = connect(empty_url)
    real = command.upgrade

    def upgrade(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        raise RuntimeError

    monkeypatch.setattr(command, "upgrade", upgrade)
    with pytest.raises(RuntimeError):
        migrate(engine)
    assert inspect(engine).get_table_names() == []
    monkeypatch.undo()
    migrate(engine)
    migration.check(engine)
    engine.dispose()


@pytest.mark.parametrize("backend", ["sqlite"])
def test_tables_can_be_built_anew_under_foreign_keys(own: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def upgrade(given: Config, _: str) -> None:
        seen.append(given.attributes["connection"].exec_driver_sql("PRAGMA foreign_keys").scalar())

    seen: list[int] = []
    monkeypatch.setattr(command, "upgrade", upgrade)
    migrate(own)
    with dialect.reading(own) as connection:
        assert (*seen, connection.exec_driver_sql("PRAGMA foreign_keys").scalar()) == (0, 1)


def test_the_queue_loads_no_alembic_and_nothing_heavy(url: str) -> None:
    code = (
        "import sys; from clipstudy.queue import dialect, jobs, migration, outbox; e = dialect.connect(sys.argv[1]);"
        "migration.check(e); jobs.totals(e); outbox.pending(e); e.dispose();"
        "print(sorted({'alembic', 'mlflow', 'torch', 'numpy', 'pandas', 'sqlalchemy.orm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
