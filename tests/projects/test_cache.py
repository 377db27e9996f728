import asyncio
import threading
import time
from typing import Any
from unittest.mock import patch

from django.test import override_settings
from django_redis import get_redis_connection

from backend.projects import services
from backend.projects.access import SYSTEM, Viewer, viewer_for
from backend.projects.cache import lists, versions
from backend.projects.cache.lists import CacheQuery, cached_list
from backend.projects.cache.redis import server
from backend.projects.cache.versions import GLOBAL_TAG, access_tag, bump, project_tag
from backend.projects.models import Event, Role
from backend.projects.resolvers.page import Order, PageRequest
from backend.projects.resolvers.project import ProjectFilter, list_projects
from backend.projects.resolvers.task import TaskFilter, list_tasks
from tests.cases import Case
from tests.factories import MembershipFactory, ProjectFactory, TaskFactory, UserFactory
from tests.servers import own_redis


class CachedListTests(Case):
    def setUp(self) -> None:
        self.built = 0

    def build(self) -> int:
        self.built += 1
        return self.built

    def read(self, viewer: Viewer = SYSTEM, params: Any = None, project_id: int | None = None) -> Any:
        return cached_list(CacheQuery(viewer, "list", params, project_id=project_id), self.build).rows

    def evict(self, tag: str) -> None:
        """Delete the version of a tag, as an eviction by Redis does."""
        self.assertEqual(get_redis_connection("default").delete(server.key(versions.version_key(tag))), 1)

    def test_a_list_is_built_once(self) -> None:
        self.assertEqual([self.read(), self.read()], [1, 1])

    def test_a_hit_runs_no_sql(self) -> None:
        self.read()
        with self.assertNumQueries(0):
            self.read()

    def test_each_viewer_and_each_set_of_parameters_has_its_own_list(self) -> None:
        ada, bob = viewer_for(UserFactory()), viewer_for(UserFactory())
        rows = [self.read(), self.read(params=1), self.read(ada), self.read(bob), self.read(ada)]
        self.assertEqual(rows, [1, 2, 3, 4, 3])

    def test_a_bumped_tag_makes_a_list_stale(self) -> None:
        self.read(project_id=7)
        bump({project_tag(8): 5, GLOBAL_TAG: 5})
        self.assertEqual(self.read(project_id=7), 1)
        bump({project_tag(7): 6})
        self.assertEqual(self.read(project_id=7), 2)

    def test_a_bumped_access_tag_makes_every_list_of_its_user_stale(self) -> None:
        viewer = viewer_for(UserFactory())
        self.read(viewer)
        self.read(viewer, project_id=7)
        bump({access_tag(viewer.user_id): 1})
        self.assertEqual([self.read(viewer), self.read(viewer, project_id=7)], [3, 4])

    def test_the_position_of_a_version_never_falls(self) -> None:
        bump({project_tag(7): 9})
        self.read(project_id=7)
        bump({project_tag(7): 8})
        self.assertEqual(self.read(project_id=7), 1)

    def test_rows_read_before_a_change_are_not_served_after_it(self) -> None:
        def build_during_a_write() -> str:
            bump({project_tag(7): 3})
            return "old"

        cached_list(CacheQuery(SYSTEM, "list", None, project_id=7), build_during_a_write)
        self.assertEqual(self.read(project_id=7), 1)

    def test_a_slow_reader_cannot_store_old_rows_over_newer_ones(self) -> None:
        def build_while_another_reader_stores() -> str:
            services.project.create_project(actor=SYSTEM, name="New")
            bump({GLOBAL_TAG: 1})
            self.assertEqual(self.read(), 1)
            return "old"

        cached_list(CacheQuery(SYSTEM, "list", None), build_while_another_reader_stores)
        self.assertEqual(self.read(), 1)

    def test_rows_of_a_project_that_the_viewer_joins_during_the_read_are_not_stored(self) -> None:
        """The join has not bumped its tags yet, but the response to a write in the project may have been sent."""
        for project_id in (None, ProjectFactory().pk):
            user = UserFactory()
            joined = project_id or ProjectFactory().pk

            def build_while_they_join(user: Any = user, joined: int = joined) -> str:
                self.write_unannounced(
                    lambda: services.membership.add_member(actor=SYSTEM, project_id=joined, username=user.username)
                )
                return "rows with the project"

            built = cached_list(
                CacheQuery(viewer_for(user), "list", None, project_id=project_id), build_while_they_join
            )
            self.assertFalse(built.is_known)
            self.built = 0
            self.assertEqual(self.read(viewer_for(user), project_id=project_id), 1)

    def test_rows_of_a_project_that_the_viewer_has_left_are_not_stored(self) -> None:
        """The check that the viewer sees the project ran before the version of its tag was read."""
        viewer, project_id = viewer_for(UserFactory()), ProjectFactory().pk
        built = cached_list(
            CacheQuery(viewer, "list", None, project_id=project_id, is_visible=True), lambda: "rows of the project"
        )
        self.assertFalse(built.is_known)
        self.assertEqual(self.read(viewer, project_id=project_id), 1)

    def test_another_build_of_the_code_has_its_own_lists(self) -> None:
        self.read()
        with self.settings(BUILD="another"):
            self.assertEqual(self.read(), 2)

    def test_a_list_is_at_least_as_new_as_its_min_position(self) -> None:
        """This holds even if the writer of that position has not bumped the tags yet."""
        project = ProjectFactory()

        def read_at(position: int) -> int:
            rows: int = cached_list(
                CacheQuery(SYSTEM, "list", None, project_id=project.pk, min_position=position), self.build
            ).rows
            return rows

        self.assertEqual([read_at(0), read_at(0)], [1, 1])
        services.project.create_project(actor=SYSTEM, name="Other")
        self.assertEqual(read_at(1), 1)
        services.project.update_project(actor=SYSTEM, project_id=project.pk, changes={"name": "New"})
        self.assertEqual([read_at(2), read_at(2)], [2, 2])

    def test_reading_the_position_costs_no_query_while_the_versions_are_known(self) -> None:
        self.read(project_id=7)
        services.project.create_project(actor=SYSTEM, name="Other")
        bump({GLOBAL_TAG: Event.head()})
        with self.assertNumQueries(0):
            built = cached_list(CacheQuery(SYSTEM, "another", None, project_id=7), self.build)
        self.assertEqual((built.is_known, built.position), (True, Event.head()))

    def test_a_list_is_built_again_when_the_version_of_its_tag_is_lost(self) -> None:
        self.read(project_id=7)
        self.evict(project_tag(7))
        services.project.create_project(actor=SYSTEM, name="New")
        self.assertEqual(self.read(project_id=7), 2)

    def test_a_lost_version_is_never_used_again(self) -> None:
        """Otherwise a list from before a change would be served again after the version of that change is lost."""
        self.read(project_id=7)
        bump({project_tag(7): 3})
        self.evict(project_tag(7))
        self.assertEqual([self.read(project_id=7), self.read(project_id=7)], [2, 2])

    def test_the_number_of_stored_lists_per_viewer_is_limited(self) -> None:
        with patch.object(lists, "_MAX_LISTS", 3):
            read = [self.read(params=number) for number in (1, 2, 3, 4, 5)]
            self.assertEqual([self.read(params=number) for number in (1, 2, 3)], read[:3])
            self.assertEqual(self.read(params=4), 6)
            self.assertEqual(self.read(viewer_for(UserFactory()), params=4), 7)
        stored = get_redis_connection("default").keys(server.key(lists.list_name("*")))
        self.assertEqual(len(stored), 4)

    def test_a_list_that_is_too_large_is_not_stored(self) -> None:
        with patch.object(lists, "_MAX_BYTES", 10):
            self.assertEqual([self.read(), self.read()], [1, 2])

    def test_no_list_is_stored_with_a_lifetime_of_zero(self) -> None:
        self.read()
        with override_settings(CACHE_LIST_S=0):
            self.assertEqual([self.read(), self.read()], [2, 3])

    def test_the_lists_of_a_member_of_too_many_projects_have_the_global_tag(self) -> None:
        user = UserFactory()
        MembershipFactory.create_batch(3, user=user)
        viewer = viewer_for(user)
        self.addCleanup(setattr, versions, "_MAX_TAGS", versions._MAX_TAGS)
        versions._MAX_TAGS = 2
        self.assertEqual([self.read(viewer), self.read(viewer)], [1, 1])
        bump({GLOBAL_TAG: 1})
        self.assertEqual(self.read(viewer), 2)


class WithoutRedisTests(Case):
    def test_lists_are_built_and_writes_succeed(self) -> None:
        with self.redis_down(), self.assertLogs("backend.projects.cache.redis") as logged:
            with self.committed():
                services.project.create_project(actor=SYSTEM, name="New")
            page = list_projects(SYSTEM, filter=ProjectFilter(), order=Order(), page=PageRequest(default_size=9))
        self.assertEqual([row.name for row in page.page.rows], ["New"])
        self.assertEqual([record.levelname for record in logged.records], ["WARNING"])

    def test_no_stale_list_is_served_after_redis_was_unreachable_during_a_write(self) -> None:
        def names() -> list[str]:
            page = list_projects(SYSTEM, filter=ProjectFilter(), order=Order(), page=PageRequest(default_size=9))
            return [row.name for row in page.page.rows]

        self.assertEqual(names(), [])
        with self.redis_down(), self.committed():
            services.project.create_project(actor=SYSTEM, name="New")
        self.assertEqual(names(), ["New"])
        with self.assertNumQueries(0):
            self.assertEqual(names(), ["New"])

    def test_a_bump_is_sent_even_if_redis_was_just_unreachable(self) -> None:
        """Redis may be reachable for other processes, which would serve old lists."""
        version = versions.versions_before_reading(SYSTEM, [7]).by_tag[project_tag(7)]
        self.addCleanup(setattr, server, "ask_again_at", 0.0)
        server.ask_again_at = time.monotonic() + 60
        self.assertTrue(bump({project_tag(7): 5}))
        stored = get_redis_connection("default").get(server.key(versions.version_key(project_tag(7))))
        self.assertEqual(stored.decode(), f"{str(version)[:-1]}5")

    def test_pending_bumps_are_sent_as_soon_as_redis_is_reachable_again(self) -> None:
        """Until then, other processes read the old versions from Redis."""
        version = versions.versions_before_reading(SYSTEM, [7]).by_tag[project_tag(7)]
        with self.redis_down():
            self.assertFalse(bump({project_tag(7): 5}))
        redis = get_redis_connection("default")
        while redis.get(server.key(versions.version_key(project_tag(7)))) == str(version).encode():
            threading.Event().wait(0.01)
        self.assertEqual(
            versions.versions_before_reading(SYSTEM, [7]).by_tag, {project_tag(7): f"{str(version)[:-1]}5"}
        )


class FaultyRedisTests(Case):
    """Lists from the resolvers while Redis restarts with old data or has no memory left."""

    def setUp(self) -> None:
        self.project = ProjectFactory(name="a")

    def names(self) -> list[str]:
        page = list_projects(SYSTEM, filter=ProjectFilter(), order=Order(), page=PageRequest(default_size=9))
        return [row.name for row in page.page.rows]

    def rename(self, name: str) -> None:
        with self.committed():
            services.project.update_project(actor=SYSTEM, project_id=self.project.pk, changes={"name": name})

    def test_no_stale_list_is_served_after_redis_restarts_with_old_data(self) -> None:
        with own_redis() as valkey:
            self.rename("b")
            self.assertEqual(self.names(), ["b"])
            get_redis_connection("default").save()
            self.rename("c")
            valkey.kill()
            valkey.start()
            # Redis has loaded the list and the version from before the change.
            self.assertTrue(get_redis_connection("default").keys("*list:projects:*"))
            self.assertEqual([self.names(), self.names()], [["c"], ["c"]])
            with self.assertNumQueries(0):
                self.assertEqual(self.names(), ["c"])

    def test_no_stale_list_is_served_while_redis_is_full_or_after_it(self) -> None:
        with own_redis():
            redis = get_redis_connection("default")
            self.assertEqual(self.names(), ["a"])
            redis.config_set("maxmemory-policy", "noeviction")
            redis.config_set("maxmemory", "1")
            self.rename("b")
            self.assertEqual([self.names(), self.names()], [["b"], ["b"]])
            redis.config_set("maxmemory", "0")
            self.rename("c")
            self.assertEqual([self.names(), self.names()], [["c"], ["c"]])
            with self.assertNumQueries(0):
                self.assertEqual(self.names(), ["c"])


class BatchedGetTests(Case):
    async def test_concurrent_lookups_share_one_mget(self) -> None:
        with own_redis():
            redis = get_redis_connection("default")
            await versions.ask_async(lambda client: client.mset({server.key(name): name.upper() for name in "ab"}))
            before = redis.info("commandstats").get("cmdstat_mget", {}).get("calls", 0)
            batched_get = versions.BatchedGet()
            found = await asyncio.gather(*(batched_get.get(names) for names in ("ab", "bca", "", "b", "zz")))
            self.assertEqual(found, [[b"A", b"B"], [b"B", None, b"A"], [], [b"B"], [None, None]])
            self.assertEqual(redis.info("commandstats")["cmdstat_mget"]["calls"], before + 1)

    async def test_lookups_during_an_mget_share_the_next_one(self) -> None:
        with own_redis():
            redis = get_redis_connection("default")
            batched_get = versions.BatchedGet()
            await batched_get.get("a")
            before = redis.info("commandstats")["cmdstat_mget"]["calls"]
            redis.client_pause(300)  # milliseconds without a reply
            lookups = [asyncio.ensure_future(batched_get.get("a"))]
            for _ in range(20):
                await asyncio.sleep(0)
                lookups.append(asyncio.ensure_future(batched_get.get("b")))
            self.assertEqual(await asyncio.gather(*lookups), [[None]] * 21)
            self.assertEqual(redis.info("commandstats")["cmdstat_mget"]["calls"], before + 2)

    async def test_an_error_is_logged_and_leaves_no_caller_waiting(self) -> None:
        batched_get = versions.BatchedGet()
        with self.assertLogs("backend.projects.cache", "ERROR"):
            self.assertIsNone(await batched_get.get([5]))  # type: ignore[list-item]
        self.assertEqual(await batched_get.get("a"), [None])

    async def test_a_later_lookup_returns_the_newer_value(self) -> None:
        batched_get, name = versions.BatchedGet(), "later"
        first = asyncio.ensure_future(batched_get.get([name]))
        self.assertEqual(await first, [None])
        await versions.ask_async(lambda client: client.set(server.key(name), "new"))
        self.assertEqual(await batched_get.get([name]), [b"new"])

    async def test_a_cancelled_lookup_does_not_affect_others(self) -> None:
        batched_get = versions.BatchedGet()
        cancelled, remaining = (asyncio.ensure_future(batched_get.get([name])) for name in "ab")
        await asyncio.sleep(0)
        cancelled.cancel()
        self.assertEqual(await remaining, [None])

    async def test_without_redis_a_lookup_returns_none(self) -> None:
        with self.redis_down():
            self.assertIsNone(await versions.BatchedGet().get(["a"]))


class FreshTests(Case):
    """Read, write, read again, through the resolvers that REST and GraphQL share."""

    def setUp(self) -> None:
        self.membership = MembershipFactory(role=Role.OWNER)
        self.viewer = viewer_for(self.membership.user)
        self.task = TaskFactory(project=self.membership.project, title="Old")

    def titles(self, project_id: int | None = None) -> list[str]:
        page = list_tasks(
            self.viewer, filter=TaskFilter(project_id=project_id), order=Order(), page=PageRequest(default_size=9)
        )
        return [row.title for row in page.page.rows]

    def names(self) -> list[str]:
        page = list_projects(self.viewer, filter=ProjectFilter(), order=Order(), page=PageRequest(default_size=9))
        return [row.name for row in page.page.rows]

    def test_lists_are_fresh_after_each_kind_of_write_to_tasks(self) -> None:
        project_id = self.membership.project_id
        self.assertEqual((self.titles(), self.titles(project_id)), (["Old"], ["Old"]))
        with self.committed():
            services.task.update_task(actor=self.viewer, task_id=self.task.pk, changes={"title": "New"})
        self.assertEqual((self.titles(), self.titles(project_id)), (["New"], ["New"]))
        with self.committed():
            services.task.create_task(
                actor=self.viewer, project_id=project_id, changes={"title": "More", "due_date": self.task.due_date}
            )
        self.assertEqual((self.titles(), self.titles(project_id)), (["More", "New"], ["More", "New"]))
        with self.committed():
            services.task.delete_task(actor=self.viewer, task_id=self.task.pk)
        self.assertEqual((self.titles(), self.titles(project_id)), (["More"], ["More"]))

    def test_lists_are_fresh_after_each_kind_of_write_to_projects(self) -> None:
        old = self.membership.project.name
        self.assertEqual(self.names(), [old])
        with self.committed():
            services.project.create_project(actor=self.viewer, name="Second")
        self.assertEqual(self.names(), ["Second", old])
        with self.committed():
            services.project.update_project(
                actor=self.viewer, project_id=self.membership.project_id, changes={"name": "First"}
            )
        self.assertEqual(self.names(), ["Second", "First"])
        with self.committed():
            services.project.delete_project(actor=self.viewer, project_id=self.membership.project_id)
        self.assertEqual((self.names(), self.titles()), (["Second"], []))

    def test_lists_are_fresh_after_joining_and_leaving_a_project(self) -> None:
        other = TaskFactory(title="Elsewhere")
        self.assertEqual(self.titles(), ["Old"])
        with self.committed():
            services.membership.add_member(
                actor=SYSTEM, project_id=other.project_id, username=self.membership.user.username, role=Role.VIEWER
            )
        self.assertEqual(self.titles(), ["Elsewhere", "Old"])
        with self.committed():
            services.membership.remove_member(
                actor=SYSTEM, project_id=other.project_id, user_id=self.membership.user_id
            )
        self.assertEqual(self.titles(), ["Old"])

    def test_a_write_to_an_invisible_project_makes_no_list_stale(self) -> None:
        other = ProjectFactory()
        self.assertEqual(self.titles(other.pk), [])
        with self.committed():
            services.project.update_project(actor=SYSTEM, project_id=other.pk, changes={"name": "New"})
        with self.assertNumQueries(0):
            self.assertEqual(self.titles(other.pk), [])

    def test_a_write_to_one_project_makes_no_list_of_another_stale(self) -> None:
        other = ProjectFactory()
        self.titles(self.membership.project_id)
        with self.committed():
            services.project.update_project(actor=SYSTEM, project_id=other.pk, changes={"name": "New"})
        with self.assertNumQueries(0):
            self.titles(self.membership.project_id)
