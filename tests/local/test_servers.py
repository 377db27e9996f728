import contextlib
import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import environ
import psycopg2
import pytest
import redis

from backend.local import servers
from backend.local.console import Refusal
from backend.local.postgres import Postgres
from backend.local.processes import Tethered, wait_until
from backend.local.valkey import Valkey
from tests.local.machine import PATIENCE_S, all_end, descendants, is_running, is_stopped

pytestmark = pytest.mark.slow


def query(server: Postgres, sql: str) -> Any:
    """Return the first value of the result, over a connection with the options of our settings."""
    config = environ.Env.db_url_config(server.url)
    connection = psycopg2.connect(dbname=config["NAME"], user=config["USER"], **config["OPTIONS"])
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0] if cursor.description else None
    finally:
        connection.close()


def kill_all(server: Postgres | Valkey, *, but: int | None = None) -> None:
    """Kill a server and its descendants with SIGKILL, except for process `but`."""
    process = server._process
    assert process is not None
    pids = {process.pid, *descendants(process.pid)} - {but}
    for pid in pids:
        # Some end by themselves after the first ones are killed.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    assert all_end(pids - {process.pid})


def kill_tether(server: Postgres | Valkey) -> None:
    """Kill the process that would stop the server, so that the server stays behind."""
    process = server._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def postmaster(server: Postgres) -> int:
    return int((server.home / "data" / "postmaster.pid").read_text().split()[0])


def test_servers_work_in_a_deep_folder_and_leave_no_process(folder: Path) -> None:
    deep = folder / "a folder" / ("x" * 120)
    deep.mkdir(parents=True)
    others = descendants(os.getpid())
    with Postgres(deep, durable=False) as postgres, Valkey(deep) as valkey:
        assert query(postgres, "SELECT current_database()") == "taskwire"
        assert query(postgres, "SHOW server_encoding") == "UTF8"
        assert query(postgres, "SHOW timezone") == "UTC"
        assert query(postgres, "SELECT upper('é')") == "É"
        assert query(postgres, "CREATE EXTENSION pg_trgm") is None
        client = redis.Redis.from_url(valkey.url)
        assert client.ping()
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "volatile-lru"}
        client.close()
        pids = descendants(os.getpid()) - others
        sockets = [postgres.sockets, valkey.sockets]
        assert [stat.S_IMODE(place.stat().st_mode) for place in sockets] == [0o700, 0o700]
    assert not any(map(is_running, pids))
    assert not any(place.exists() for place in sockets)


def test_settings_of_the_shell_do_not_move_the_database(initialized: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "6000")
    monkeypatch.setenv("PGDATA", "/nowhere")
    with Postgres(initialized, durable=False) as postgres:
        assert query(postgres, "SELECT 1") == 1


def test_data_survives_sigkill_of_all_processes(initialized: Path) -> None:
    postgres = Postgres(initialized)
    postgres.start()
    query(postgres, "CREATE TABLE kept AS SELECT 42 AS answer")
    kill_all(postgres)
    with Postgres(initialized) as again:
        assert query(again, "SELECT answer FROM kept") == 42
    assert not postgres.sockets.exists()


def test_a_server_left_behind_by_a_killed_run_is_taken_over(
    initialized: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first_postgres, first_valkey = Postgres(initialized), Valkey(initialized)
    first_postgres.start()
    first_valkey.start()
    query(first_postgres, "CREATE TABLE kept AS SELECT 42 AS answer")
    left = {postmaster(first_postgres), int((initialized / "valkey" / "valkey.pid").read_text())}
    kill_tether(first_postgres)
    kill_tether(first_valkey)
    assert all(map(is_running, left))
    with Postgres(initialized) as postgres, Valkey(initialized) as valkey:
        assert query(postgres, "SELECT answer FROM kept") == 42
        client = redis.Redis.from_url(valkey.url)
        assert client.ping()
        client.close()
        assert not any(map(is_running, left))
    assert capsys.readouterr().out == (
        "Taking over from a PostgreSQL that a killed run left behind.\n"
        "Taking over from a Valkey that a killed run left behind.\n"
    )


def test_a_foreign_process_under_a_stale_pid_is_left_alone(initialized: Path) -> None:
    postgres, valkey = Postgres(initialized, durable=False), Valkey(initialized)
    postgres.start()
    valkey.start()
    kill_all(postgres)
    kill_all(valkey)
    # Runs under PostgreSQL's account, as PostgreSQL ignores a process that it may not signal.
    account = postgres.account
    foreign = subprocess.Popen(["sleep", "1000"], user=None if account is None else account.uid)
    try:
        pid_file = postgres.home / "data" / "postmaster.pid"
        _, *rest = pid_file.read_text().splitlines(keepends=True)
        pid_file.write_text("".join([f"{foreign.pid}\n", *rest]))
        (valkey.home / "valkey.pid").write_text(f"{foreign.pid}\n")
        with Postgres(initialized, durable=False) as again, Valkey(initialized):
            assert query(again, "SELECT 1") == 1
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


def test_a_start_waits_for_a_session_of_a_killed_server(initialized: Path) -> None:
    """PostgreSQL does not start while such a session uses the shared memory, and must not be forced to."""
    postgres = Postgres(initialized, durable=False)
    postgres.start()
    config = environ.Env.db_url_config(postgres.url)
    connection = psycopg2.connect(dbname=config["NAME"], user=config["USER"], async_=True, **config["OPTIONS"])
    wait_for(connection)
    cursor = connection.cursor()
    cursor.execute("SELECT pg_backend_pid()")
    wait_for(connection)
    (session,) = cursor.fetchone()
    # A stopped process is like a busy one: it does not notice that its server was killed.
    os.kill(session, signal.SIGSTOP)
    kill_all(postgres, but=session)
    waker = Tethered(["/bin/sh", "-c", f"sleep 1; kill -CONT {session}"])
    with Postgres(initialized, durable=False) as again:
        assert not is_running(session)
        assert query(again, "SELECT 1") == 1
    waker.stop()
    connection.close()


def wait_for(connection: Any) -> None:
    assert wait_until(lambda: connection.poll() == psycopg2.extensions.POLL_OK, timeout_s=PATIENCE_S)


def test_a_server_that_ends_by_itself_is_started_again_at_its_address(
    initialized: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Postgres(initialized) as postgres, Valkey(initialized) as valkey:
        postgres.keep_running()
        valkey.keep_running()
        query(postgres, "CREATE TABLE kept AS SELECT 42 AS answer")
        urls, pids = (postgres.url, valkey.url), (postmaster(postgres), process_id(valkey))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: has_new_process(postgres, pids[0]), timeout_s=PATIENCE_S)
        assert wait_until(lambda: has_new_process(valkey, pids[1]), timeout_s=PATIENCE_S)
        assert query(postgres, "SELECT answer FROM kept") == 42
        client = redis.Redis.from_url(valkey.url)
        assert client.ping()
        client.close()
        assert (postgres.url, valkey.url) == urls
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "PostgreSQL ended by itself with exit code 137: it is started again.",
        "Valkey ended by itself with exit code 137: it is started again.",
    ]
    assert not any(server.sockets.exists() for server in (postgres, valkey))


def test_a_stopped_server_is_not_started_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Valkey(folder) as valkey:
        valkey.keep_running()
        pid = process_id(valkey)
        os.kill(pid, signal.SIGSTOP)
        assert wait_until(lambda: is_stopped(pid), timeout_s=PATIENCE_S)
        os.kill(pid, signal.SIGCONT)
        client = redis.Redis.from_url(valkey.url)
        assert client.info("server")["process_id"] == pid
        client.close()
    assert not is_running(pid)
    assert capsys.readouterr().out == ""


def test_a_server_that_does_not_start_again_is_reported_once_and_can_be_stopped(
    initialized: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(servers, "MAX_BACKOFF_S", 0.01)
    with Postgres(initialized, durable=False) as postgres:
        with (postgres.home / "data" / "postgresql.conf").open("a") as settings:
            settings.write("no_such_setting = on\n")
        postgres.keep_running()
        os.kill(postmaster(postgres), signal.SIGKILL)
        assert wait_until(lambda: postgres.log.read_text().count("no_such_setting") > 2, timeout_s=PATIENCE_S)
    assert capsys.readouterr().out.splitlines() == [
        "PostgreSQL ended by itself with exit code 137: it is started again.",
        f"PostgreSQL does not start: {postgres.log} has the reason. Further attempts follow.",
    ]


def process_id(server: Valkey) -> int:
    return int((server.home / "valkey.pid").read_text())


def has_new_process(server: Postgres | Valkey, old: int) -> bool:
    """Whether the server answers, as another process than `old`."""
    try:
        return int(server._pid_file.read_text().split()[0]) != old and server._answers()
    except (FileNotFoundError, IndexError):
        return False


def test_an_interrupted_creation_starts_again(folder: Path) -> None:
    Postgres(folder, durable=False)._prepare()
    data = folder / "postgres" / "data"
    data.rename(data.with_name("data.new"))
    with Postgres(folder, durable=False) as postgres:
        assert query(postgres, "SELECT 1") == 1


def test_a_server_that_does_not_start_shows_the_end_of_its_log(initialized: Path) -> None:
    with (initialized / "postgres" / "data" / "postgresql.conf").open("a") as settings:
        settings.write("no_such_setting = on\n")
    with pytest.raises(Refusal, match=r"no_such_setting[\s\S]*PostgreSQL did not start") as refusal:
        Postgres(initialized, durable=False).start()
    assert "postgres.log" in str(refusal.value)


def test_data_of_another_major_version_is_refused(initialized: Path) -> None:
    (initialized / "postgres" / "data" / "PG_VERSION").write_text("14\n")
    with pytest.raises(Refusal, match="was made by PostgreSQL 14"):
        Postgres(initialized, durable=False).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another account for PostgreSQL")
class TestAsRoot:
    def test_postgres_runs_as_nobody(self, folder: Path) -> None:
        with Postgres(folder, durable=False) as postgres:
            assert Path(f"/proc/{postmaster(postgres)}").owner() == "nobody"
            assert postgres.home == folder / "postgres"

    def test_a_closed_folder_stays_closed_and_its_data_is_elsewhere(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        closed = folder / "closed"
        inner = closed / "checkout"
        inner.mkdir(parents=True)
        closed.chmod(0o700)
        before = [(place.stat().st_mode, place.stat().st_uid) for place in (closed, inner)]
        with Postgres(inner) as postgres:
            elsewhere = postgres.home
            query(postgres, "CREATE TABLE kept AS SELECT 42 AS answer")
        try:
            assert not elsewhere.is_relative_to(folder)
            assert f"its data is in {elsewhere}." in capsys.readouterr().out
            assert [(place.stat().st_mode, place.stat().st_uid) for place in (closed, inner)] == before
            with Postgres(inner) as again:
                assert again.home == elsewhere
                assert query(again, "SELECT answer FROM kept") == 42
        finally:
            shutil.rmtree(elsewhere)
