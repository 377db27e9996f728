"""`/projects/` and `/projects/<id>/`."""

from django.test import override_settings
from django_redis import get_redis_connection

from backend.projects.models import Comment, Membership, Project, Task
from tests.factories import CommentFactory, MembershipFactory, ProjectFactory, TaskFactory, UserFactory
from tests.rest.cases import ABSENT_IDS, ClosedCase, OpenCase, project_json


class ListProjectsTest(OpenCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.garden = ProjectFactory(name="Garden", description="Tomatoes")
        cls.kitchen = ProjectFactory(name="Kitchen")

    def test_projects_come_newest_first_as_a_plain_array(self) -> None:
        response = self.client.get("/projects/")
        self.assertEqual(response.status_code, 200)
        self.assertEqual(response.json(), [project_json(self.kitchen), project_json(self.garden)])
        self.assertNotIn("Link", response)
        self.assertNotIn("X-Total-Count", response)

    def test_an_object_has_exactly_the_fields_of_the_contract(self) -> None:
        self.assertEqual(
            list(self.client.get("/projects/").json()[0]),
            ["id", "name", "description", "created_at", "updated_at", "version"],
        )

    def test_search_finds_a_substring_of_name_or_description(self) -> None:
        for text in ("arde", "OMATO"):
            with self.subTest(text):
                rows = self.client.get("/projects/", {"search": text}).json()
                self.assertEqual([project["id"] for project in rows], [self.garden.pk])

    def test_a_search_for_two_letters_is_refused(self) -> None:
        self.assert_refused(self.client.get("/projects/?search=ar"), 400, "search")

    def test_all_pages_together_contain_every_project_once(self) -> None:
        newest = [ProjectFactory().pk for _ in range(3)][::-1]
        pages = self.ids_of_all_pages("/projects/?page_size=2")
        self.assertEqual(pages, [newest[:2], [newest[2], self.kitchen.pk], [self.garden.pk]])

    def test_the_link_keeps_the_other_parameters(self) -> None:
        ProjectFactory(name="Garden & <shed>")
        response = self.client.get("/projects/", {"page_size": 1, "count": 1, "search": "Garden"})
        following = self.client.get(self.next_page(response))
        self.assertEqual([project["id"] for project in following.json()], [self.garden.pk])
        self.assertEqual((response["X-Total-Count"], following["X-Total-Count"]), ("2", "2"))

    def test_a_cursor_of_another_list_is_refused(self) -> None:
        response = self.client.get("/projects/?page_size=1")
        cursor = self.next_page(response).split("cursor=")[1]
        self.assert_refused(self.client.get(f"/projects/?search=garden&cursor={cursor}"), 400, "cursor")
        self.assert_refused(self.client.get(f"/tasks/?cursor={cursor}"), 400, "cursor")

    def test_the_refusal_of_a_bad_parameter_names_it(self) -> None:
        for query, field in [
            ("colour=red", "colour"),
            ("search=", "search"),
            ("search=garden&search=garden", "search"),
            ("search=gar%00den", "search"),
            ("page_size=0", "page_size"),
            ("page_size=101", "page_size"),
            ("page_size=-1", "page_size"),
            ("page_size=1_0", "page_size"),
            ("page_size=+5", "page_size"),
            ("page_size=ten", "page_size"),
            ("page_size=" + "9" * 5000, "page_size"),
            ("count=2", "count"),
            ("count=true", "count"),
            ("cursor=nonsense", "cursor"),
            ("cursor=%F0%9F%8D%85", "cursor"),
            ("ordering=id", "ordering"),
        ]:
            with self.subTest(query[:40]):
                self.assert_refused(self.client.get(f"/projects/?{query}"), 400, field)

    def test_a_query_string_that_is_not_utf_8_is_refused(self) -> None:
        for query in ("search=%ED%A0%80%ED%A0%80%ED%A0%80", "search=%FF%FF%FF"):
            with self.subTest(query):
                self.assert_refused(self.client.get(f"/projects/?{query}"), 400, "detail")

    def test_the_second_request_queries_no_table(self) -> None:
        first = self.client.get("/projects/")
        with self.assertNumQueries(0):
            second = self.client.get("/projects/")
        self.assertEqual(second.content, first.content)
        self.assertEqual(second["X-Cursor"], first["X-Cursor"])

    def test_the_list_is_fresh_after_every_kind_of_write(self) -> None:
        def names() -> list[str]:
            return [project["name"] for project in self.client.get("/projects/").json()]

        self.assertEqual(names(), ["Kitchen", "Garden"])
        with self.committed():
            created = self.send("POST", "/projects/", {"name": "Cellar"}).json()
        self.assertEqual(names(), ["Cellar", "Kitchen", "Garden"])
        with self.committed():
            self.send("PATCH", f"/projects/{created['id']}/", {"name": "Attic"})
        self.assertEqual(names(), ["Attic", "Kitchen", "Garden"])
        with self.committed():
            self.client.delete(f"/projects/{created['id']}/")
        self.assertEqual(names(), ["Kitchen", "Garden"])

    def test_an_unchanged_list_is_a_304(self) -> None:
        first = self.client.get("/projects/?page_size=1")
        self.assertRegex(first["ETag"], r'^W/"[0-9a-f]{24}"$')
        with self.assertNumQueries(0):
            again = self.client.get("/projects/?page_size=1", headers={"If-None-Match": first["ETag"]})
        self.assertEqual((again.status_code, again.content), (304, b""))
        for header in ("ETag", "X-Cursor", "Cache-Control", "Vary"):
            self.assertEqual(again[header], first[header])
        with self.committed():
            self.send("POST", "/projects/", {"name": "Cellar"})
        changed = self.client.get("/projects/?page_size=1", headers={"If-None-Match": first["ETag"]})
        self.assertEqual(changed.status_code, 200)
        self.assertNotEqual(changed["ETag"], first["ETag"])

    def test_a_304_reads_no_row_even_if_the_list_is_not_in_redis(self) -> None:
        etag = self.client.get("/projects/")["ETag"]
        with override_settings(CACHE_LIST_S=0):
            get_redis_connection("default").delete(*get_redis_connection("default").keys("*list:*"))
            with self.assertNumQueries(0):
                again = self.client.get("/projects/", headers={"If-None-Match": etag})
        self.assertEqual((again.status_code, again.content, again["ETag"]), (304, b"", etag))

    def test_the_etag_changes_after_a_write_without_redis(self) -> None:
        with self.redis_down():
            first = self.client.get("/projects/")["ETag"]
            with self.committed():
                self.send("POST", "/projects/", {"name": "Cellar"})
            changed = self.client.get("/projects/", headers={"If-None-Match": first})
        self.assertEqual(changed.status_code, 200)

    def test_if_none_match_may_have_a_strong_etag_a_list_of_etags_or_a_star(self) -> None:
        etag = self.client.get("/projects/")["ETag"]
        for if_none_match, status in [
            (etag.removeprefix("W/"), 304),
            (f'"other", {etag}', 304),
            ("*", 304),
            ('"other"', 200),
            ("nonsense", 200),
        ]:
            with self.subTest(if_none_match):
                response = self.client.get("/projects/", headers={"If-None-Match": if_none_match})
                self.assertEqual(response.status_code, status)

    def test_twenty_projects_cost_as_many_queries_as_one(self) -> None:
        self.client.get("/projects/")  # makes the tag versions known
        with self.assertNumQueries(1):
            self.client.get("/projects/?page_size=1")
        ProjectFactory.create_batch(20)
        with self.assertNumQueries(1):
            self.client.get("/projects/?page_size=20")

    def test_responses_forbid_shared_caching(self) -> None:
        response = self.client.get("/projects/")
        self.assertEqual(response["Cache-Control"], "private, no-cache")
        self.assertLessEqual({"Accept", "Authorization", "Cookie"}, set(response["Vary"].split(", ")))

    def test_head_has_the_headers_of_get(self) -> None:
        response = self.client.head("/projects/")
        self.assertEqual((response.status_code, response.content), (200, b""))
        self.assertEqual(response["ETag"], self.client.get("/projects/")["ETag"])


class CreateProjectTest(OpenCase):
    def test_a_project_is_created_and_recorded(self) -> None:
        response = self.send("POST", "/projects/", {"name": " Garden ", "description": " Tomatoes\n"})
        project = Project.objects.get()
        self.assertEqual(response.status_code, 201)
        self.assertEqual(response["Location"], f"/projects/{project.pk}/")
        self.assertEqual(response.json(), project_json(project))
        self.assertEqual((project.name, project.description, project.version), ("Garden", " Tomatoes\n", 1))
        self.assertEqual(self.events(), ["project.created"])

    def test_a_description_may_be_absent_empty_or_null(self) -> None:
        for body in ({}, {"description": ""}, {"description": None}):
            with self.subTest(body):
                response = self.send("POST", "/projects/", {"name": "Garden", **body})
                self.assertEqual((response.status_code, response.json()["description"]), (201, ""))

    def test_a_name_has_at_most_255_characters(self) -> None:
        self.assertEqual(self.send("POST", "/projects/", {"name": "n" * 255}).status_code, 201)
        with self.nothing_changes():
            self.assert_refused(self.send("POST", "/projects/", {"name": "n" * 256}), 400, "name")

    def test_the_refusal_of_a_bad_field_names_it(self) -> None:
        for body, field in [
            ({}, "name"),
            ({"name": None}, "name"),
            ({"name": ""}, "name"),
            ({"name": "   "}, "name"),
            ({"name": 5}, "name"),
            ({"name": True}, "name"),
            ({"name": ["Garden"]}, "name"),
            ({"name": "Gar\x00den"}, "name"),
            ({"name": "Garden", "description": 5}, "description"),
            ({"name": "Garden", "description": "\x00"}, "description"),
        ]:
            with self.subTest(body), self.nothing_changes():
                self.assert_refused(self.send("POST", "/projects/", body), 400, field)

    def test_read_only_fields_are_ignored(self) -> None:
        body = {"name": "Garden", "id": 77, "version": 9, "created_at": "2001-01-01", "colour": "red"}
        response = self.send("POST", "/projects/", body)
        self.assertEqual(response.status_code, 201)
        self.assertNotEqual(response.json()["id"], 77)
        self.assertEqual(response.json()["version"], 1)

    def test_a_query_parameter_is_refused_on_post(self) -> None:
        with self.nothing_changes():
            self.assert_refused(self.send("POST", "/projects/?page_size=1", {"name": "Garden"}), 400, "page_size")


class ProjectTest(OpenCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.project = ProjectFactory(name="Garden", description="Tomatoes")
        cls.path = f"/projects/{cls.project.pk}/"

    def test_a_project_is_returned_with_its_version_and_the_position(self) -> None:
        self.send("PATCH", self.path, {"name": "Kitchen"})
        with self.assertNumQueries(2):
            response = self.client.get(self.path)
        self.project.refresh_from_db()
        self.assertEqual((response.status_code, response.json()), (200, project_json(self.project)))
        self.assertEqual((response["ETag"], response["X-Cursor"]), ('"2"', "1"))

    def test_a_get_of_the_current_version_is_a_304(self) -> None:
        response = self.client.get(self.path, headers={"If-None-Match": '"1"'})
        self.assertEqual((response.status_code, response.content), (304, b""))
        self.assertEqual((response["ETag"], response["X-Cursor"]), ('"1"', "0"))
        self.assertEqual(self.client.get(self.path, headers={"If-None-Match": '"2"'}).status_code, 200)

    def test_absent_projects_are_not_found(self) -> None:
        for absent in ABSENT_IDS:
            for method in ("GET", "PUT", "PATCH", "DELETE"):
                with self.subTest(id=absent, method=method), self.nothing_changes():
                    response = self.send(method, f"/projects/{absent}/", {"name": "Kitchen"})
                    self.assert_refused(response, 404)
                    self.assertEqual(response.json(), {"detail": "There is no such project."})

    def test_put_requires_the_name_and_leaves_an_absent_description(self) -> None:
        with self.nothing_changes():
            self.assert_refused(self.send("PUT", self.path, {"description": "Peas"}), 400, "name")
        response = self.send("PUT", self.path, {"name": "Kitchen"})
        self.project.refresh_from_db()
        self.assertEqual((response.status_code, response.json()), (200, project_json(self.project)))
        self.assertEqual(
            (self.project.name, self.project.description, self.project.version), ("Kitchen", "Tomatoes", 2)
        )
        self.assertEqual(self.events(), ["project.updated"])

    def test_patch_changes_only_the_fields_of_the_body(self) -> None:
        response = self.send("PATCH", self.path, {"description": None})
        self.assertEqual(response.status_code, 200)
        self.assertEqual((response.json()["name"], response.json()["description"]), ("Garden", ""))

    def test_an_update_without_a_change_records_no_event(self) -> None:
        with self.nothing_changes():
            for body in ({}, {"name": "Garden"}, {"name": " Garden ", "description": "Tomatoes"}):
                self.assertEqual(self.send("PATCH", self.path, body).json(), project_json(self.project))

    def test_bad_fields_are_refused(self) -> None:
        for method in ("PUT", "PATCH"):
            with self.subTest(method), self.nothing_changes():
                self.assert_refused(self.send(method, self.path, {"name": "n" * 256}), 400, "name")

    def test_if_match_accepts_the_current_version_and_refuses_an_old_one(self) -> None:
        self.assertEqual(self.send("PATCH", self.path, {"name": "Two"}, If_Match='"1"').status_code, 200)
        self.project.refresh_from_db()
        for method in ("PUT", "PATCH", "DELETE"):
            for tag in ('"1"', 'W/"2"', '"two"', '"02"', '"1", "3"', '"99999999999"'):
                with self.subTest(method=method, tag=tag), self.nothing_changes():
                    response = self.send(method, self.path, {"name": "Three"}, If_Match=tag)
                    self.assertEqual((response.status_code, response.json()), (412, project_json(self.project)))
        for tag in ("*", '"1" , "2"', '"2"'):
            with self.subTest(tag):
                self.assertEqual(self.send("PATCH", self.path, {"name": "Two"}, If_Match=tag).status_code, 200)

    def test_a_malformed_condition_is_refused(self) -> None:
        for tag in ("2", "", '"2', '"1" "2"', '*, "2"', '"2",', 'w/"2"'):
            with self.subTest(tag), self.nothing_changes():
                self.assert_refused(self.send("DELETE", self.path, If_Match=tag), 400, "If-Match")

    def test_a_condition_on_an_absent_project_is_a_404(self) -> None:
        for tag in ('"1"', '"1", "2"', "*"):
            self.assert_refused(self.send("DELETE", "/projects/999999/", If_Match=tag), 404)

    def test_deleting_a_project_deletes_its_contents_and_records_one_event(self) -> None:
        CommentFactory(task=TaskFactory(project=self.project))
        response = self.send("DELETE", self.path, If_Match='"1"')
        self.assertEqual((response.status_code, response.content), (204, b""))
        self.assertEqual((Project.objects.count(), Task.objects.count(), Comment.objects.count()), (0, 0, 0))
        self.assertEqual(self.events(), ["project.deleted"])
        self.assert_refused(self.client.delete(self.path), 404)

    def test_a_project_takes_no_query_parameters(self) -> None:
        for method in ("GET", "PATCH", "DELETE"):
            with self.subTest(method), self.nothing_changes():
                self.assert_refused(self.send(method, f"{self.path}?page_size=1", {}), 400, "page_size")


class ProjectAccessTest(ClosedCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.project = ProjectFactory()
        cls.path = f"/projects/{cls.project.pk}/"
        cls.members = {
            role: MembershipFactory(project=cls.project, role=role).user for role in ("owner", "editor", "viewer")
        }
        cls.stranger = UserFactory()
        cls.staff = UserFactory(is_staff=True)

    def test_an_anonymous_request_is_a_401_before_any_other_check(self) -> None:
        for method, path, body in [
            ("GET", "/projects/", None),
            ("GET", "/projects/?colour=red", None),
            ("POST", "/projects/", b"nonsense"),
            ("GET", self.path, None),
            ("GET", "/projects/999999/", None),
            ("PATCH", self.path, {"name": "Mine"}),
            ("DELETE", self.path, None),
        ]:
            with self.subTest(method=method, path=path), self.nothing_changes():
                response = self.send(method, path, body)
                self.assert_refused(response, 401)
                self.assertEqual(response.json(), {"detail": "Sign in first."})
                self.assertEqual(response["WWW-Authenticate"], 'Bearer realm="Taskwire"')

    def test_a_non_member_gets_404_for_every_request(self) -> None:
        self.client.force_login(self.stranger)
        response = self.client.get("/projects/?count=1")
        self.assertEqual((response.json(), response["X-Total-Count"]), ([], "0"))
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            with self.subTest(method), self.nothing_changes():
                self.assert_refused(self.send(method, self.path, {"name": "Mine"}), 404)

    def test_members_and_staff_may_read_the_project(self) -> None:
        for user in (*self.members.values(), self.staff):
            self.client.force_login(user)
            self.assertEqual(self.client.get("/projects/").json(), [project_json(self.project)])
            self.assertEqual(self.client.get(self.path).json(), project_json(self.project))

    def test_viewers_may_change_nothing_editors_may_update_and_owners_may_also_delete(self) -> None:
        for role, patched, deleted in [("viewer", 403, 403), ("editor", 200, 403), ("owner", 200, 204)]:
            self.client.force_login(self.members[role])
            with self.subTest(role):
                self.assertEqual(self.send("PATCH", self.path, {"name": f"By {role}"}).status_code, patched)
                self.assertEqual(self.client.delete(self.path).status_code, deleted)

    def test_a_refused_change_changes_nothing(self) -> None:
        self.client.force_login(self.members["viewer"])
        with self.nothing_changes():
            response = self.send("PATCH", self.path, {"name": "Mine"})
            self.assertEqual(response.json(), {"detail": "You may not do this."})

    def test_the_creator_of_a_project_owns_it(self) -> None:
        self.client.force_login(self.stranger)
        created = self.send("POST", "/projects/", {"name": "Mine"}).json()
        membership = Membership.objects.get(project=created["id"])
        self.assertEqual((membership.user_id, membership.role), (self.stranger.pk, "owner"))

    def test_a_cached_list_is_not_shared_between_users(self) -> None:
        other = MembershipFactory(user=self.stranger).project
        for user, project in [(self.members["viewer"], self.project), (self.stranger, other)] * 2:
            self.client.force_login(user)
            self.assertEqual([row["id"] for row in self.client.get("/projects/").json()], [project.pk])
