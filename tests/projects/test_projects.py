from django.core.exceptions import ValidationError

from backend.projects.access import ANONYMOUS, SYSTEM, viewer_for
from backend.projects.errors import Conflict, NotAllowed, NotSignedIn, ProjectNotFound
from backend.projects.models import Event, Membership, Project, Role, Task
from backend.projects.rows import ProjectRow
from backend.projects.services.project import create_project, delete_project, update_project
from tests.cases import Case
from tests.factories import CommentFactory, MembershipFactory, ProjectFactory, UserFactory


class CreateTests(Case):
    def test_the_creator_owns_the_project(self) -> None:
        user = UserFactory()
        project = create_project(actor=viewer_for(user), name=" Engine ", description="Analytical")
        self.assertEqual((project.name, project.description, project.version), ("Engine", "Analytical", 1))
        self.assertEqual(
            list(Membership.objects.values_list("user", "project", "role")), [(user.pk, project.pk, "owner")]
        )
        self.assertEqual(self.events(), ["project.created"])

    def test_an_invalid_name_is_refused_and_nothing_is_stored(self) -> None:
        for name, code in (
            ("", "BLANK"),
            ("  ", "BLANK"),
            (None, "NULL"),
            ("x" * 256, "MAX_LENGTH"),
            ("a\x00b", "NULL_CHARACTERS"),
            ("a\ud800b", "SURROGATES"),
        ):
            with self.subTest(name=name), self.assertRaises(ValidationError) as refused:
                create_project(actor=SYSTEM, name=name)
            self.assertEqual([error.code for error in refused.exception.error_dict["name"]], [code])
        self.assertEqual((Project.objects.count(), Event.objects.count()), (0, 0))

    def test_an_anonymous_viewer_creates_no_project(self) -> None:
        with self.assertRaises(NotSignedIn):
            create_project(actor=ANONYMOUS, name="Engine")
        self.assertEqual(Project.objects.count(), 0)


class UpdateTests(Case):
    def setUp(self) -> None:
        self.membership = MembershipFactory(role=Role.EDITOR)
        self.project: Project = self.membership.project
        self.actor = viewer_for(self.membership.user)

    def test_a_change_raises_the_version_and_its_event_names_the_field(self) -> None:
        changed = update_project(actor=self.actor, project_id=self.project.pk, changes={"name": "New"})
        self.assertEqual((changed.name, changed.version), ("New", 2))
        self.assertEqual(self.events(), ["project.updated"])
        self.assertIn('"changes":["name"]', Event.objects.get().payload)

    def test_an_update_without_a_change_records_no_event(self) -> None:
        same = update_project(actor=self.actor, project_id=self.project.pk, changes={"name": self.project.name})
        self.assertEqual(same.version, 1)
        self.assertEqual(self.events(), [])

    def test_an_old_version_is_a_conflict_with_the_current_row(self) -> None:
        update_project(actor=self.actor, project_id=self.project.pk, changes={"name": "New"}, version=1)
        with self.assertRaises(Conflict) as refused:
            update_project(actor=self.actor, project_id=self.project.pk, changes={"name": "Newer"}, version=1)
        self.project.refresh_from_db()
        self.assertEqual(refused.exception.current, ProjectRow.of(self.project))
        self.assertEqual((self.project.name, self.events()), ("New", ["project.updated"]))

    def test_a_viewer_may_not_update_a_project_and_a_non_member_does_not_find_it(self) -> None:
        reader = MembershipFactory(project=self.project, role=Role.VIEWER).user
        for user, error in ((reader, NotAllowed), (UserFactory(), ProjectNotFound)):
            with self.assertRaises(error):
                update_project(actor=viewer_for(user), project_id=self.project.pk, changes={"name": "New"})
        self.assertEqual(self.events(), [])


class DeleteTests(Case):
    def test_deleting_a_project_deletes_its_contents_and_records_one_event(self) -> None:
        owner = MembershipFactory(role=Role.OWNER)
        reader = MembershipFactory(project=owner.project, role=Role.VIEWER)
        CommentFactory(task__project=owner.project)
        row = delete_project(actor=viewer_for(owner.user), project_id=owner.project_id)
        self.assertEqual(row, ProjectRow.of(owner.project))
        self.assertEqual((Project.objects.count(), Task.objects.count()), (0, 0))
        self.assertEqual(self.events(), ["project.deleted"])
        self.assertEqual(Event.objects.get().audience, sorted([owner.user_id, reader.user_id]))

    def test_only_an_owner_may_delete(self) -> None:
        editor = MembershipFactory(role=Role.EDITOR)
        with self.assertRaises(NotAllowed):
            delete_project(actor=viewer_for(editor.user), project_id=editor.project_id)
        self.assertEqual((Project.objects.count(), self.events()), (1, []))


class ManyTests(Case):
    def test_deleting_a_project_costs_the_same_queries_for_one_task_and_for_twenty(self) -> None:
        few, many = ProjectFactory.create_batch(2)
        CommentFactory(task__project=few)
        CommentFactory.create_batch(20, task__project=many)
        with self.assertNumQueries(14):
            delete_project(actor=SYSTEM, project_id=few.pk)
        with self.assertNumQueries(14):
            delete_project(actor=SYSTEM, project_id=many.pk)
