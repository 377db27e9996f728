"""The request that tests each endpoint.

GraphQL documents, paths and bodies have placeholders for the values of `World.names`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from django.conf import settings
from django.urls import reverse

from backend.projects.models import AuditEntry, Comment, Invitation, Membership, Project, Task, Token, User
from tests.access.endpoints import admin_paths, rest_views
from tests.access.outcomes import (
    Caller,
    Read,
    anything,
    at,
    authored,
    counted,
    counts,
    found,
    in_body,
    in_count,
    listed,
    members,
    project_events,
    seen,
    shown,
    word_of_response,
    word_of_result,
)
from tests.access.world import MEMBERS, PASSWORD

# Whether a write is done. Takes the values that its request was sent with.
IsDone: TypeAlias = Callable[[dict[str, Any]], bool]

SIGN_IN = "/accounts/sign-in/"
PATHS = {
    "/projects/<id>/": "/projects/%(project)s/",
    "/projects/<id>/members/": "/projects/%(project)s/members/",
    "/projects/<id>/members/<user_id>/": "/projects/%(project)s/members/%(member)s/",
    "/projects/<id>/invitations/": "/projects/%(project)s/invitations/",
    "/projects/<id>/invitations/<invitation_id>/": "/projects/%(project)s/invitations/%(invitation)s/",
    "/invitations/<id>/accept/": "/invitations/%(own_invitation)s/accept/",
    "/invitations/<id>/decline/": "/invitations/%(own_invitation)s/decline/",
    "/tasks/<id>/": "/tasks/%(task)s/",
    "/tasks/<id>/comments/": "/tasks/%(task)s/comments/",
    "/reports/<id>/": "/reports/%(report)s/",
}


# --- Kinds of probes -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class GraphQLProbe:
    """A GraphQL document whose one field has the alias `result`."""

    document: str
    read: Read
    done: IsDone | None = None

    def try_over_http(self, endpoint: str, caller: Caller) -> str:
        document = self.document % caller.names
        response = caller.client().post("/graphql/", {"query": document}, "application/json")
        word = word_of_result(caller, response.json(), self.read)
        # In open mode only a field requires an account, so the status of the response is 200.
        refused = {"sign in": 401 if settings.ACCESS == "closed" else 200}
        status = 403 if word.startswith("scope") else refused.get(word, 200)
        return word if response.status_code == status else f"{word}, as {response.status_code}"


@dataclass(frozen=True)
class RestProbe:
    """A REST request. `read` gets the response; `query` is the value of the endpoint's query parameter."""

    read: Read
    done: IsDone | None = None
    body: str = ""
    query: str = ""
    path: str = ""

    def try_over_http(self, endpoint: str, caller: Caller) -> str:
        method, _, address = endpoint.partition(" ")
        path, has_query, parameter = address.partition("?")
        path = (self.path or PATHS.get(path, path)) % caller.names
        if has_query:
            path += f"?{parameter}{self.query % caller.names}"
        response = caller.client().generic(method, path, self.body % caller.names, content_type="application/json")
        if method == "GET":
            head = caller.client().head(path)
            assert (head.status_code, head.content) == (response.status_code, b""), head
        return word_of_response(caller, response, self.read)


@dataclass(frozen=True)
class PageProbe:
    """A page for browsers, or another endpoint that needs a request of its own."""

    request: Callable[[Caller], str]
    done: IsDone | None = None

    def try_over_http(self, endpoint: str, caller: Caller) -> str:
        return self.request(caller)


@dataclass(frozen=True)
class LiveProbe:
    """An endpoint that delivers live events, from the first one on. `filters` are added to the request."""

    filters: str = ""
    done: None = None


@dataclass(frozen=True)
class SocketProbe:
    """A socket for GraphQL operations. A caller who may connect may send them."""

    done: None = None


Probe: TypeAlias = GraphQLProbe | RestProbe | PageProbe | LiveProbe | SocketProbe


def query(field: str, read: Read) -> GraphQLProbe:
    return GraphQLProbe(f"{{ result: {field} }}", read)


def mutation(field: str, done: IsDone, selection: str = "__typename", read: Read = anything) -> GraphQLProbe:
    refusal = "... on OperationInfo { messages { code } }"
    return GraphQLProbe(f"mutation {{ result: {field} {{ {selection} {refusal} }} }}", read, done)


def rest_write(done: IsDone, body: str = "", read: Read = anything) -> RestProbe:
    return RestProbe(read, done, body)


# --- Effects of writes -----------------------------------------------------------------------------------
def exists(model: Any, **fields: str) -> IsDone:
    """Check for a row whose fields have the values of these names."""
    return lambda names: model.objects.filter(**{key: names[name] for key, name in fields.items()}).exists()


def not_exists(model: Any, **fields: str) -> IsDone:
    is_found = exists(model, **fields)
    return lambda names: not is_found(names)


def is_owner(names: dict[str, Any]) -> bool:
    membership = Membership.objects.get(project=names["project"], user=names["member"])
    return membership.role == "owner"


def is_signed_in(names: dict[str, Any]) -> bool:
    return AuditEntry.objects.filter(action="signed_in", user_id=names["newcomer"]).exists()


def is_signed_out(names: dict[str, Any]) -> bool:
    return AuditEntry.objects.filter(action="signed_out", user_id=names["self"]).exists()


def has_new_password(names: dict[str, Any]) -> bool:
    user = User.objects.filter(pk=names["self"]).first()
    return user is not None and user.check_password(f"{names['word']} {PASSWORD}")


NEW_PROJECT = exists(Project, name="word")
NEW_NAME = exists(Project, pk="project", name="word")
NO_PROJECT = not_exists(Project, pk="project")
NEW_TASK = exists(Task, project="project", title="word")
NEW_TITLE = exists(Task, pk="task", title="word")
ASSIGNED = exists(Task, assignee="newcomer")
NO_TASK = not_exists(Task, pk="task")
NEW_COMMENT = exists(Comment, task="task", content="word")
NEW_MEMBER = exists(Membership, project="project", user="newcomer")
NO_MEMBER = not_exists(Membership, project="project", user="member")
INVITED = exists(Invitation, project="project", user="newcomer")
NOT_INVITED = not_exists(Invitation, pk="invitation")
HAS_JOINED = exists(Membership, project="shed", user="self")
HAS_DECLINED = not_exists(Invitation, pk="own_invitation")
OTHER_HAS_JOINED = exists(Membership, project="project", user="guest")
HAS_LEFT = not_exists(Membership, project="project", user="self")
NEW_TOKEN = exists(Token, user="self", name="word")


# --- Pages -----------------------------------------------------------------------------------------------
def page(path: str) -> PageProbe:
    """GET a page and follow its redirects."""

    def open_page(caller: Caller) -> str:
        response = caller.client().get(path, headers={"accept": "text/html"}, follow=True)
        last = response.redirect_chain[-1][0] if response.redirect_chain else path
        if last != path and last.startswith(f"{SIGN_IN}?next="):
            return "sign in"
        return {200: "yes", 403: "forbidden"}.get(response.status_code, str(response.status_code))

    return PageProbe(open_page)


def get_operation(caller: Caller) -> str:
    response = caller.client().get("/graphql/", {"query": "{ result: __typename }"})
    return word_of_result(caller, response.json(), anything)


def request_options(caller: Caller) -> str:
    """Send OPTIONS to every REST path that supports it."""
    paths = [path for path, view in rest_views() if "options" in view.http_method_names]
    responses = [caller.client().options(PATHS.get(path, path) % caller.names) for path in paths]
    return _joined({word_of_response(caller, response, anything) for response in responses})


def sign_in(caller: Caller) -> str:
    response = caller.client().post(SIGN_IN, {"username": "newcomer", "password": PASSWORD})
    return (
        "yes" if (response.status_code, response.get("Location")) == (302, "/graphql/") else str(response.status_code)
    )


def sign_out_page(path: str) -> PageProbe:
    def sign_out(caller: Caller) -> str:
        response = caller.client().post(path)
        assert (response.status_code, response["Location"]) == (302, SIGN_IN), response
        return "yes" if is_signed_out(caller.names) else "sign in"

    return PageProbe(sign_out, is_signed_out)


def change_password(caller: Caller) -> str:
    new = f"{caller.names['word']} {PASSWORD}"
    form = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    response = caller.client().post("/accounts/password/", form)
    if response.status_code != 302:
        return str(response.status_code)
    return "sign in" if response["Location"].startswith(f"{SIGN_IN}?next=") else "yes"


def accept_on_page(caller: Caller) -> str:
    response = caller.client().post("/accounts/invitations/", {"accept": caller.names["own_invitation"]})
    return _word_of_redirect(response)


def read_admin(caller: Caller) -> str:
    """GET every page of the admin. For staff: only the lists of rows, each of which requires a permission."""
    if caller.kind in ("staff", "superuser"):
        lists = {path.removesuffix("add/") for path in admin_paths() if path.endswith("/add/")}
        return _joined({page(path).request(caller) for path in lists})
    return _joined({_word_of_redirect(caller.client().get(path)) for path in admin_paths()})


def write_admin(caller: Caller) -> str:
    response = caller.client().post("/admin/projects/project/add/", {"name": caller.names["word"]})
    return "forbidden" if response.status_code == 403 else _word_of_redirect(response)


def _word_of_redirect(response: Any) -> str:
    """Return the word for a redirect. The admin's sign-in page redirects to ours."""
    assert response.status_code == 302, response
    is_sign_in = response["Location"].startswith((f"{reverse('admin:login')}?next=", f"{SIGN_IN}?next="))
    return "sign in" if is_sign_in else "yes"


def _joined(words: set[str]) -> str:
    """Return the word if all are equal, else all words, joined."""
    return " and ".join(sorted(words))


# --- The probes, in the order of the table's rows --------------------------------------------------------
TASK = '"title": "%(word)s", "due_date": "2031-03-01T00:00:00Z"'
NEW = 'projectId: %(project)s, title: "%(word)s", dueDate: "2031-03-01T00:00:00Z"'
PROJECT, EVENTS = "project(id: %(project)s)", 'events(after: "0", projectId: %(project)s)'
INVITATIONS = "invitations(projectId: %(project)s)"


def event(type: str, key: str, name: str, of: str = "project") -> GraphQLProbe:
    events = f'events(after: "0", projectId: %({of})s)'
    return query(f"{events} {{ nodes {{ ... on {type} {{ {key} {{ id }} }} }} }}", shown(key, name))


def filtered_tasks(filters: str) -> GraphQLProbe:
    return query(f"tasks(filter: {{ {filters} }}) {{ nodes {{ id }} }}", found("task"))


PROBES: dict[str, dict[str, Probe]] = {
    "Check the health": {"GET /healthz": page("/healthz")},
    "Sign in": {"GET /accounts/sign-in/": page(SIGN_IN), "POST /accounts/sign-in/": PageProbe(sign_in, is_signed_in)},
    "Sign out": {
        "POST /accounts/sign-out/": sign_out_page("/accounts/sign-out/"),
        "POST /admin/logout/": sign_out_page("/admin/logout/"),
    },
    "Change your own password": {
        "GET /accounts/password/": page("/accounts/password/"),
        "POST /accounts/password/": PageProbe(change_password, has_new_password),
        "GET /admin/password_change/": page("/admin/password_change/"),
    },
    "Answer invitations on the page": {
        "GET /accounts/invitations/": page("/accounts/invitations/"),
        "POST /accounts/invitations/": PageProbe(accept_on_page, HAS_JOINED),
    },
    "Open GraphiQL": {"GET /graphql/": page("/graphql/")},
    "Run a GraphQL operation": {
        "POST /graphql/": query("__typename", anything),
        "GET /graphql/?query=": PageProbe(get_operation),
        "WS /graphql/": SocketProbe(),
    },
    "Read the REST reference": {
        "GET /docs/": page("/docs/"),
        "GET /openapi.json": RestProbe(anything),
        "OPTIONS": PageProbe(request_options),
    },
    "Read the current position": {"Query.cursor": query("cursor", anything), "GET /events/": RestProbe(anything)},
    "Read your own account": {"Query.me": query("me { id }", seen("self"))},
    "List projects": {
        "Query.projects": query("projects { nodes { id } }", listed("project")),
        "Query.projects.totalCount": query("projects { totalCount }", at("totalCount", read=counted("project"))),
        "GET /projects/": RestProbe(in_body(listed("project"))),
        "GET /projects/?count=": RestProbe(in_count(counted("project")), query="1"),
    },
    "Find a project": {
        "Query.projects(search)": query('projects(filter: { search: "Garden" }) { nodes { id } }', found("project")),
        "GET /projects/?search=": RestProbe(in_body(found("project")), query="Garden"),
    },
    "See a project": {
        "Query.project": query(f"{PROJECT} {{ id }}", seen("project")),
        "Task.project": query("task(id: %(task)s) { project { id } }", at("project", read=seen("project"))),
        "SummaryReport.project": query(
            "report(id: %(report)s) { project { id } }", at("project", read=seen("project"))
        ),
        "GET /projects/<id>/": RestProbe(in_body(seen("project"))),
    },
    "Create a project": {
        "Mutation.createProject": mutation('createProject(input: { name: "%(word)s" })', NEW_PROJECT),
        "POST /projects/": rest_write(NEW_PROJECT, '{"name": "%(word)s"}'),
    },
    "Change a project": {
        "Mutation.updateProject": mutation('updateProject(input: { id: %(project)s, name: "%(word)s" })', NEW_NAME),
        "PUT /projects/<id>/": rest_write(NEW_NAME, '{"name": "%(word)s"}'),
        "PATCH /projects/<id>/": rest_write(NEW_NAME, '{"name": "%(word)s"}'),
    },
    "Delete a project": {
        "Mutation.deleteProject": mutation("deleteProject(input: { id: %(project)s })", NO_PROJECT),
        "DELETE /projects/<id>/": rest_write(NO_PROJECT),
    },
    "List tasks": {
        "Query.tasks": query("tasks { nodes { id } }", listed("task")),
        "Query.tasks.totalCount": query("tasks { totalCount }", at("totalCount", read=counted("task"))),
        "GET /tasks/": RestProbe(in_body(listed("task"))),
        "GET /tasks/?count=": RestProbe(in_count(counted("task")), query="1"),
    },
    "Find a task": {
        "Query.tasks(projectId)": filtered_tasks("projectId: %(project)s"),
        "Query.tasks(status)": filtered_tasks("status: IN_PROGRESS"),
        "Query.tasks(assigneeId)": filtered_tasks("assigneeId: %(editor)s"),
        "Query.tasks(dueAfter)": filtered_tasks('dueAfter: "2031-01-01T00:00:00Z"'),
        "Query.tasks(dueBefore)": filtered_tasks('dueBefore: "2032-01-01T00:00:00Z", status: IN_PROGRESS'),
        "Query.tasks(search)": filtered_tasks('search: "Garden"'),
        "GET /tasks/?project=": RestProbe(in_body(found("task")), query="%(project)s"),
        "GET /tasks/?status=": RestProbe(in_body(found("task")), query="in_progress"),
        "GET /tasks/?assignee=": RestProbe(in_body(found("task")), query="%(editor)s"),
        "GET /tasks/?due_after=": RestProbe(in_body(found("task")), query="2031-01-01"),
        "GET /tasks/?due_before=": RestProbe(in_body(found("task")), query="2032-01-01&status=in_progress"),
        "GET /tasks/?search=": RestProbe(in_body(found("task")), query="Garden"),
    },
    "See a task": {
        "Query.task": query("task(id: %(task)s) { id }", seen("task")),
        "Project.tasks": query(f"{PROJECT} {{ tasks {{ nodes {{ id }} }} }}", at("tasks", read=found("task"))),
        "Project.tasks.totalCount": query(
            f"{PROJECT} {{ tasks {{ totalCount }} }}", at("tasks", "totalCount", read=counts(1))
        ),
        "Comment.task": query(
            "task(id: %(task)s) { comments { nodes { task { id } } } }",
            at("comments", read=found("task", of=lambda comment: comment["task"])),
        ),
        "Task.assignee": query("task(id: %(task)s) { assignee { id } }", at("assignee", read=seen("editor"))),
        "GET /tasks/<id>/": RestProbe(in_body(seen("task"))),
    },
    "Create a task": {
        "Mutation.createTask": mutation(f"createTask(input: {{ {NEW} }})", NEW_TASK),
        "POST /tasks/": rest_write(NEW_TASK, f'{{"project": %(project)s, {TASK}}}'),
    },
    "Change a task": {
        "Mutation.updateTask": mutation('updateTask(input: { id: %(task)s, title: "%(word)s" })', NEW_TITLE),
        "PUT /tasks/<id>/": rest_write(NEW_TITLE, f"{{{TASK}}}"),
        "PATCH /tasks/<id>/": rest_write(NEW_TITLE, '{"title": "%(word)s"}'),
    },
    "Assign a task to a non-member": {
        "Mutation.createTask": mutation(f"createTask(input: {{ {NEW}, assigneeId: %(newcomer)s }})", ASSIGNED),
        "Mutation.updateTask": mutation("updateTask(input: { id: %(task)s, assigneeId: %(newcomer)s })", ASSIGNED),
        "POST /tasks/": rest_write(ASSIGNED, f'{{"project": %(project)s, "assignee": %(newcomer)s, {TASK}}}'),
        "PUT /tasks/<id>/": rest_write(ASSIGNED, f'{{"assignee": %(newcomer)s, {TASK}}}'),
        "PATCH /tasks/<id>/": rest_write(ASSIGNED, '{"assignee": %(newcomer)s}'),
    },
    "Delete a task": {
        "Mutation.deleteTask": mutation("deleteTask(input: { id: %(task)s })", NO_TASK),
        "DELETE /tasks/<id>/": rest_write(NO_TASK),
    },
    "See comments": {
        "Task.comments": query(
            "task(id: %(task)s) { comments { nodes { id } } }", at("comments", read=found("comment"))
        ),
        "Task.comments.totalCount": query(
            "task(id: %(task)s) { comments { totalCount } }", at("comments", "totalCount", read=counts(1))
        ),
        "GET /tasks/<id>/comments/": RestProbe(in_body(found("comment"))),
        "GET /tasks/<id>/comments/?count=": RestProbe(in_count(counts(1)), query="1"),
    },
    "Add a comment": {
        "Mutation.addComment": mutation(
            'addComment(input: { taskId: %(task)s, content: "%(word)s"%(author_in_graphql)s })', NEW_COMMENT
        ),
        "POST /tasks/<id>/comments/": rest_write(NEW_COMMENT, '{"content": "%(word)s"%(author_in_json)s}'),
    },
    "Comment under another name": {
        "Mutation.addComment": mutation(
            'addComment(input: { taskId: %(task)s, content: "%(word)s", author: "Somebody Else" })',
            NEW_COMMENT,
            "... on Comment { author }",
            authored(lambda comment: comment["author"]),
        ),
        "POST /tasks/<id>/comments/": rest_write(
            NEW_COMMENT,
            '{"content": "%(word)s", "author": "Somebody Else"}',
            authored(lambda response: response.json()["author"]),
        ),
    },
    "See members": {
        "Project.members": query(
            f"{PROJECT} {{ members {{ nodes {{ role user {{ id }} }} }} }}",
            at("members", read=members(lambda member: member["user"]["id"])),
        ),
        "Project.members.totalCount": query(
            f"{PROJECT} {{ members {{ totalCount }} }}", at("members", "totalCount", read=counts(MEMBERS))
        ),
        "Member.user": query(
            f"{PROJECT} {{ members {{ nodes {{ user {{ name id }} }} }} }}",
            at("members", read=members(lambda member: member["user"]["name"] and member["user"]["id"])),
        ),
        "GET /projects/<id>/members/": RestProbe(in_body(members(lambda member: member["user"]))),
        "GET /projects/<id>/members/?count=": RestProbe(in_count(counts(MEMBERS)), query="1"),
        "GET /projects/<id>/members/<user_id>/": RestProbe(in_body(seen("member", "user"))),
    },
    "Add a member": {
        "Mutation.addMember": mutation(
            'addMember(input: { projectId: %(project)s, username: "newcomer" })', NEW_MEMBER
        ),
        "POST /projects/<id>/members/": rest_write(NEW_MEMBER, '{"username": "newcomer"}'),
    },
    "Change a role": {
        "Mutation.changeRole": mutation(
            "changeRole(input: { projectId: %(project)s, userId: %(member)s, role: OWNER })", is_owner
        ),
        "PUT /projects/<id>/members/<user_id>/": rest_write(is_owner, '{"role": "owner"}'),
        "PATCH /projects/<id>/members/<user_id>/": rest_write(is_owner, '{"role": "owner"}'),
    },
    "Remove a member": {
        "Mutation.removeMember": mutation(
            "removeMember(input: { projectId: %(project)s, userId: %(member)s })", NO_MEMBER
        ),
        "DELETE /projects/<id>/members/<user_id>/": rest_write(NO_MEMBER),
    },
    "Leave a project": {
        "Mutation.removeMember": mutation(
            "removeMember(input: { projectId: %(project)s, userId: %(self)s })", HAS_LEFT
        ),
        "DELETE /projects/<id>/members/<user_id>/": RestProbe(
            anything, HAS_LEFT, path="/projects/%(project)s/members/%(self)s/"
        ),
    },
    "List your invitations": {
        "Query.invitations": query("invitations { nodes { id } }", listed("invitation")),
        "Query.invitations.totalCount": query(
            "invitations { totalCount }", at("totalCount", read=counted("invitation"))
        ),
        "GET /invitations/": RestProbe(in_body(listed("invitation"))),
        "GET /invitations/?count=": RestProbe(in_count(counted("invitation")), query="1"),
    },
    "Answer your own invitation": {
        "Mutation.acceptInvitation": mutation("acceptInvitation(input: { id: %(own_invitation)s })", HAS_JOINED),
        "Mutation.declineInvitation": mutation("declineInvitation(input: { id: %(own_invitation)s })", HAS_DECLINED),
        "POST /invitations/<id>/accept/": rest_write(HAS_JOINED),
        "POST /invitations/<id>/decline/": rest_write(HAS_DECLINED),
    },
    "Answer another user's invitation": {
        "Mutation.acceptInvitation": mutation("acceptInvitation(input: { id: %(invitation)s })", OTHER_HAS_JOINED),
        "Mutation.declineInvitation": mutation("declineInvitation(input: { id: %(invitation)s })", NOT_INVITED),
        "POST /invitations/<id>/accept/": RestProbe(
            anything, OTHER_HAS_JOINED, path="/invitations/%(invitation)s/accept/"
        ),
        "POST /invitations/<id>/decline/": RestProbe(
            anything, NOT_INVITED, path="/invitations/%(invitation)s/decline/"
        ),
    },
    "See invitations to a project": {
        "Query.invitations(projectId)": query(f"{INVITATIONS} {{ nodes {{ id }} }}", found("invitation")),
        "Invitation.user": query(
            f"{INVITATIONS} {{ nodes {{ user {{ id }} }} }}", found("guest", of=lambda invitation: invitation["user"])
        ),
        "Invitation.invitedBy": query(
            f"{INVITATIONS} {{ nodes {{ invitedBy {{ id }} }} }}",
            found("owner", of=lambda invitation: invitation["invitedBy"]),
        ),
        "GET /projects/<id>/invitations/": RestProbe(in_body(found("invitation"))),
        "GET /projects/<id>/invitations/?count=": RestProbe(in_count(counts(1)), query="1"),
    },
    "Invite a user": {
        "Mutation.inviteMember": mutation(
            'inviteMember(input: { projectId: %(project)s, username: "newcomer" })', INVITED
        ),
        "POST /projects/<id>/invitations/": rest_write(INVITED, '{"username": "newcomer"}'),
    },
    "Cancel an invitation": {
        "Mutation.cancelInvitation": mutation("cancelInvitation(input: { id: %(invitation)s })", NOT_INVITED),
        "DELETE /projects/<id>/invitations/<invitation_id>/": rest_write(NOT_INVITED),
    },
    "List reports": {
        "Query.reports": query("reports { nodes { id } }", listed("report")),
        "Query.reports.totalCount": query("reports { totalCount }", at("totalCount", read=counted("report"))),
        "GET /reports/": RestProbe(in_body(listed("report"))),
        "GET /reports/?count=": RestProbe(in_count(counted("report")), query="1"),
    },
    "Find a report": {
        "Query.reports(projectId)": query("reports(projectId: %(project)s) { nodes { id } }", found("report")),
        "GET /reports/?project=": RestProbe(in_body(found("report")), query="%(project)s"),
    },
    "See a report": {
        "Query.report": query("report(id: %(report)s) { id }", seen("report")),
        "GET /reports/<id>/": RestProbe(in_body(seen("report"))),
    },
    "Read events": {
        "Query.events": query('events(after: "0") { nodes { cursor } }', listed("event", "cursor")),
        "GET /events/?after=": RestProbe(in_body(at("events", read=listed("event", "cursor"))), query="0"),
    },
    "Read the events of a project": {
        "Query.events(projectId)": query(f"{EVENTS} {{ nodes {{ cursor }} }}", project_events),
        "GET /events/?project=": RestProbe(in_body(at("events", read=project_events)), query="%(project)s&after=0"),
        "Event.actor": query(f"{EVENTS} {{ nodes {{ actor {{ id }} }} }}", shown("actor", "owner")),
        "ProjectCreated.project": event("ProjectCreated", "project", "project"),
        "ProjectUpdated.project": event("ProjectUpdated", "project", "project"),
        "ProjectDeleted.project": event("ProjectDeleted", "project", "deleted_project", of="deleted_project"),
        "TaskCreated.task": event("TaskCreated", "task", "task"),
        "TaskUpdated.task": event("TaskUpdated", "task", "task"),
        "TaskDeleted.task": event("TaskDeleted", "task", "deleted_task"),
        "TaskCommented.task": event("TaskCommented", "task", "task"),
        "TaskCommented.comment": event("TaskCommented", "comment", "comment"),
        "ReportGenerated.report": event("ReportGenerated", "report", "report"),
    },
    "Receive live events": {
        "Subscription.events": LiveProbe(),
        "WS /ws/notifications/": LiveProbe(),
        "SSE /events/": LiveProbe(),
    },
    "Receive live events of a project": {
        "Subscription.events(projectId)": LiveProbe(", projectId: %(project)s"),
        "Subscription.events(taskId)": LiveProbe(", taskId: %(task)s"),
        "WS /ws/notifications/?project=": LiveProbe("&project=%(project)s"),
        "SSE /events/?project=": LiveProbe("&project=%(project)s"),
    },
    "List tokens": {
        "Query.tokens": query("tokens { nodes { id } }", listed("token")),
        "Query.tokens.totalCount": query("tokens { totalCount }", at("totalCount", read=counted("token"))),
    },
    "Create your own token": {
        "Mutation.createToken": mutation('createToken(input: { name: "%(word)s", scope: READ })', NEW_TOKEN),
        "NewToken.token": mutation(
            'createToken(input: { name: "%(word)s", scope: READ })',
            NEW_TOKEN,
            "... on NewToken { token { name } }",
            at("token", "name", read=anything),
        ),
    },
    "Revoke your own token": {
        "Mutation.revokeToken": mutation(
            "revokeToken(input: { id: %(own_token)s })", not_exists(Token, pk="own_token")
        ),
    },
    "Revoke another user's token": {
        "Mutation.revokeToken": mutation(
            "revokeToken(input: { id: %(others_token)s })", not_exists(Token, pk="others_token")
        ),
    },
    "Read the audit log": {
        "Query.auditLog": query("auditLog { nodes { id } }", listed("audit entry")),
        "Query.auditLog.totalCount": query("auditLog { totalCount }", at("totalCount", read=counted("audit entry"))),
        "AuditEntry.actor": query(
            "auditLog { nodes { id actor { name } } }",
            lambda caller, log: listed("audit entry")(caller, [entry for entry in log["nodes"] if entry["actor"]]),
        ),
    },
    "Open the admin": {"GET /admin/": page("/admin/")},
    "See and change rows in the admin": {
        "GET /admin/*": PageProbe(read_admin),
        "POST /admin/*": PageProbe(write_admin, NEW_PROJECT),
    },
}
