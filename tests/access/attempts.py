"""Requests that name an object of another team, for every place where an id, a cursor or a text can be sent.

The placeholder `%(task)s` is the other team's task, `%(my_task)s` the caller's own. The keys are the places: in GraphQL
an argument or an input field; in REST a path, a parameter or a field of the body.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from graphql import GraphQLID, GraphQLInputObjectType, get_named_type

from rest.serializers import Id, IdParameter
from tests.access.endpoints import GRAPH, graphql_types, rest_methods, rest_views

REFUSAL = "... on OperationInfo { messages { kind field message code } }"
ROWS = "totalCount nodes { id } edges { cursor } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }"
INVITATIONS = ROWS.replace("{ id }", "{ id role projectName user { id name } invitedBy { name } }")
MEMBERS = ROWS.replace("{ id }", "{ role user { id name } }")
DUE = 'dueDate: "2031-03-01T00:00:00Z"'


def mutation(field: str) -> str:
    return f"mutation {{ result: {field} {{ __typename {REFUSAL} }} }}"


def paged(field: str, cursor: str, rows: str = ROWS) -> list[str]:
    """Return a document for the page after a cursor and one for the page before it. Both replace LIST in `field`."""
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
        mutation(f'createTask(input: {{ projectId: %(project)s, title: "New", {DUE} }})'),
        mutation(f'createTask(input: {{ projectId: %(project)s, title: " ", {DUE}, assigneeId: %(user)s }})'),
    ],
    "CreateTaskInput.assigneeId": [
        mutation(f'createTask(input: {{ projectId: %(my_project)s, title: "New", {DUE}, assigneeId: %(user)s }})')
    ],
    "UpdateTaskInput.id": [
        mutation(f'updateTask(input: {{ id: %(task)s, title: "New"{version} }})')
        for version in ("", ", version: 1", ", version: 99")
    ],
    "UpdateTaskInput.assigneeId": [
        mutation("updateTask(input: { id: %(my_task)s, assigneeId: %(user)s })"),
        mutation("updateTask(input: { id: %(task)s, assigneeId: %(user)s })"),
    ],
    "DeleteTaskInput.id": [
        mutation(f"deleteTask(input: {{ id: %(task)s{version} }})") for version in ("", ", version: 99")
    ],
    "UpdateProjectInput.id": [
        mutation(f'updateProject(input: {{ id: %(project)s, name: "New"{version} }})')
        for version in ("", ", version: 1", ", version: 99")
    ],
    "DeleteProjectInput.id": [
        mutation(f"deleteProject(input: {{ id: %(project)s{version} }})") for version in ("", ", version: 99")
    ],
    "AddCommentInput.taskId": [
        mutation('addComment(input: { taskId: %(task)s, content: "New", author: "Me" })'),
        mutation('addComment(input: { taskId: %(task)s, content: "" })'),
    ],
    "AddMemberInput.projectId": [
        mutation('addMember(input: { projectId: %(project)s, username: "%(my_name)s" })'),
        mutation('addMember(input: { projectId: %(project)s, username: "%(name)s", role: VIEWER })'),
    ],
    "ChangeRoleInput.projectId": [
        mutation("changeRole(input: { projectId: %(project)s, userId: %(user)s, role: VIEWER })"),
        mutation("changeRole(input: { projectId: %(project)s, userId: %(me)s, role: OWNER })"),
    ],
    "ChangeRoleInput.userId": [
        mutation("changeRole(input: { projectId: %(my_project)s, userId: %(user)s, role: VIEWER })")
    ],
    "RemoveMemberInput.projectId": [
        mutation("removeMember(input: { projectId: %(project)s, userId: %(user)s })"),
        mutation("removeMember(input: { projectId: %(project)s, userId: %(me)s })"),
    ],
    "RemoveMemberInput.userId": [mutation("removeMember(input: { projectId: %(my_project)s, userId: %(user)s })")],
    "InviteMemberInput.projectId": [
        mutation('inviteMember(input: { projectId: %(project)s, username: "%(my_name)s" })'),
        mutation('inviteMember(input: { projectId: %(project)s, username: "%(name)s", role: VIEWER })'),
    ],
    "AcceptInvitationInput.id": [mutation("acceptInvitation(input: { id: %(invitation)s })")],
    "DeclineInvitationInput.id": [mutation("declineInvitation(input: { id: %(invitation)s })")],
    "CancelInvitationInput.id": [mutation("cancelInvitation(input: { id: %(invitation)s })")],
    "Query.invitations(projectId)": [f"{{ invitations(projectId: %(project)s) {{ {INVITATIONS} }} }}"],
    "RevokeTokenInput.id": [mutation("revokeToken(input: { id: %(token)s })")],
    # A text that only rows of the other team contain.
    "TaskFilter.search": [
        f'{{ tasks(filter: {{ search: "%(text)s" }}) {{ {ROWS} }} }}',
        f'{{ project(id: %(my_project)s) {{ tasks(filter: {{ search: "%(text)s" }}) {{ {ROWS} }} }} }}',
    ],
    "ProjectFilter.search": [f'{{ projects(filter: {{ search: "%(text)s" }}) {{ {ROWS} }} }}'],
    # Cursors of the other team's lists.
    "Query.projects(after)": paged("{ projectsLIST }", "projects"),
    "Query.tasks(after)": [*paged("{ tasksLIST }", "tasks"), *paged("{ tasksLIST }", "tasks_of_project")],
    "Query.reports(after)": [*paged("{ reportsLIST }", "reports"), *paged("{ reportsLIST }", "reports_of_project")],
    "Query.invitations(after)": [
        *paged("{ invitationsLIST }", "invitations", INVITATIONS),
        *paged("{ invitationsLIST }", "invitations_to_project", INVITATIONS),
    ],
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
    """Yield the places for an id, a page cursor or a search text; subscriptions have tests of their own."""
    for kind in graphql_types():
        for name, output_field in kind.fields.items():
            for argument_name, argument in output_field.args.items():
                if kind is GRAPH.subscription_type:
                    continue
                if get_named_type(argument.type) is GraphQLID or argument_name == "after":
                    yield f"{kind.name}.{name}({argument_name})"
    for kind in GRAPH.type_map.values():
        if isinstance(kind, GraphQLInputObjectType):
            for name, input_field in kind.fields.items():
                if get_named_type(input_field.type) is GraphQLID or name == "search":
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
    "GET /projects/<id>/invitations/": each(
        "GET", [f"{PROJECT}invitations/", f"{PROJECT}invitations/?count=1&page_size=1"]
    ),
    "POST /projects/<id>/invitations/": each(
        "POST", [f"{PROJECT}invitations/"], '{"username": "%(my_name)s"}', '{"username": "%(name)s", "role": "viewer"}'
    ),
    "DELETE /projects/<id>/invitations/<invitation_id>/": each(
        "DELETE",
        [f"{PROJECT}invitations/%(invitation)s/", f"{MY_PROJECT}invitations/%(invitation)s/"],
    ),
    "POST /invitations/<id>/accept/": each("POST", ["/invitations/%(invitation)s/accept/"]),
    "POST /invitations/<id>/decline/": each("POST", ["/invitations/%(invitation)s/decline/"]),
    "GET /invitations/?cursor=": each("GET", ["/invitations/?cursor=%(invitations_cursor)s"]),
    "GET /projects/<id>/invitations/?cursor=": each(
        "GET", [f"{MY_PROJECT}invitations/?cursor=%(invitations_to_project_cursor)s"]
    ),
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
    """Yield the places for an id, a cursor, a position or a search text."""
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
