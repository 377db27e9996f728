"""Search for a substring of titles, names and descriptions.

What a member's search reads depends only on rows that the member may see. Otherwise its duration would reveal whether a
word occurs in other rows (docs/decisions/0007-large-tables.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from django.contrib.postgres.expressions import ArraySubquery
from django.core.exceptions import EmptyResultSet, ValidationError
from django.db.models import BigIntegerField, F, Func, Model, OuterRef, Q, QuerySet
from django.db.models.expressions import RawSQL
from django.db.models.functions import StrIndex

from ..errors import BadArgument
from ..models import Project, Task
from ..models.text import search_pattern, validate_storable
from .page import among, merged

M = TypeVar("M", bound=Model)

MIN_LETTERS = 3
MAX_MATCHES = 10_000

# Newest tasks that are scanned before the index is used: the index finds all tasks with a word at once.
_PROBED = 20_000
# If these contain this many matches, scanning further tasks is faster than the index.
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


def matching(rows: QuerySet[M], text: str, *fields: str) -> QuerySet[M]:
    """The newest `MAX_MATCHES` of the rows with `text` in one of the fields, ignoring case."""
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

    Only for viewers who see all tasks, since it reads an index of all tasks. `shares` are the projects' tasks in
    disjoint querysets. `probed` are the same tasks or more, in querysets that each have an index by id. A sample of the
    newest tasks decides how to search: the planner does not know how often a word occurs, and would scan the table for
    a rare word, or fetch half of it for a common one (docs/decisions/0007-large-tables.md).
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
    return _tasks_found(_NEWEST, parts, limit=limit, most_probed=_PROBED, common=_COMMON)


# The last branch is executed only if the newest tasks have too few matches.
_NEWEST_OF_PROJECTS = """
WITH seen AS MATERIALIZED ({projects}),
probed AS MATERIALIZED (
  SELECT coalesce(max(newest.id), 0) - {probed} AS after
    FROM seen CROSS JOIN LATERAL (
      SELECT id FROM {table} WHERE project_id >= seen.id AND project_id <= seen.id
       ORDER BY project_id DESC, id DESC LIMIT 1
    ) AS newest
),
hits (id) AS MATERIALIZED ({hits}),
probe AS MATERIALIZED (SELECT count(*) >= {limit} AS suffices FROM hits)
SELECT id FROM (
  SELECT id FROM hits WHERE (SELECT suffices FROM probe)
  UNION ALL
  SELECT id FROM ({walked}) AS walked (id) WHERE (SELECT NOT suffices FROM probe)
) AS found ORDER BY id DESC LIMIT {limit}
"""


def newest_matches_of_projects(
    text: str, *, tasks: QuerySet[Task], projects: QuerySet[Project], limit: int | None = None
) -> QuerySet[Task]:
    """Like `newest_matches`, but reads no task of other projects.

    It reads the newest tasks, then if necessary the tasks of each project, newest first, until `limit` match. With
    `strpos`, PostgreSQL does not use the index of the words of all tasks. With the order by project, it does not scan
    the tasks of all projects; the condition is a range because with `project_id =` PostgreSQL would ignore the order.
    """
    limit = min(limit or MAX_MATCHES, MAX_MATCHES)
    of_project = (
        tasks.alias(place=StrIndex(F("search_text"), search_pattern(text)))
        .filter(place__gt=0, project_id__gte=OuterRef("pk"), project_id__lte=OuterRef("pk"))
        .order_by("-project_id", "-id")
        .values("pk")
    )
    parts = {
        "projects": projects.order_by().values_list("id"),
        "hits": _ids_of_each(projects, of_project.filter(id__gt=RawSQL("(SELECT after FROM probed)", []))),
        "walked": _ids_of_each(projects, of_project[:limit]),
    }
    return _tasks_found(_NEWEST_OF_PROJECTS, parts, table=Task._meta.db_table, probed=_PROBED, limit=limit)


def _ids_of_each(projects: QuerySet[Project], of_project: QuerySet[Any]) -> QuerySet[Any]:
    """The ids that `of_project` returns for each project. It refers to the project by `OuterRef`."""
    ids = Func(ArraySubquery(of_project), function="unnest", set_returning=True, output_field=BigIntegerField())
    return projects.order_by().annotate(task_id=ids).values_list("task_id")


def _tasks_found(statement: str, parts: dict[str, QuerySet[Any]], **numbers: str | int) -> QuerySet[Task]:
    """The tasks with the ids that `statement` selects. `parts` (in the order of use) and `numbers` fill it in."""
    try:
        compiled = {name: rows.query.sql_with_params() for name, rows in parts.items()}
    except EmptyResultSet:
        return Task.objects.none()
    sql = statement.format(**{name: part for name, (part, _) in compiled.items()}, **numbers)
    ids = RawSQL(sql, [parameter for _, values in compiled.values() for parameter in values])  # noqa: S611
    return Task.objects.filter(among(Func(ids, template="ARRAY%(expressions)s")))
