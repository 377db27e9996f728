"""Search for a substring of titles, names and descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from django.core.exceptions import EmptyResultSet, ValidationError
from django.db.models import Func, Model, Q, QuerySet
from django.db.models.expressions import RawSQL

from ..errors import BadArgument
from ..models import Project, Task
from ..models.text import search_pattern, validate_storable
from .page import among, merged

M = TypeVar("M", bound=Model)

MIN_LETTERS = 3
MAX_MATCHES = 10_000

# The newest tasks are scanned before the index is used, because the index finds all tasks with a word at once.
_PROBED = 20_000
# With this many matches among them, scanning further tasks is faster than the index.
_COMMON = 800


def check_search(text: str | None) -> None:
    """Raises BadArgument."""
    if text is None:
        return
    try:
        validate_storable(text)
    except ValidationError as error:
        raise BadArgument("search", str(error.message)) from None
    if len(text) < MIN_LETTERS:
        raise BadArgument("search", f"Search for {MIN_LETTERS} letters at least.")


def matching(rows: QuerySet[M], text: str | None, *fields: str) -> QuerySet[M]:
    """The newest `MAX_MATCHES` of the rows with `text` in one of the fields, ignoring case."""
    if text is None:
        return rows
    condition = Q()
    for field in fields:
        condition |= Q(**{f"{field}__icontains": text})
    newest = rows.filter(condition).order_by("-id").values("id")[:MAX_MATCHES]
    return rows.filter(id__in=newest)


# Only one of the three branches of the UNION is executed: in the others, WHERE is false before any row is read.
_NEWEST = """
WITH seen AS MATERIALIZED ({projects}),
probed AS MATERIALIZED ({probed}),
hits AS MATERIALIZED (SELECT id FROM probed WHERE hit AND project_id IN (SELECT id FROM seen)),
probe AS MATERIALIZED (
  SELECT (SELECT count(*) FROM hits) >= {limit} OR (SELECT count(*) FROM probed) < {most_probed} AS suffices,
         (SELECT count(*) FROM probed WHERE hit) >= {common} AS finds_many
),
indexed AS MATERIALIZED ({indexed})
SELECT id FROM (
  SELECT id FROM hits WHERE (SELECT suffices FROM probe)
  UNION ALL
  SELECT id FROM ({walked}) AS walked WHERE (SELECT finds_many AND NOT suffices FROM probe)
  UNION ALL
  SELECT id FROM indexed
   WHERE project_id IN (SELECT id FROM seen) AND (SELECT NOT finds_many AND NOT suffices FROM probe)
) AS found ORDER BY id DESC LIMIT {limit}
"""


def newest_matches(
    text: str,
    *,
    tasks: QuerySet[Task],
    projects: QuerySet[Project],
    shares: Sequence[QuerySet[Task]],
    probed: Sequence[QuerySet[Task]],
    limit: int | None = None,
) -> QuerySet[Task]:
    """The newest `limit` (at most `MAX_MATCHES`) of the projects' tasks with `text` in title or description.

    `shares` are those tasks, split into disjoint querysets. `probed` are the same tasks or more, split into querysets
    that each have an index by id. The planner would have to guess how often a word occurs: it would scan the table for
    a rare word, or fetch half of it for a common one. Here a sample of the newest tasks decides
    (docs/decisions/0007-large-tables.md).
    """
    match = Q(search_text__contains=search_pattern(text))
    limit = min(limit or MAX_MATCHES, MAX_MATCHES)
    parts = {
        "projects": projects.order_by().values_list("id"),
        "probed": merged([rows.annotate(hit=match) for rows in probed], ["-id"], _PROBED).values_list(
            "id", "project_id", "hit"
        ),
        "indexed": tasks.filter(match).order_by().values_list("id", "project_id"),
        "walked": merged([rows.filter(match) for rows in shares], ["-id"], limit).values_list("id"),
    }
    try:
        compiled = {name: rows.query.sql_with_params() for name, rows in parts.items()}
    except EmptyResultSet:
        return Task.objects.none()
    statement = _NEWEST.format(
        **{name: sql for name, (sql, _) in compiled.items()}, limit=limit, most_probed=_PROBED, common=_COMMON
    )
    parameters = [parameter for _, values in compiled.values() for parameter in values]
    # The statement consists of querysets compiled by Django and of our own numbers.
    ids = RawSQL(statement, parameters)  # noqa: S611
    return Task.objects.filter(among(Func(ids, template="ARRAY%(expressions)s")))
