"""The cost of an ordered position: transactions per second of 16 writers, each inserting a row and its event.

Run: `make bench positions`, or `python -m bench.positions [seconds per round]` with DATABASE_URL set. It works in a
schema of its own, which it drops at the end. It compares the alternatives of docs/decisions/0001-positions.md. Each
figure is the best of three rounds, and the ratios are from one run. The embedded PostgreSQL does not wait for its disk
(fsync is off); set DATABASE_URL to measure a server that does.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import environ
import psycopg2

from backend.local.console import say

from .support.figures import Figure, report

WRITERS = 16
SCHEMA = "bench_positions"

SETUP = f"""
DROP SCHEMA IF EXISTS {SCHEMA} CASCADE;
CREATE SCHEMA {SCHEMA};
SET search_path TO {SCHEMA};
CREATE TABLE change (id serial PRIMARY KEY, body text);
CREATE TABLE event (position bigint PRIMARY KEY, payload text);
CREATE SEQUENCE unordered;
CREATE TABLE counter (position bigint);
INSERT INTO counter VALUES (0);
"""

ALTERNATIVES = {
    "no event at all": "",
    "a bare sequence (not in commit order)": "INSERT INTO event SELECT nextval('unordered'), %(payload)s",
    "advisory lock, then max + 1": """
        SELECT pg_advisory_xact_lock(1);
        INSERT INTO event SELECT coalesce(max(position), 0) + 1, %(payload)s FROM event
    """,
    "advisory lock, then a sequence": """
        SELECT pg_advisory_xact_lock(1);
        INSERT INTO event SELECT nextval('unordered'), %(payload)s
    """,
    "one counter row": """
        WITH next AS (UPDATE counter SET position = position + 1 RETURNING position)
        INSERT INTO event SELECT position, %(payload)s FROM next
    """,
}


def connect() -> psycopg2.extensions.connection:
    database = environ.Env().db("DATABASE_URL")
    parameters = {
        "dbname": database["NAME"],
        "user": database["USER"],
        "password": database["PASSWORD"] or None,
        "host": database["HOST"],
        "port": database["PORT"] or None,
    }
    # The host of an embedded server is a folder, and its URL has it among the options.
    connection = psycopg2.connect(**parameters | database.get("OPTIONS", {}))
    with connection, connection.cursor() as cursor:
        cursor.execute(f"SET search_path TO {SCHEMA}")
    return connection


def transactions_per_second(append: str, seconds: float) -> float:
    """One round on empty tables. A writer that fails ends the run."""
    run(SETUP)
    end = time.monotonic() + seconds

    def write() -> int:
        connection = connect()
        written = 0
        while time.monotonic() < end:
            with connection, connection.cursor() as cursor:
                cursor.execute("INSERT INTO change (body) VALUES ('x')")
                if append:
                    cursor.execute(append, {"payload": "x" * 300})
            written += 1
        connection.close()
        return written

    started = time.monotonic()
    with ThreadPoolExecutor(WRITERS) as pool:
        writers = [pool.submit(write) for _ in range(WRITERS)]
        written = sum(writer.result() for writer in writers)
    return written / (time.monotonic() - started)


def run(statement: str) -> None:
    connection = connect()
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


def main(seconds: float = 3.0) -> None:
    rates = dict.fromkeys(ALTERNATIVES, 0.0)
    try:
        for _ in range(3):
            for name, append in ALTERNATIVES.items():
                rates[name] = max(rates[name], transactions_per_second(append, seconds))
    finally:
        run(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
    reference = rates["no event at all"]
    report(Figure("no event at all", reference, "transactions/s"))
    for name, rate in list(rates.items())[1:]:
        report(Figure(f"{name} / no event at all", rate / reference))
        say(f"    {rate:,.0f} transactions/s")


if __name__ == "__main__":
    if "DATABASE_URL" not in os.environ:
        sys.exit("Set DATABASE_URL to the server to measure.")
    main(*map(float, sys.argv[1:]))
