from datetime import UTC, datetime
from typing import Any

import orjson
from django.core.exceptions import ValidationError

from backend.projects.access import SYSTEM, viewer_for
from backend.projects.errors import (
    Conflict,
    NotAllowed,
    NotAMember,
    ProjectNotFound,
    TaskNotFound,
    UnknownProject,
)
from backend.projects.models import Comment, Event, Project, Role, Task
from backend.projects.rows import TaskRow
from backend.projects.services.comment import add_comment
from backend.projects.services.membership import remove_member
from backend.projects.services.project import delete_project
from backend.projects.services.task import create_task, create_tasks, delete_task, update_task
from backend.projects.services.user import delete_user, save_user
from tests.cases import Case, CommittingCase
from tests.factories import CommentFactory, MembershipFactory, ProjectFactory, TaskFactory, UserFactory

DUE = datetime(2027, 3, 1, 9, 30, tzinfo=UTC)


class CreateTests(Case):
    def setUp(self) -> None:
        self.membership = MembershipFactory(role=Role.EDITOR)
        self.actor = viewer_for(self.membership.user)

    def create(self, **changes: Any) -> Task:
        return create_task(actor=self.actor, project_id=self.membership.project_id, changes=changes)  # type: ignore[arg-type]

    def test_a_task_is_pending_and_unassigned_by_default(self) -> None:
        task = self.create(title=" Draw ", due_date=DUE)
        self.assertEqual(
            (task.title, task.description, task.status, task.assignee_id, task.due_date, task.version),
            ("Draw", "", "pending", None, DUE, 1),
        )
        event = Event.objects.get()
        self.assertEqual(event.kind, "task.created")
        self.assertEqual(orjson.loads(event.payload), {"task": TaskRow.of(Task.objects.get()).as_json()})

    def test_missing_and_invalid_fields_are_reported_by_name(self) -> None:
        with self.assertRaises(ValidationError) as refused:
            self.create(title="x" * 256, status="done")
        codes = {field: errors[0].code for field, errors in refused.exception.error_dict.items()}
        self.assertEqual(codes, {"title": "MAX_LENGTH", "status": "INVALID_CHOICE", "due_date": "NULL"})
        self.assertEqual((Task.objects.count(), self.events()), (0, []))

    def test_an_assignee_must_be_a_member(self) -> None:
        for assignee_id in (UserFactory().pk, 0, 2**31):
            with self.subTest(assignee_id), self.assertRaises(NotAMember):
                self.create(title="Draw", due_date=DUE, assignee_id=assignee_id)
        self.assertEqual((Task.objects.count(), self.events()), (0, []))
        self.assertEqual(
            self.create(title="Draw", due_date=DUE, assignee_id=self.actor.user_id).assignee_id, self.actor.user_id
        )

    def test_an_invisible_project_is_like_an_absent_one(self) -> None:
        for project_id in (ProjectFactory().pk, 0, 2**31, None):
            with self.subTest(project_id), self.assertRaises(UnknownProject):
                create_task(actor=self.actor, project_id=project_id, changes={"title": "Draw", "due_date": DUE})

    def test_a_viewer_may_not_create_a_task(self) -> None:
        reader = MembershipFactory(role=Role.VIEWER)
        with self.assertRaises(NotAllowed):
            create_task(
                actor=viewer_for(reader.user), project_id=reader.project_id, changes={"title": "Draw", "due_date": DUE}
            )
        self.assertEqual(Task.objects.count(), 0)


class CreateManyTests(Case):
    def setUp(self) -> None:
        self.membership = MembershipFactory(role=Role.EDITOR)
        self.actor = viewer_for(self.membership.user)

    def create(self, *new_tasks: dict[str, Any]) -> list[Task]:
        return create_tasks(actor=self.actor, project_id=self.membership.project_id, new_tasks=new_tasks)  # type: ignore[arg-type]

    def test_each_task_has_its_event(self) -> None:
        created = self.create(
            {"title": " Draw ", "due_date": DUE},
            {"title": "Paint", "due_date": DUE, "status": "completed", "assignee_id": self.actor.user_id},
        )
        stored = list(Task.objects.order_by("pk"))
        self.assertEqual([task.pk for task in created], [task.pk for task in stored])
        self.assertEqual([(task.title, task.status) for task in stored], [("Draw", "pending"), ("Paint", "completed")])
        events = Event.objects.order_by("position")
        self.assertEqual([event.kind for event in events], ["task.created", "task.created"])
        rows = [{"task": TaskRow.of(task).as_json()} for task in stored]
        self.assertEqual([orjson.loads(event.payload) for event in events], rows)

    def test_ten_tasks_cost_as_many_queries_as_one(self) -> None:
        for count in (1, 10):
            with self.subTest(count), self.assertNumQueries(7):
                self.create(*[{"title": "Draw", "due_date": DUE}] * count)

    def test_no_task_is_created_if_one_is_refused(self) -> None:
        valid = {"title": "Draw", "due_date": DUE}
        refused = [({"title": ""}, ValidationError), ({"assignee_id": UserFactory().pk}, NotAMember)]
        for invalid, error in refused:
            with self.subTest(invalid), self.nothing_changes(), self.assertRaises(error):
                self.create(valid, {**valid, **invalid})
        self.membership.role = Role.VIEWER
        self.membership.save()
        with self.nothing_changes(), self.assertRaises(NotAllowed):
            self.create(valid)

    def test_an_empty_list_changes_nothing(self) -> None:
        with self.nothing_changes():
            self.assertEqual(self.create(), [])


class UpdateTests(Case):
    def setUp(self) -> None:
        self.membership = MembershipFactory(role=Role.EDITOR)
        self.actor = viewer_for(self.membership.user)
        self.task: Task = TaskFactory(project=self.membership.project, title="Old", assignee=self.membership.user)

    def update(self, version: int | None = None, **changes: Any) -> Task:
        return update_task(actor=self.actor, task_id=self.task.pk, changes=changes, version=version)  # type: ignore[arg-type]

    def test_an_event_names_the_changed_fields_as_rest_does(self) -> None:
        changed = self.update(title="New", assignee_id=None, due_date=DUE)
        self.assertEqual((changed.title, changed.assignee_id, changed.version), ("New", None, 2))
        self.assertEqual(orjson.loads(Event.objects.get().payload)["changes"], ["title", "assignee", "due_date"])

    def test_an_update_without_a_change_records_no_event(self) -> None:
        self.assertEqual(self.update(title="Old", assignee_id=self.membership.user_id).version, 1)
        self.assertEqual(self.events(), [])

    def test_reassigning_to_a_non_member_changes_nothing(self) -> None:
        with self.assertRaises(NotAMember):
            self.update(title="New", assignee_id=UserFactory().pk)
        self.task.refresh_from_db()
        self.assertEqual((self.task.title, self.events()), ("Old", []))

    def test_an_old_version_is_a_conflict(self) -> None:
        self.update(version=1, title="New")
        with self.assertRaises(Conflict) as refused:
            self.update(version=1, title="Newer")
        self.assertEqual(refused.exception.current.version, 2)

    def test_a_comment_does_not_change_its_task(self) -> None:
        add_comment(actor=self.actor, task_id=self.task.pk, content="Fine.")
        self.task.refresh_from_db()
        self.assertEqual((self.task.version, self.events()), (1, ["task.commented"]))

    def test_a_task_of_an_invisible_project_is_not_found(self) -> None:
        with self.assertRaises(TaskNotFound):
            update_task(actor=self.actor, task_id=TaskFactory().pk, changes={"title": "New"})


class DeleteTests(Case):
    def test_deleting_a_task_deletes_its_comments(self) -> None:
        comment = CommentFactory()
        row = delete_task(actor=SYSTEM, task_id=comment.task_id, version=1)
        self.assertEqual(row, TaskRow.of(comment.task))
        self.assertEqual((Task.objects.count(), Comment.objects.count(), self.events()), (0, 0, ["task.deleted"]))


class CommentTests(Case):
    def test_a_signed_in_user_comments_under_their_own_name(self) -> None:
        user = MembershipFactory(user__first_name="Ada", role=Role.EDITOR).user
        task = TaskFactory(project=user.projects.get())
        comment = add_comment(actor=viewer_for(user), task_id=task.pk, content="Fine.")
        self.assertEqual((comment.author, comment.content), ("Ada", "Fine."))

    def test_a_comment_without_a_user_requires_an_author(self) -> None:
        task = TaskFactory()
        for author in (None, "", " "):
            with self.subTest(author), self.assertRaises(ValidationError) as refused:
                add_comment(actor=SYSTEM, task_id=task.pk, content="Fine.", author=author)
            self.assertEqual(list(refused.exception.error_dict), ["author"])
        with self.assertRaises(ValidationError) as refused:
            add_comment(actor=SYSTEM, task_id=task.pk, content=" \n", author="Bob")
        self.assertEqual(list(refused.exception.error_dict), ["content"])
        self.assertEqual((Comment.objects.count(), self.events()), (0, []))


class RaceTests(CommittingCase):
    def test_one_of_two_conditional_writers_wins(self) -> None:
        task = TaskFactory()
        raised = self.run_together(
            *(
                lambda title=title: update_task(actor=SYSTEM, task_id=task.pk, changes={"title": title}, version=1)  # type: ignore[misc]
                for title in ("One", "Two")
            )
        )
        self.assertEqual([type(error) for error in raised], [Conflict])
        self.assertEqual(self.events(), ["task.updated"])

    def test_assigning_to_an_account_being_saved_or_deleted_causes_no_deadlock(self) -> None:
        for _ in range(10):
            member = MembershipFactory()
            task = TaskFactory(project=member.project)
            member.user.first_name = "Ada"
            raised = self.run_together(
                lambda task=task, member=member: update_task(  # type: ignore[misc]
                    actor=SYSTEM, task_id=task.pk, changes={"assignee_id": member.user_id}
                ),
                lambda member=member: save_user(actor=SYSTEM, user=member.user),  # type: ignore[misc]
            )
            self.assertEqual(raised, [])
            raised = self.run_together(
                lambda task=task, member=member: update_task(  # type: ignore[misc]
                    actor=SYSTEM, task_id=TaskFactory(project=task.project).pk, changes={"assignee_id": member.user_id}
                ),
                lambda member=member: delete_user(actor=SYSTEM, user_id=member.user_id),  # type: ignore[misc]
            )
            self.assertLessEqual({type(error) for error in raised}, {NotAMember})
            self.assertEqual(Task.objects.exclude(assignee=None).count(), 0)

    def test_a_removed_member_is_never_left_as_an_assignee(self) -> None:
        for _ in range(10):
            member = MembershipFactory()
            old, new = TaskFactory.create_batch(2, project=member.project)
            update_task(actor=SYSTEM, task_id=old.pk, changes={"assignee_id": member.user_id})
            raised = self.run_together(
                lambda new=new, member=member: update_task(  # type: ignore[misc]
                    actor=SYSTEM, task_id=new.pk, changes={"assignee_id": member.user_id}
                ),
                lambda member=member: remove_member(  # type: ignore[misc]
                    actor=SYSTEM, project_id=member.project_id, user_id=member.user_id
                ),
            )
            self.assertLessEqual({type(error) for error in raised}, {NotAMember})
            self.assertEqual(Task.objects.exclude(assignee=None).count(), 0)
        self.assertEqual(self.events()[-1], "task.updated")

    def test_no_commit_fails_when_a_project_is_deleted_during_writes_to_it(self) -> None:
        for _ in range(10):
            project: Project = ProjectFactory()
            task = TaskFactory(project=project)
            raised = self.run_together(
                lambda project=project: delete_project(actor=SYSTEM, project_id=project.pk),  # type: ignore[misc]
                lambda project=project: create_task(  # type: ignore[misc]
                    actor=SYSTEM, project_id=project.pk, changes={"title": "Draw", "due_date": DUE}
                ),
                lambda task=task: add_comment(actor=SYSTEM, task_id=task.pk, content="Fine.", author="Bob"),  # type: ignore[misc]
            )
            self.assertLessEqual({type(error) for error in raised}, {UnknownProject, TaskNotFound, ProjectNotFound})
            self.assertFalse(Project.objects.filter(pk=project.pk).exists())
            self.assertEqual(self.events()[-1], "project.deleted")
