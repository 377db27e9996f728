"""Rows built from database values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from django.test import SimpleTestCase

from backend.projects.rows import ProjectRow, iso


class TimestampTests(SimpleTestCase):
    def test_timestamps_of_many_rows_are_formatted_like_a_single_one(self) -> None:
        moments = [
            datetime(2027, 3, 1, 9, 30, 0, 123456, UTC),
            datetime(2027, 3, 1, 9, 30, 0, 120000, UTC),
            datetime(2027, 3, 1, 9, 30, tzinfo=UTC),
            datetime(1, 1, 1, tzinfo=UTC),
            datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
            datetime(2027, 3, 1, 9, 30, 0, 5, timezone(timedelta(hours=5, minutes=30))),
            datetime(2027, 3, 1, 9, 30, tzinfo=timezone(-timedelta(hours=11))),
        ]
        rows = ProjectRow.of_values((1, "", "", moment, None, 1) for moment in moments)
        self.assertEqual([row.created_at for row in rows], [iso(moment) for moment in moments])
        self.assertEqual(
            [row.created_at[10:] for row in rows[:3]], ["T09:30:00.123456Z", "T09:30:00.120000Z", "T09:30:00.000000Z"]
        )
        self.assertEqual({row.updated_at for row in rows}, {None})

    def test_some_timestamps_may_be_missing(self) -> None:
        moment = datetime(2027, 3, 1, tzinfo=UTC)
        rows = ProjectRow.of_values((1, "", "", created_at, moment, 1) for created_at in (None, moment, None))
        self.assertEqual([row.created_at for row in rows], [None, iso(moment), None])
