"""`/tasks/<id>/comments/`."""

from typing import Any

from backend.projects.models import Comment
from tests.factories import CommentFactory, MembershipFactory, ProjectFactory, TaskFactory, UserFactory
from tests.rest.cases import ABSENT_IDS, ClosedCase, OpenCase, comment_json


class ListCommentsTest(OpenCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.task = TaskFactory()
        cls.comments = CommentFactory.create_batch(3, task=cls.task)
        cls.elsewhere = CommentFactory()
        cls.path = f"/tasks/{cls.task.pk}/comments/"

    def test_the_comments_of_one_task_come_newest_first(self) -> None:
        response = self.client.get(self.path, {"count": 1})
        self.assertEqual(response.json(), [comment_json(comment) for comment in self.comments[::-1]])
        self.assertEqual(list(response.json()[0]), ["id", "task", "author", "content", "created_at"])
        self.assertEqual((response["X-Total-Count"], response["X-Cursor"]), ("3", "0"))

    def test_all_pages_together_contain_every_comment_once(self) -> None:
        first, second, third = (comment.pk for comment in self.comments)
        self.assertEqual(self.ids_of_all_pages(f"{self.path}?page_size=2"), [[third, second], [first]])

    def test_a_cursor_of_the_comments_of_another_task_is_refused(self) -> None:
        link = self.next_page(self.client.get(f"{self.path}?page_size=1"))
        elsewhere = link.replace(f"/{self.task.pk}/", f"/{self.elsewhere.task_id}/")
        self.assert_refused(self.client.get(elsewhere), 400, "cursor")

    def test_the_refusal_of_a_bad_parameter_names_it(self) -> None:
        for query, field in [("author=Ada", "author"), ("page_size=0", "page_size"), ("count=", "count")]:
            with self.subTest(query):
                self.assert_refused(self.client.get(f"{self.path}?{query}"), 400, field)

    def test_the_comments_of_an_absent_task_are_not_found(self) -> None:
        for absent in ABSENT_IDS:
            for method in ("GET", "POST"):
                with self.subTest(id=absent, method=method), self.nothing_changes():
                    response = self.send(method, f"/tasks/{absent}/comments/", {"content": "Hm.", "author": "Ada"})
                    self.assert_refused(response, 404)

    def test_a_list_is_a_304_until_a_comment_is_added(self) -> None:
        etag = self.client.get(self.path)["ETag"]
        self.assertEqual(self.client.get(self.path, headers={"If-None-Match": etag}).status_code, 304)
        with self.committed():
            self.send("POST", self.path, {"content": "More.", "author": "Ada"})
        again = self.client.get(self.path, headers={"If-None-Match": etag})
        self.assertEqual((again.status_code, again.json()[0]["content"]), (200, "More."))

    def test_twenty_comments_cost_as_many_queries_as_one(self) -> None:
        self.client.get(self.path)  # makes the tag versions known
        with self.assertNumQueries(2):
            self.client.get(f"{self.path}?page_size=1")
        CommentFactory.create_batch(20, task=self.task)
        with self.assertNumQueries(2):
            self.client.get(f"{self.path}?page_size=20")


class AddCommentTest(OpenCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.task = TaskFactory()
        cls.path = f"/tasks/{cls.task.pk}/comments/"

    def test_a_comment_is_added_and_recorded(self) -> None:
        response = self.send("POST", self.path, {"content": " Looks good.\n", "author": " Ada "})
        comment = Comment.objects.get()
        self.assertEqual((response.status_code, response.json()), (201, comment_json(comment)))
        self.assertEqual(response["Location"], self.path)
        self.assertEqual((comment.author, comment.content), ("Ada", " Looks good.\n"))
        self.assertEqual(self.events(), ["task.commented"])

    def test_a_comment_does_not_change_its_task(self) -> None:
        before = self.client.get(f"/tasks/{self.task.pk}/").json()
        self.send("POST", self.path, {"content": "Hm.", "author": "Ada"})
        self.assertEqual(self.client.get(f"/tasks/{self.task.pk}/").json(), before)

    def test_the_refusal_of_a_bad_field_names_it(self) -> None:
        bad: list[tuple[str, Any]] = [
            ("content", None),
            ("content", ""),
            ("content", " \n"),
            ("content", 5),
            ("content", "\x00"),
            ("author", None),
            ("author", ""),
            ("author", "  "),
            ("author", "a" * 256),
            ("author", True),
            ("author", "A\x00da"),
        ]
        for name, value in bad:
            with self.subTest(name=name, value=value), self.nothing_changes():
                response = self.send("POST", self.path, {"content": "Hm.", "author": "Ada", name: value})
                self.assert_refused(response, 400, name)

    def test_the_refusal_of_a_missing_field_names_it(self) -> None:
        with self.nothing_changes():
            self.assert_refused(self.send("POST", self.path, {"author": "Ada"}), 400, "content")
            self.assert_refused(self.send("POST", self.path, {"content": "Hm."}), 400, "author")

    def test_comments_cannot_be_changed(self) -> None:
        for method in ("PUT", "PATCH", "DELETE"):
            with self.subTest(method):
                response = self.send(method, self.path)
                self.assert_refused(response, 405, "detail")
                self.assertEqual(response["Allow"], "GET, POST, HEAD, OPTIONS")


class CommentAccessTest(ClosedCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.project = ProjectFactory()
        cls.task = TaskFactory(project=cls.project)
        cls.path = f"/tasks/{cls.task.pk}/comments/"

    def member(self, role: str) -> Any:
        user = UserFactory(first_name="Ada", last_name="Lovelace")
        return MembershipFactory(project=self.project, role=role, user=user).user

    def test_an_anonymous_request_is_a_401(self) -> None:
        for method in ("GET", "POST"):
            with self.subTest(method), self.nothing_changes():
                self.assert_refused(self.send(method, self.path, {"content": "Hm.", "author": "Ada"}), 401)

    def test_a_task_is_not_found_for_a_non_member(self) -> None:
        self.client.force_login(UserFactory())
        for method in ("GET", "POST"):
            with self.subTest(method), self.nothing_changes():
                self.assert_refused(self.send(method, self.path, {"content": "Hm."}), 404)

    def test_a_viewer_may_read_but_not_write(self) -> None:
        self.client.force_login(self.member("viewer"))
        self.assertEqual(self.client.get(self.path).status_code, 200)
        with self.nothing_changes():
            self.assert_refused(self.send("POST", self.path, {"content": "Hm."}), 403)

    def test_a_signed_in_user_comments_under_their_own_name(self) -> None:
        self.client.force_login(self.member("editor"))
        for body in ({"content": "Hm."}, {"content": "Hm.", "author": "Ada Lovelace"}):
            response = self.send("POST", self.path, body)
            self.assertEqual((response.status_code, response.json()["author"]), (201, "Ada Lovelace"))
