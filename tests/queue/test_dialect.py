from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, select, text

from clipstudy.errors import ClipstudyError, DatabaseUnreachable, NetworkFilesystem, QueueError
from clipstudy.queue import dialect, jobs, migration
from clipstudy.queue.dialect import clock, connect, reading, writing
from tests.queue.samples import LEASE, cells, claim, group


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "lustre", "fuse.sshfs"])
def test_sqlite_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    mounts = tmp_path / "mounts"
    shared = tmp_path / "my shared"
    point = str(shared).replace(" ", r"\040")  # as the kernel writes it
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/x {point} {kind} rw 0 0\ntmpfs {point}/local tmpfs rw 0 0\n")
    monkeypatch.setattr(dialect, "_MOUNTS", mounts)
    with pytest.raises(NetworkFilesystem, match=rf"\({kind}\).*postgresql://"):
        connect(f"sqlite:///{shared}/deep/er/jobs.db")
    assert not shared.exists()
    connect(f"sqlite:///{shared}/local/jobs.db")
    connect(f"sqlite:///{tmp_path}/jobs.db")


def test_where_nobody_can_say_sqlite_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialect, "_MOUNTS", tmp_path / "no such file")
    migration.migrate(connect(f"sqlite:///{tmp_path}/new/folder/jobs.db"))
    assert (tmp_path / "new" / "folder").is_dir()


@pytest.mark.parametrize(
    "url", ["", "jobs.db", "sqlite://", "sqlite:///:memory:", "mysql://me:secret@host/name", "postgres://me:secret@h/n"]
)
def test_a_url_that_cannot_be_used_says_which_can(url: str) -> None:
    with pytest.raises(QueueError, match="sqlite:///FILE or postgresql://") as told:
        connect(url)
    assert "secret" not in str(told.value)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(QueueError, match="CLIPSTUDY_DATABASE"):
        migration.migrate(connect(f"sqlite:///{tmp_path}/file/jobs.db"))


def test_who_only_asks_leaves_no_folder(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/mlruns/jobs.db")
    assert not dialect.exists(engine)
    with pytest.raises(QueueError):
        migration.check(engine)
    assert not list(tmp_path.iterdir())
    migration.migrate(engine)
    assert dialect.exists(engine)
    engine.dispose()


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_text("not a database at all " * 100)
    with pytest.raises(QueueError, match="not a database"):
        migration.check(connect(f"sqlite:///{tmp_path}/jobs.db"))


def test_a_server_that_does_not_answer_is_told_without_its_password() -> None:
    engine = connect("postgresql://me:se%40cret@127.0.0.1:1/name")
    with pytest.raises(DatabaseUnreachable, match=r"me:\*\*\*@127\.0\.0\.1:1/name does not answer") as told:
        migration.check(engine)
    assert "cret" not in str(told.value) and told.value.transient


def test_a_held_lock_is_told(url: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialect, "_SQLITE_BUSY_S", 0)
    monkeypatch.setattr(dialect, "_LOCK_WAIT_S", 0.05)
    engine = connect(url)
    jobs.enqueue(engine, cells(group()))
    with writing(engine) as connection:
        dialect.serialise(connection, "enqueue")
        with pytest.raises(DatabaseUnreachable, match="is busy") as told:
            jobs.enqueue(engine, cells(group()))
    assert told.value.transient
    engine.dispose()


def test_other_errors_keep_their_traceback(engine: Engine) -> None:
    with pytest.raises(Exception, match="nonsense") as told, reading(engine) as connection:
        connection.execute(text("SELECT nonsense"))
    assert not isinstance(told.value, ClipstudyError)
    with pytest.raises(KeyError), writing(engine):
        raise KeyError


def test_the_clock_is_the_databases_and_finer_than_a_second(engine: Engine) -> None:
    moments = [dialect.now(engine) for _ in range(30)]
    assert moments == sorted(moments) and moments[-1] - moments[0] < timedelta(seconds=20)
    assert len({moment.microsecond for moment in moments}) > 1
    with reading(engine) as connection:
        one, same = connection.execute(select(clock(), clock())).one()
    assert one == same
    assert abs(moments[-1].timestamp() - one) < 20


@pytest.mark.parametrize("backend", ["sqlite"])
def test_sqlite_is_set_up_for_many_processes(engine: Engine) -> None:
    with reading(engine) as connection:
        asked = {p: connection.exec_driver_sql(f"PRAGMA {p}").scalar() for p in ("journal_mode", "synchronous")}
        assert asked == {"journal_mode": "wal", "synchronous": 1}
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000
    file = str(engine.url.database)
    with writing(engine), pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite3.connect(file, timeout=0).execute("BEGIN IMMEDIATE")


@pytest.mark.postgres
@pytest.mark.parametrize("backend", ["postgres"])
def test_connections_that_the_server_ended_are_replaced(engine: Engine, url: str) -> None:
    jobs.enqueue(engine, cells(group()))
    server = create_engine(url, isolation_level="AUTOCOMMIT")
    end_all = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'clipstudy' AND datname = current_database()"
    )
    with server.connect() as connection:
        assert len(connection.execute(end_all).all()) >= 1
        assert len(claim(engine).jobs) == 4  # an idle connection was ended: nobody notices
        with pytest.raises(DatabaseUnreachable) as told, writing(engine) as busy:  # in the middle of a transaction
            busy.execute(text("UPDATE jobs SET worker = 'nobody'"))
            connection.execute(end_all)
            busy.execute(text("SELECT 1"))
    assert told.value.transient
    batch = jobs.rows(engine)
    assert {job.worker for job in batch} == {"ann"}
    assert jobs.beat(engine, "ann", batch, lease=LEASE) == {job.id for job in batch}
    server.dispose()


@pytest.mark.postgres
@pytest.mark.parametrize("backend", ["postgres"])
def test_sessions_of_a_server_that_only_reads_are_not_kept(engine: Engine, url: str) -> None:
    """A failover that nobody was told of: the sessions that were opened on the replica never can write."""
    jobs.enqueue(engine, cells(group()))
    server = create_engine(url, isolation_level="AUTOCOMMIT")
    end_all = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'clipstudy' AND datname = current_database()"
    )
    with server.connect() as connection:
        name = connection.scalar(text("SELECT current_database()"))
        try:
            connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
            connection.execute(end_all)
            with pytest.raises(DatabaseUnreachable, match="read-only") as told:
                claim(engine)
        finally:
            connection.execute(text(f"ALTER DATABASE {name} RESET default_transaction_read_only"))
    assert told.value.transient
    assert len(claim(engine).jobs) == 4  # in a session of now
    server.dispose()
