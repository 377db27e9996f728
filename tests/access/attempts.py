"""Every place where an id, a cursor or a text of another team can be named.

What is sent names it as `%(task)s`; `%(my_task)s` is one's own. The keys are where the name stands: an argument or an
input's field in GraphQL, a path, parameter or field of a body in REST.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from graphql import GraphQLID, GraphQLInputObjectType, get_named_type

from rest.serializers import Id, IdParameter
from tests.access.doors import GRAPH, graphql_types, rest_methods, rest_views

REFUSAL = "... on OperationInfo { messages { kind field message code } }"
ROWS = "totalCount nodes { id } edges { cursor } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }"
MEMBERS = ROWS.replace("{ id }", "{ role user { id name } }")
DUE = 'dueDate: "2031-03-01T00:00:00Z"'


def do(field: str) -> str:
    return f"mutation {{ result: {field} {{ __typename {REFUSAL} }} }}"


def paged(field: str, cursor: str, rows: str = ROWS) -> list[str]:
    """A list from a cursor on, and up to it; LIST in `field` stands for what is asked of it."""
    pages = ("after", "last: 2, before")
    return [field.replace("LIST", f'({page}: "%({cursor}_cursor)s") {{ {rows} }}') for page in pages]


# --- GraphQL ---------------------------------------------------------------------------------------------
DOCUMENTS: dict[str, list[str]] = {
    "Query.project(id)": [
        "{ project(id: %(project)s) { id name version } }",
        f"{{ project(id: %(project)s) {{ tasks {{ {ROWS} }} members {{ {MEMBERS} }} }} }}",
    ],
    "Query.task(id)": [
        "{ task(id: %(task)s) { title assignee { name } project { name } comments { totalCount nodes { content } } } }"
    ],
    "Query.report(id)": ["{ report(id: %(report)s) { id figures project { name } } }"],
    "Query.reports(projectId)": [f"{{ reports(projectId: %(project)s) {{ {ROWS} }} }}"],
    "Query.events(projectId)": [
        '{ events(after: "0", projectId: %(project)s) { nodes { cursor kind actor { name } } cursor hasMore } }',
        '{ events(after: "0", first: 1, projectId: %(project)s) { nodes { cursor } cursor hasMore } cursor }',
    ],
    "TaskFilter.projectId": [
        f"{{ tasks(filter: {{ projectId: %(project)s }}) {{ {ROWS} }} }}",
        f"{{ tasks(filter: {{ projectId: %(project)s }}, order: {{ field: DUE_DATE }}) {{ {ROWS} }} cursor }}",
        f"{{ project(id: %(my_project)s) {{ tasks(filter: {{ projectId: %(project)s }}) {{ {ROWS} }} }} }}",
    ],
    "TaskFilter.assigneeId": [
        f"{{ tasks(filter: {{ assigneeId: %(user)s }}) {{ {ROWS} }} }}",
        f"{{ project(id: %(my_project)s) {{ tasks(filter: {{ assigneeId: %(user)s }}) {{ {ROWS} }} }} }}",
        f"{{ tasks(filter: {{ projectId: %(project)s, assigneeId: %(user)s }}) {{ {ROWS} }} }}",
    ],
    "CreateTaskInput.projectId": [
        do(f'createTask(input: {{ projectId: %(project)s, title: "New", {DUE} }})'),
        do(f'createTask(input: {{ projectId: %(project)s, title: " ", {DUE}, assigneeId: %(user)s }})'),
    ],
    "CreateTaskInput.assigneeId": [
        do(f'createTask(input: {{ projectId: %(my_project)s, title: "New", {DUE}, assigneeId: %(user)s }})')
    ],
    "UpdateTaskInput.id": [
        do(f'updateTask(input: {{ id: %(task)s, title: "New"{version} }})')
        for version in ("", ", version: 1", ", version: 99")
    ],
    "UpdateTaskInput.assigneeId": [
        do("updateTask(input: { id: %(my_task)s, assigneeId: %(user)s })"),
        do("updateTask(input: { id: %(task)s, assigneeId: %(user)s })"),
    ],
    "DeleteTaskInput.id": [do(f"deleteTask(input: {{ id: %(task)s{version} }})") for version in ("", ", version: 99")],
    "UpdateProjectInput.id": [
        do(f'updateProject(input: {{ id: %(project)s, name: "New"{version} }})')
        for version in ("", ", version: 1", ", version: 99")
    ],
    "DeleteProjectInput.id": [
        do(f"deleteProject(input: {{ id: %(project)s{version} }})") for version in ("", ", version: 99")
    ],
    "AddCommentInput.taskId": [
        do('addComment(input: { taskId: %(task)s, content: "New", author: "Me" })'),
        do('addComment(input: { taskId: %(task)s, content: "" })'),
    ],
    "AddMemberInput.projectId": [
        do('addMember(input: { projectId: %(project)s, username: "%(my_name)s" })'),
        do('addMember(input: { projectId: %(project)s, username: "%(name)s", role: VIEWER })'),
    ],
    "ChangeRoleInput.projectId": [
        do("changeRole(input: { projectId: %(project)s, userId: %(user)s, role: VIEWER })"),
        do("changeRole(input: { projectId: %(project)s, userId: %(me)s, role: OWNER })"),
    ],
    "ChangeRoleInput.userId": [do("changeRole(input: { projectId: %(my_project)s, userId: %(user)s, role: VIEWER })")],
    "RemoveMemberInput.projectId": [
        do("removeMember(input: { projectId: %(project)s, userId: %(user)s })"),
        do("removeMember(input: { projectId: %(project)s, userId: %(me)s })"),
    ],
    "RemoveMemberInput.userId": [do("removeMember(input: { projectId: %(my_project)s, userId: %(user)s })")],
    "RevokeTokenInput.id": [do("revokeToken(input: { id: %(token)s })")],
    # Texts that only the other team's rows have.
    "TaskFilter.search": [
        f'{{ tasks(filter: {{ search: "%(text)s" }}) {{ {ROWS} }} }}',
        f'{{ project(id: %(my_project)s) {{ tasks(filter: {{ search: "%(text)s" }}) {{ {ROWS} }} }} }}',
    ],
    "ProjectFilter.search": [f'{{ projects(filter: {{ search: "%(text)s" }}) {{ {ROWS} }} }}'],
    # Cursors of the other team's lists.
    "Query.projects(after)": paged("{ projectsLIST }", "projects"),
    "Query.tasks(after)": [*paged("{ tasksLIST }", "tasks"), *paged("{ tasksLIST }", "tasks_of_project")],
    "Query.reports(after)": [*paged("{ reportsLIST }", "reports"), *paged("{ reportsLIST }", "reports_of_project")],
    "Query.tokens(after)": paged("{ tokensLIST }", "tokens"),
    "Query.auditLog(after)": paged("{ auditLogLIST }", "audit"),
    "Project.tasks(after)": paged("{ project(id: %(my_project)s) { tasksLIST } }", "tasks_in_project"),
    "Project.members(after)": paged("{ project(id: %(my_project)s) { membersLIST } }", "members_in_project", MEMBERS),
    "Task.comments(after)": paged("{ task(id: %(my_task)s) { commentsLIST } }", "comments_on_task"),
    # Positions of the other team's events.
    "Query.events(after)": [
        '{ events(after: "%(position)s") { nodes { cursor } cursor hasMore } }',
        '{ events(after: "%(position)s", projectId: %(project)s) { nodes { cursor } cursor hasMore } }',
    ],
}


def places_in_graphql() -> Iterator[str]:
    """Where an id, the cursor of a page or a text to search for may stand; subscriptions are tried apart."""
    for kind in graphql_types():
        for name, shown in kind.fields.items():
            for argument, given in shown.args.items():
                if kind is GRAPH.subscription_type:
                    continue
                if get_named_type(given.type) is GraphQLID or argument == "after":
                    yield f"{kind.name}.{name}({argument})"
    for kind in GRAPH.type_map.values():
        if isinstance(kind, GraphQLInputObjectType):
            for name, given in kind.fields.items():
                if get_named_type(given.type) is GraphQLID or name == "search":
                    yield f"{kind.name}.{name}"


# --- REST ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Request:
    method: str
    path: str
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)


PROJECT, TASK, REPORT = "/projects/%(project)s/", "/tasks/%(task)s/", "/reports/%(report)s/"
MY_PROJECT, MY_TASK = "/projects/%(my_project)s/", "/tasks/%(my_task)s/"
CONDITIONS = [{}, {"If-Match": '"1"'}, {"If-Match": '"99"'}, {"If-Match": '"1", "2"'}, {"If-Match": "nonsense"}]
MEMBERS_OF_ALL = [
    f"{PROJECT}members/%(user)s/",
    f"{PROJECT}members/%(me)s/",
    f"{MY_PROJECT}members/%(user)s/",
]
NEW_TASK = '"title": "New", "due_date": "2031-03-01T00:00:00Z"'


def each(method: str, paths: list[str], *bodies: str) -> list[Request]:
    return [Request(method, path, body) for path in paths for body in bodies or ("",)]


def conditional(method: str, path: str, body: str = "") -> list[Request]:
    return [Request(method, path, body, headers) for headers in CONDITIONS]


REQUESTS: dict[str, list[Request]] = {
    "GET /projects/<id>/": [
        Request("GET", PROJECT),
        Request("GET", PROJECT, headers={"If-None-Match": '"1"'}),
        Request("GET", PROJECT, headers={"If-None-Match": "*"}),
        Request("HEAD", PROJECT),
        Request("OPTIONS", PROJECT),
    ],
    "PUT /projects/<id>/": [*conditional("PUT", PROJECT, '{"name": "New"}'), Request("PUT", PROJECT, "{}")],
    "PATCH /projects/<id>/": [*conditional("PATCH", PROJECT, '{"name": "New"}'), Request("PATCH", PROJECT, "{}")],
    "DELETE /projects/<id>/": conditional("DELETE", PROJECT),
    "GET /projects/<id>/members/": each("GET", [f"{PROJECT}members/", f"{PROJECT}members/?count=1&page_size=1"]),
    "POST /projects/<id>/members/": each(
        "POST", [f"{PROJECT}members/"], '{"username": "%(my_name)s"}', '{"username": "%(name)s", "role": "viewer"}'
    ),
    "GET /projects/<id>/members/<user_id>/": each("GET", MEMBERS_OF_ALL),
    "PUT /projects/<id>/members/<user_id>/": each("PUT", MEMBERS_OF_ALL, '{"role": "viewer"}'),
    "PATCH /projects/<id>/members/<user_id>/": each("PATCH", MEMBERS_OF_ALL, '{"role": "viewer"}', "{}"),
    "DELETE /projects/<id>/members/<user_id>/": each("DELETE", MEMBERS_OF_ALL),
    "GET /tasks/?project=": each(
        "GET", [f"/tasks/?project=%(project)s{more}" for more in ("", "&count=1", "&ordering=due_date&page_size=1")]
    ),
    "GET /tasks/?assignee=": each("GET", [f"/tasks/?assignee=%(user)s{more}" for more in ("", "&count=1")]),
    "GET /tasks/?search=": each("GET", ["/tasks/?search=%(text)s", "/tasks/?search=%(text)s&count=1"]),
    "GET /tasks/?cursor=": each(
        "GET", ["/tasks/?cursor=%(tasks_cursor)s", "/tasks/?cursor=%(tasks_of_project_cursor)s"]
    ),
    "POST /tasks/ project": each(
        "POST", ["/tasks/"], f'{{"project": %(project)s, {NEW_TASK}}}', '{"project": %(project)s, "title": "New"}'
    ),
    "POST /tasks/ assignee": each(
        "POST", ["/tasks/"], f'{{"project": %(my_project)s, "assignee": %(user)s, {NEW_TASK}}}'
    ),
    "GET /tasks/<id>/": [
        Request("GET", TASK),
        Request("GET", TASK, headers={"If-None-Match": '"2"'}),
        Request("HEAD", TASK),
        Request("OPTIONS", TASK),
    ],
    "PUT /tasks/<id>/": [*conditional("PUT", TASK, f"{{{NEW_TASK}}}"), Request("PUT", TASK, "{}")],
    "PUT /tasks/<id>/ project": each("PUT", [MY_TASK, TASK], f'{{"project": %(project)s, {NEW_TASK}}}'),
    "PUT /tasks/<id>/ assignee": each("PUT", [MY_TASK, TASK], f'{{"assignee": %(user)s, {NEW_TASK}}}'),
    "PATCH /tasks/<id>/": [*conditional("PATCH", TASK, '{"title": "New"}'), Request("PATCH", TASK, "{}")],
    "PATCH /tasks/<id>/ project": each("PATCH", [MY_TASK, TASK], '{"project": %(project)s}'),
    "PATCH /tasks/<id>/ assignee": each("PATCH", [MY_TASK, TASK], '{"assignee": %(user)s}'),
    "DELETE /tasks/<id>/": conditional("DELETE", TASK),
    "GET /tasks/<id>/comments/": [
        *each("GET", [f"{TASK}comments/", f"{TASK}comments/?count=1", f"{TASK}comments/?cursor=x"]),
        *each("GET", [f"{MY_TASK}comments/?cursor=%(comments_cursor)s"]),
    ],
    "POST /tasks/<id>/comments/": each("POST", [f"{TASK}comments/"], '{"content": "New"}', "{}"),
    "GET /projects/?search=": each("GET", ["/projects/?search=%(text)s", "/projects/?search=%(text)s&count=1"]),
    "GET /projects/?cursor=": each("GET", ["/projects/?cursor=%(projects_cursor)s"]),
    "GET /projects/<id>/members/?cursor=": each("GET", [f"{MY_PROJECT}members/?cursor=%(members_cursor)s"]),
    "GET /reports/?project=": each("GET", [f"/reports/?project=%(project)s{more}" for more in ("", "&count=1")]),
    "GET /reports/?cursor=": each(
        "GET", ["/reports/?cursor=%(reports_cursor)s", "/reports/?cursor=%(reports_of_project_cursor)s"]
    ),
    "GET /reports/<id>/": [Request("GET", REPORT), Request("HEAD", REPORT), Request("OPTIONS", REPORT)],
    "GET /tasks/<id>/comments/?cursor=": each("GET", [f"{MY_TASK}comments/?cursor=%(comments_cursor)s"]),
    "GET /events/?project=": each(
        "GET", ["/events/?project=%(project)s&after=0", "/events/?project=%(project)s&after=0&page_size=1"]
    ),
    "GET /events/?after=": each(
        "GET", ["/events/?after=%(position)s", "/events/?after=%(position)s&project=%(project)s"]
    ),
}


def places_in_rest() -> Iterator[str]:
    """Where an id, a cursor, a position or a text to search for may stand."""
    for path, view in rest_views():
        for method in rest_methods(view):
            if "<" in path:
                yield f"{method} {path}"
            fields = view.body().fields if method in ("POST", "PUT", "PATCH") else {}
            yield from (f"{method} {path} {name}" for name, kind in fields.items() if isinstance(kind, Id))
        parameters = getattr(view, "parameters", dict)()
        for name, kind in getattr(parameters, "fields", {}).items():
            if isinstance(kind, IdParameter) or name in ("cursor", "after", "search"):
                yield f"GET {path}?{name}="
