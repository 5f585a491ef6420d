"""The one SQLite/Postgres difference: how to connect, what the time is, how to stand alone, what an error means.

Nothing above this room asks which database it talks to.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Double, Engine, Insert, Table, create_engine, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnClause, ColumnElement, FunctionElement, literal_column

from clipstudy.errors import DatabaseBusy, DatabaseUnreachable, NetworkFilesystem, NotMigrated, QueueError, said
from clipstudy.lock import locked
from clipstudy.redaction import redact

#: File systems on which SQLite's locks and its shared memory cannot be trusted (sqlite.org/faq.html#q5, wal.html).
NETWORK_FILESYSTEMS = frozenset(
    [
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.ceph",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.juicefs",
        "fuse.s3fs",
        "fuse.sshfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "panfs",
        "pvfs2",
        "smb3",
        "smbfs",
        "wekafs",
    ]
)
_MOUNTS = Path("/proc/mounts")

#: A process stopped in the middle of a transaction holds row locks. The server ends it after the first; whoever
#: waits for the lock therefore gets it before the second.
_IDLE_IN_TRANSACTION_S = 60
_LOCK_WAIT_S = 90
#: Who stands alone holds no rows, and may wait for another server meanwhile; yet no longer than a recorder's lease,
#: after which others take what it had.
_ALONE_S = 180
#: Who finds another one there does not wait for that, and does something else first.
_ALONE_WAIT_S = 1
_SQLITE_BUSY_S = 30
_UNDEFINED_TABLE, _LOCK_NOT_AVAILABLE, _IDLE_TOO_LONG, _READ_ONLY = "42P01", "55P03", "25P03", "25006"  # SQLSTATE
_SQLITE_ERROR = 1  # sqlite.org/rescode.html
_READING = "clipstudy_reading"


class clock(FunctionElement[float]):
    """The database's clock, in seconds since 1970, the same within one statement."""

    inherit_cache = True
    type = Double()


class up_since(FunctionElement[float]):
    """When the database server started; 0 for SQLite, which has none."""

    inherit_cache = True
    type = Double()


@compiles(clock, "sqlite")
def _sqlite_clock(element: clock, compiler: Any, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(clock, "postgresql")
def _postgres_clock(element: clock, compiler: Any, **kw: Any) -> str:
    # Not clock_timestamp(): it is volatile, and an index cannot be searched for a value that changes under way.
    return "CAST(extract(epoch FROM statement_timestamp()) AS double precision)"


@compiles(up_since, "sqlite")
def _sqlite_up_since(element: up_since, compiler: Any, **kw: Any) -> str:
    return "0.0"


@compiles(up_since, "postgresql")
def _postgres_up_since(element: up_since, compiler: Any, **kw: Any) -> str:
    return "CAST(extract(epoch FROM pg_postmaster_start_time()) AS double precision)"


def connect(url: str) -> Engine:
    """An engine for the job table at ``url`` (``sqlite:///FILE`` or ``postgresql://…``). Opens no connection yet.

    Raises QueueError for a URL that cannot be used, NetworkFilesystem for a SQLite file that hosts would share.
    """
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except ArgumentError:
        raise QueueError(
            f'"{redact(url)}" is not a database URL. Set CLIPSTUDY_DATABASE to sqlite:///FILE or '
            "postgresql://user@host/name."
        ) from None
    if backend == "sqlite" and parsed.database and parsed.database != ":memory:":
        return _connect_sqlite(url, Path(parsed.database))
    if backend == "postgresql":
        return _connect_postgres(url)
    raise QueueError(
        f'"{redact(url)}" cannot hold the job table. Set CLIPSTUDY_DATABASE to sqlite:///FILE or '
        "postgresql://user@host/name."
    )


def _connect_sqlite(url: str, file: Path) -> Engine:
    kind = filesystem_of(file)
    if kind in NETWORK_FILESYSTEMS:
        raise NetworkFilesystem(
            f"{file} lies on a network file system ({kind}), where SQLite loses rows when hosts share it. "
            "Use Postgres: CLIPSTUDY_DATABASE=postgresql://user@host/name"
        )
    engine = create_engine(url, connect_args={"timeout": _SQLITE_BUSY_S})

    @event.listens_for(engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        # Left to itself, pysqlite opens a transaction only before INSERT, UPDATE, DELETE and REPLACE: a statement
        # that begins with WITH would be committed whatever happened after it.
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer takes the lock at once: one that read first and then wants to write fails instead of waiting.
        reads = connection.get_execution_options().get(_READING, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _connect_postgres(url: str) -> Engine:
    # Keepalives: a server that vanished without a word must end a heartbeat in seconds, not in two hours.
    arguments = {
        "connect_timeout": 10,
        "keepalives": 1,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
        "application_name": "clipstudy",
    }
    given = make_url(url).query
    engine = create_engine(
        url,
        pool_pre_ping=True,
        # Whatever the role's or the database's default: a question after a lock must see what the other one wrote.
        isolation_level="READ COMMITTED",
        connect_args={key: value for key, value in arguments.items() if key not in given},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_IN_TRANSACTION_S}s'")
            cursor.execute(f"SET lock_timeout = '{_LOCK_WAIT_S}s'")
        connection.commit()

    @event.listens_for(engine, "handle_error")
    def demoted(context: ExceptionContext) -> None:
        # A replica, or a server that became one: the sessions of today never can write again, those of tomorrow may.
        if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
            context.is_disconnect = True

    return engine


def filesystem_of(file: Path) -> str:
    """The kind of file system that ``file`` lies, or would lie, on ("ext4", "nfs4"); "" where nobody can say."""
    try:
        mounts = [line.split() for line in _MOUNTS.read_text().splitlines()]
    except OSError:
        return ""
    path = file.resolve()
    kind, depth = "", -1
    for _, point, mounted, *_ in mounts:
        folder = Path(point.replace("\\040", " "))
        # >=: of two mounted on one point, the later hides the earlier.
        if path.is_relative_to(folder) and len(folder.parts) >= depth:
            kind, depth = mounted, len(folder.parts)
    return kind


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that may write: committed at the end, rolled back by an exception.

    Raises DatabaseUnreachable or NotMigrated for the driver's own errors.
    """
    with _translated(engine), engine.begin() as connection:
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One transaction that only reads: on SQLite it takes no write lock. Raises as :func:`writing`."""
    with (
        _translated(engine),
        engine.connect().execution_options(**{_READING: True}) as connection,
        connection.begin(),
    ):
        yield connection


@contextmanager
def _translated(engine: Engine) -> Iterator[None]:
    """The driver's errors in the house's words; a statement that makes no sense stays what it is."""
    driver: Any = engine.dialect.loaded_dbapi
    try:
        yield
    except (DBAPIError, PoolTimeout, driver.Error) as error:
        own: Any = getattr(error, "orig", None) or error
        state = getattr(own, "sqlstate", None)
        reason = redact(said(own, 1000))
        where = redact(engine.url.render_as_string(hide_password=True))
        if reason.startswith("no such table") or state == _UNDEFINED_TABLE:
            raise NotMigrated() from error
        if "readonly database" in reason or "not a database" in reason or "malformed" in reason:
            raise QueueError(f"{where} cannot be used: {reason}. Check the file, or CLIPSTUDY_DATABASE.") from error
        if "database is locked" in reason or state == _LOCK_NOT_AVAILABLE:
            raise DatabaseBusy(
                f"The job database {where} is busy ({reason}): something holds its lock. "
                "Try again; if it stays so, end what holds it."
            ) from error
        if getattr(own, "sqlite_errorcode", None) == _SQLITE_ERROR:
            raise  # a statement that makes no sense, which for SQLite is an "operational" error too
        if (
            isinstance(error, PoolTimeout)
            or isinstance(own, (driver.OperationalError, driver.InterfaceError))
            or (isinstance(error, DBAPIError) and error.connection_invalidated)
            or state == _IDLE_TOO_LONG
        ):
            raise DatabaseUnreachable(
                f"The job database {where} does not answer: {reason}. "
                "Check CLIPSTUDY_DATABASE and that the server runs, then try again."
            ) from error
        raise


def serialise(connection: Connection, what: str, number: int = 0) -> None:
    """Let one transaction at a time past this point for (``what``, ``number``), until it ends.

    SQLite's writers stand alone as it is.
    """
    if connection.dialect.name == "postgresql":
        key = zlib.crc32(what.encode()) - 2**31
        connection.execute(select(func.pg_advisory_xact_lock(key, number)))


@contextmanager
def advisory_lock(engine: Engine, what: str, number: int) -> Iterator[None]:
    """Let one process at a time into the block for (``what``, ``number``); on SQLite one for each ``what``. Nobody who
    writes waits for it.

    Raises DatabaseBusy where another one is in it, and stays in it for a second.
    """
    if (file := _file(engine)) is None:
        with writing(engine) as connection:
            connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{_ALONE_S}s'")
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_ALONE_WAIT_S}s'")
            serialise(connection, what, number)
            yield
        return
    # Not SQLite's own lock, of which there is one for all that write.
    with _file_lock(Path(f"{file}.{what}.lock"), _ALONE_WAIT_S):
        yield


@contextmanager
def migrating(engine: Engine) -> Iterator[Connection]:
    """One transaction in which tables may be built anew, as :func:`writing`; one process at a time, however long the
    others wait. A SQLite file is switched to WAL, which stays with it."""
    with ExitStack() as held:
        held.enter_context(_translated(engine))
        file = _file(engine)
        if file is not None:  # the switch to WAL is not covered by SQLite's own lock
            _make_folder(file)
            held.enter_context(_file_lock(Path(f"{file}.lock")))
        connection = held.enter_context(engine.connect())
        if file is not None:
            held.enter_context(_foreign_keys_off(connection))
        held.enter_context(connection.begin())
        serialise(connection, "migrate")
        yield connection


def _make_folder(file: Path) -> None:
    try:
        file.resolve().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise QueueError(f"{file.parent} cannot be created ({error.strerror}). Check CLIPSTUDY_DATABASE.") from error


@contextmanager
def _foreign_keys_off(connection: Connection) -> Iterator[None]:
    """WAL, and no foreign keys while tables are built anew. SQLite takes neither within a transaction."""
    raw: Any = connection.connection.dbapi_connection
    raw.execute("PRAGMA journal_mode = WAL")
    raw.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        raw.execute("PRAGMA foreign_keys = ON")


@contextmanager
def _file_lock(path: Path, seconds: float = math.inf) -> Iterator[None]:
    with ExitStack() as held:
        try:
            held.enter_context(locked(path, seconds))
        except TimeoutError:
            raise DatabaseBusy(
                f"{path} is busy: another process holds it. Try again; if it stays so, end what holds it."
            ) from None
        except OSError as error:
            raise QueueError(f"{path} cannot be written ({error.strerror}). Check CLIPSTUDY_DATABASE.") from error
        yield


def exists(engine: Engine) -> bool:
    """Whether there is a database: a SQLite file may not have been made yet, and connecting would make an empty one.
    A server is taken to have it."""
    file = _file(engine)
    return file is None or file.exists()


def _file(engine: Engine) -> Path | None:
    """The file of a SQLite database; None: a server's."""
    return Path(engine.url.database or "") if engine.dialect.name == "sqlite" else None


def refresh_statistics(connection: Connection, table: Table) -> None:
    """After many new rows: Postgres plans by statistics, and would sort the queue where it can walk an index."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"ANALYZE {table.name}")


def insert_new(connection: Connection, table: Table) -> Insert:
    """INSERT … ON CONFLICT DO NOTHING into ``table``."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


def now(engine: Engine) -> datetime:
    """The database's clock, UTC: the only one that leases are measured on."""
    with reading(engine) as connection:
        time_there = instant(connection.scalar(select(clock())))
    assert time_there is not None
    return time_there


def instant(seconds: float | None) -> datetime | None:
    """A stored instant as an aware UTC datetime."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def is_(column: ColumnElement[Any], *values: str) -> ColumnElement[bool]:
    """``column`` is one of ``values``, written into the statement.

    A bound parameter would hide the value from the planner, and a partial index (WHERE status = 'queued') serves only
    a statement that says so.
    """
    quoted: list[ColumnClause[str]] = [literal_column(f"'{value}'") for value in values]
    return column == quoted[0] if len(quoted) == 1 else column.in_(quoted)
