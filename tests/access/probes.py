"""How each door is tried.

What is sent is text in which the names of `World.names` are filled in: a GraphQL document, or the body of a request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from django.conf import settings
from django.urls import reverse

from backend.projects.models import AuditEntry, Comment, Membership, Project, Task, Token, User
from tests.access.answers import (
    Read,
    Visit,
    anything,
    at,
    counted,
    counts,
    found,
    in_body,
    in_count,
    listed,
    members,
    seen,
    shown,
    signed,
    told,
    word_of_answer,
    word_of_response,
)
from tests.access.doors import admin_paths, rest_views
from tests.access.world import MEMBERS, PASSWORD

# Whether a write has happened, of what its request named.
Done: TypeAlias = Callable[[dict[str, Any]], bool]

SIGN_IN = "/accounts/sign-in/"
PATHS = {
    "/projects/<id>/": "/projects/%(project)s/",
    "/projects/<id>/members/": "/projects/%(project)s/members/",
    "/projects/<id>/members/<user_id>/": "/projects/%(project)s/members/%(member)s/",
    "/tasks/<id>/": "/tasks/%(task)s/",
    "/tasks/<id>/comments/": "/tasks/%(task)s/comments/",
    "/reports/<id>/": "/reports/%(report)s/",
}


# --- Kinds of doors --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Ask:
    """A document of GraphQL, with one field that is called `result`."""

    document: str
    read: Read
    done: Done | None = None

    def try_over_http(self, door: str, visit: Visit) -> str:
        document = self.document % visit.names
        response = visit.client().post("/graphql/", {"query": document}, "application/json")
        word = word_of_answer(visit, response.json(), self.read)
        # In open mode it is the one field that takes an account, not the request.
        refused = {"sign in": 401 if settings.ACCESS == "closed" else 200}
        status = 403 if word.startswith("scope") else refused.get(word, 200)
        return word if response.status_code == status else f"{word}, as {response.status_code}"


@dataclass(frozen=True)
class Send:
    """A request to REST: `read` gets the response. `query` is what its parameter is set to."""

    read: Read
    done: Done | None = None
    body: str = ""
    query: str = ""
    path: str = ""

    def try_over_http(self, door: str, visit: Visit) -> str:
        method, _, address = door.partition(" ")
        path, is_narrowed, parameter = address.partition("?")
        path = (self.path or PATHS.get(path, path)) % visit.names
        if is_narrowed:
            path += f"?{parameter}{self.query % visit.names}"
        response = visit.client().generic(method, path, self.body % visit.names, content_type="application/json")
        if method == "GET":
            head = visit.client().head(path)
            assert (head.status_code, head.content) == (response.status_code, b""), head
        return word_of_response(visit, response, self.read)


@dataclass(frozen=True)
class Page:
    """A door for browsers, and what else is no API."""

    visit: Callable[[Visit], str]
    done: Done | None = None

    def try_over_http(self, door: str, visit: Visit) -> str:
        return self.visit(visit)


@dataclass(frozen=True)
class Hear:
    """A door that tells of events as they come, from the first one on. `narrowed` is what else is asked for."""

    narrowed: str = ""
    done: None = None


@dataclass(frozen=True)
class Knock:
    """A socket for operations: whoever it lets in may send them."""

    done: None = None


Probe: TypeAlias = Ask | Send | Page | Hear | Knock


def ask(field: str, read: Read) -> Ask:
    return Ask(f"{{ result: {field} }}", read)


def do(field: str, done: Done, answer: str = "__typename", read: Read = anything) -> Ask:
    refusal = "... on OperationInfo { messages { code } }"
    return Ask(f"mutation {{ result: {field} {{ {answer} {refusal} }} }}", read, done)


def send(done: Done, body: str = "", read: Read = anything) -> Send:
    return Send(read, done, body)


# --- What writes do --------------------------------------------------------------------------------------
def there_is(model: Any, **named: str) -> Done:
    """A row of which each field is what goes by the given name."""
    return lambda names: model.objects.filter(**{key: names[name] for key, name in named.items()}).exists()


def there_is_no(model: Any, **named: str) -> Done:
    is_there = there_is(model, **named)
    return lambda names: not is_there(names)


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


NEW_PROJECT = there_is(Project, name="word")
NEW_NAME = there_is(Project, pk="project", name="word")
NO_PROJECT = there_is_no(Project, pk="project")
NEW_TASK = there_is(Task, project="project", title="word")
NEW_TITLE = there_is(Task, pk="task", title="word")
ASSIGNED = there_is(Task, assignee="newcomer")
NO_TASK = there_is_no(Task, pk="task")
NEW_COMMENT = there_is(Comment, task="task", content="word")
NEW_MEMBER = there_is(Membership, project="project", user="newcomer")
NO_MEMBER = there_is_no(Membership, project="project", user="member")
NOT_IN_IT = there_is_no(Membership, project="project", user="self")
NEW_TOKEN = there_is(Token, user="self", name="word")


# --- Pages -----------------------------------------------------------------------------------------------
def opens(path: str) -> Page:
    """A page, where it leads to whatever it leads."""

    def visit_page(visit: Visit) -> str:
        response = visit.client().get(path, headers={"accept": "text/html"}, follow=True)
        last = response.redirect_chain[-1][0] if response.redirect_chain else path
        if last != path and last.startswith(f"{SIGN_IN}?next="):
            return "sign in"
        return {200: "yes", 403: "forbidden"}.get(response.status_code, str(response.status_code))

    return Page(visit_page)


def get_operation(visit: Visit) -> str:
    response = visit.client().get("/graphql/", {"query": "{ result: __typename }"})
    return word_of_answer(visit, response.json(), anything)


def ask_for_methods(visit: Visit) -> str:
    """Every address of REST that knows OPTIONS."""
    views = [path for path, view in rest_views() if "options" in view.http_method_names]
    responses = [visit.client().options(PATHS.get(path, path) % visit.names) for path in views]
    return _one({word_of_response(visit, response, anything) for response in responses})


def sign_in(visit: Visit) -> str:
    response = visit.client().post(SIGN_IN, {"username": "newcomer", "password": PASSWORD})
    return (
        "yes" if (response.status_code, response.get("Location")) == (302, "/graphql/") else str(response.status_code)
    )


def signs_out(path: str) -> Page:
    def sign_out(visit: Visit) -> str:
        response = visit.client().post(path)
        assert (response.status_code, response["Location"]) == (302, SIGN_IN), response
        return "yes" if is_signed_out(visit.names) else "sign in"

    return Page(sign_out, is_signed_out)


def change_password(visit: Visit) -> str:
    new = f"{visit.names['word']} {PASSWORD}"
    form = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    response = visit.client().post("/accounts/password/", form)
    if response.status_code != 302:
        return str(response.status_code)
    return "sign in" if response["Location"].startswith(f"{SIGN_IN}?next=") else "yes"


def read_admin(visit: Visit) -> str:
    """Every page of the admin; to staff, those with rows, each of which takes a permission."""
    if visit.kind in ("staff", "superuser"):
        lists = {path.removesuffix("add/") for path in admin_paths() if path.endswith("/add/")}
        return _one({opens(path).visit(visit) for path in lists})
    return _one({_word_of_redirect(visit.client().get(path)) for path in admin_paths()})


def write_admin(visit: Visit) -> str:
    response = visit.client().post("/admin/projects/project/add/", {"name": visit.names["word"]})
    return "forbidden" if response.status_code == 403 else _word_of_redirect(response)


def _word_of_redirect(response: Any) -> str:
    """Led to the admin's sign-in page, which leads to ours."""
    assert response.status_code == 302, response
    is_led = response["Location"].startswith((f"{reverse('admin:login')}?next=", f"{SIGN_IN}?next="))
    return "sign in" if is_led else "yes"


def _one(words: set[str]) -> str:
    """What all of them said."""
    return " and ".join(sorted(words))


# --- The probes, as the table has its rows -----------------------------------------------------------------
TASK = '"title": "%(word)s", "due_date": "2031-03-01T00:00:00Z"'
NEW = 'projectId: %(project)s, title: "%(word)s", dueDate: "2031-03-01T00:00:00Z"'
PROJECT, EVENTS = "project(id: %(project)s)", 'events(after: "0", projectId: %(project)s)'


def event(type: str, key: str, name: str, of: str = "project") -> Ask:
    events = f'events(after: "0", projectId: %({of})s)'
    return ask(f"{events} {{ nodes {{ ... on {type} {{ {key} {{ id }} }} }} }}", shown(key, name))


def task(narrowed: str) -> Ask:
    return ask(f"tasks(filter: {{ {narrowed} }}) {{ nodes {{ id }} }}", found("task"))


PROBES: dict[str, dict[str, Probe]] = {
    "Ask whether it runs": {"GET /healthz": opens("/healthz")},
    "Sign in": {"GET /accounts/sign-in/": opens(SIGN_IN), "POST /accounts/sign-in/": Page(sign_in, is_signed_in)},
    "Sign out": {
        "POST /accounts/sign-out/": signs_out("/accounts/sign-out/"),
        "POST /admin/logout/": signs_out("/admin/logout/"),
    },
    "Change your password": {
        "GET /accounts/password/": opens("/accounts/password/"),
        "POST /accounts/password/": Page(change_password, has_new_password),
        "GET /admin/password_change/": opens("/admin/password_change/"),
    },
    "Open the explorer": {"GET /graphql/": opens("/graphql/")},
    "Run an operation": {
        "POST /graphql/": ask("__typename", anything),
        "GET /graphql/?query=": Page(get_operation),
        "WS /graphql/": Knock(),
    },
    "Read the reference": {
        "GET /docs/": opens("/docs/"),
        "GET /openapi.json": Send(anything),
        "OPTIONS": Page(ask_for_methods),
    },
    "Learn the present position": {"Query.cursor": ask("cursor", anything), "GET /events/": Send(anything)},
    "Learn who you are": {"Query.me": ask("me { id }", seen("self"))},
    "List projects": {
        "Query.projects": ask("projects { nodes { id } }", listed("project")),
        "Query.projects.totalCount": ask("projects { totalCount }", at("totalCount", read=counted("project"))),
        "GET /projects/": Send(in_body(listed("project"))),
        "GET /projects/?count=": Send(in_count(counted("project")), query="1"),
    },
    "Find a project": {
        "Query.projects(search)": ask('projects(filter: { search: "Garden" }) { nodes { id } }', found("project")),
        "GET /projects/?search=": Send(in_body(found("project")), query="Garden"),
    },
    "See a project": {
        "Query.project": ask(f"{PROJECT} {{ id }}", seen("project")),
        "Task.project": ask("task(id: %(task)s) { project { id } }", at("project", read=seen("project"))),
        "SummaryReport.project": ask("report(id: %(report)s) { project { id } }", at("project", read=seen("project"))),
        "GET /projects/<id>/": Send(in_body(seen("project"))),
    },
    "Create a project": {
        "Mutation.createProject": do('createProject(input: { name: "%(word)s" })', NEW_PROJECT),
        "POST /projects/": send(NEW_PROJECT, '{"name": "%(word)s"}'),
    },
    "Change a project": {
        "Mutation.updateProject": do('updateProject(input: { id: %(project)s, name: "%(word)s" })', NEW_NAME),
        "PUT /projects/<id>/": send(NEW_NAME, '{"name": "%(word)s"}'),
        "PATCH /projects/<id>/": send(NEW_NAME, '{"name": "%(word)s"}'),
    },
    "Delete a project": {
        "Mutation.deleteProject": do("deleteProject(input: { id: %(project)s })", NO_PROJECT),
        "DELETE /projects/<id>/": send(NO_PROJECT),
    },
    "List tasks": {
        "Query.tasks": ask("tasks { nodes { id } }", listed("task")),
        "Query.tasks.totalCount": ask("tasks { totalCount }", at("totalCount", read=counted("task"))),
        "GET /tasks/": Send(in_body(listed("task"))),
        "GET /tasks/?count=": Send(in_count(counted("task")), query="1"),
    },
    "Find a task": {
        "Query.tasks(projectId)": task("projectId: %(project)s"),
        "Query.tasks(status)": task("status: IN_PROGRESS"),
        "Query.tasks(assigneeId)": task("assigneeId: %(editor)s"),
        "Query.tasks(dueAfter)": task('dueAfter: "2031-01-01T00:00:00Z"'),
        "Query.tasks(dueBefore)": task('dueBefore: "2032-01-01T00:00:00Z", status: IN_PROGRESS'),
        "Query.tasks(search)": task('search: "Garden"'),
        "GET /tasks/?project=": Send(in_body(found("task")), query="%(project)s"),
        "GET /tasks/?status=": Send(in_body(found("task")), query="in_progress"),
        "GET /tasks/?assignee=": Send(in_body(found("task")), query="%(editor)s"),
        "GET /tasks/?due_after=": Send(in_body(found("task")), query="2031-01-01"),
        "GET /tasks/?due_before=": Send(in_body(found("task")), query="2032-01-01&status=in_progress"),
        "GET /tasks/?search=": Send(in_body(found("task")), query="Garden"),
    },
    "See a task": {
        "Query.task": ask("task(id: %(task)s) { id }", seen("task")),
        "Project.tasks": ask(f"{PROJECT} {{ tasks {{ nodes {{ id }} }} }}", at("tasks", read=found("task"))),
        "Project.tasks.totalCount": ask(
            f"{PROJECT} {{ tasks {{ totalCount }} }}", at("tasks", "totalCount", read=counts(1))
        ),
        "Comment.task": ask(
            "task(id: %(task)s) { comments { nodes { task { id } } } }",
            at("comments", read=found("task", of=lambda comment: comment["task"])),
        ),
        "Task.assignee": ask("task(id: %(task)s) { assignee { id } }", at("assignee", read=seen("editor"))),
        "GET /tasks/<id>/": Send(in_body(seen("task"))),
    },
    "Create a task": {
        "Mutation.createTask": do(f"createTask(input: {{ {NEW} }})", NEW_TASK),
        "POST /tasks/": send(NEW_TASK, f'{{"project": %(project)s, {TASK}}}'),
    },
    "Change a task": {
        "Mutation.updateTask": do('updateTask(input: { id: %(task)s, title: "%(word)s" })', NEW_TITLE),
        "PUT /tasks/<id>/": send(NEW_TITLE, f"{{{TASK}}}"),
        "PATCH /tasks/<id>/": send(NEW_TITLE, '{"title": "%(word)s"}'),
    },
    "Assign a task to no member": {
        "Mutation.createTask": do(f"createTask(input: {{ {NEW}, assigneeId: %(newcomer)s }})", ASSIGNED),
        "Mutation.updateTask": do("updateTask(input: { id: %(task)s, assigneeId: %(newcomer)s })", ASSIGNED),
        "POST /tasks/": send(ASSIGNED, f'{{"project": %(project)s, "assignee": %(newcomer)s, {TASK}}}'),
        "PUT /tasks/<id>/": send(ASSIGNED, f'{{"assignee": %(newcomer)s, {TASK}}}'),
        "PATCH /tasks/<id>/": send(ASSIGNED, '{"assignee": %(newcomer)s}'),
    },
    "Delete a task": {
        "Mutation.deleteTask": do("deleteTask(input: { id: %(task)s })", NO_TASK),
        "DELETE /tasks/<id>/": send(NO_TASK),
    },
    "See comments": {
        "Task.comments": ask("task(id: %(task)s) { comments { nodes { id } } }", at("comments", read=found("comment"))),
        "Task.comments.totalCount": ask(
            "task(id: %(task)s) { comments { totalCount } }", at("comments", "totalCount", read=counts(1))
        ),
        "GET /tasks/<id>/comments/": Send(in_body(found("comment"))),
        "GET /tasks/<id>/comments/?count=": Send(in_count(counts(1)), query="1"),
    },
    "Comment": {
        "Mutation.addComment": do(
            'addComment(input: { taskId: %(task)s, content: "%(word)s"%(author_in_graphql)s })', NEW_COMMENT
        ),
        "POST /tasks/<id>/comments/": send(NEW_COMMENT, '{"content": "%(word)s"%(author_in_json)s}'),
    },
    "Comment under another's name": {
        "Mutation.addComment": do(
            'addComment(input: { taskId: %(task)s, content: "%(word)s", author: "Somebody Else" })',
            NEW_COMMENT,
            "... on Comment { author }",
            signed(lambda comment: comment["author"]),
        ),
        "POST /tasks/<id>/comments/": send(
            NEW_COMMENT,
            '{"content": "%(word)s", "author": "Somebody Else"}',
            signed(lambda response: response.json()["author"]),
        ),
    },
    "See members": {
        "Project.members": ask(
            f"{PROJECT} {{ members {{ nodes {{ role user {{ id }} }} }} }}",
            at("members", read=members(lambda member: member["user"]["id"])),
        ),
        "Project.members.totalCount": ask(
            f"{PROJECT} {{ members {{ totalCount }} }}", at("members", "totalCount", read=counts(MEMBERS))
        ),
        "Member.user": ask(
            f"{PROJECT} {{ members {{ nodes {{ user {{ name id }} }} }} }}",
            at("members", read=members(lambda member: member["user"]["name"] and member["user"]["id"])),
        ),
        "GET /projects/<id>/members/": Send(in_body(members(lambda member: member["user"]))),
        "GET /projects/<id>/members/?count=": Send(in_count(counts(MEMBERS)), query="1"),
        "GET /projects/<id>/members/<user_id>/": Send(in_body(seen("member", "user"))),
    },
    "Let somebody in": {
        "Mutation.addMember": do('addMember(input: { projectId: %(project)s, username: "newcomer" })', NEW_MEMBER),
        "POST /projects/<id>/members/": send(NEW_MEMBER, '{"username": "newcomer"}'),
    },
    "Change a role": {
        "Mutation.changeRole": do(
            "changeRole(input: { projectId: %(project)s, userId: %(member)s, role: OWNER })", is_owner
        ),
        "PUT /projects/<id>/members/<user_id>/": send(is_owner, '{"role": "owner"}'),
        "PATCH /projects/<id>/members/<user_id>/": send(is_owner, '{"role": "owner"}'),
    },
    "Take somebody out": {
        "Mutation.removeMember": do("removeMember(input: { projectId: %(project)s, userId: %(member)s })", NO_MEMBER),
        "DELETE /projects/<id>/members/<user_id>/": send(NO_MEMBER),
    },
    "Leave": {
        "Mutation.removeMember": do("removeMember(input: { projectId: %(project)s, userId: %(self)s })", NOT_IN_IT),
        "DELETE /projects/<id>/members/<user_id>/": Send(
            anything, NOT_IN_IT, path="/projects/%(project)s/members/%(self)s/"
        ),
    },
    "List reports": {
        "Query.reports": ask("reports { nodes { id } }", listed("report")),
        "Query.reports.totalCount": ask("reports { totalCount }", at("totalCount", read=counted("report"))),
        "GET /reports/": Send(in_body(listed("report"))),
        "GET /reports/?count=": Send(in_count(counted("report")), query="1"),
    },
    "Find a report": {
        "Query.reports(projectId)": ask("reports(projectId: %(project)s) { nodes { id } }", found("report")),
        "GET /reports/?project=": Send(in_body(found("report")), query="%(project)s"),
    },
    "See a report": {
        "Query.report": ask("report(id: %(report)s) { id }", seen("report")),
        "GET /reports/<id>/": Send(in_body(seen("report"))),
    },
    "Read what happened": {
        "Query.events": ask('events(after: "0") { nodes { cursor } }', listed("event", "cursor")),
        "GET /events/?after=": Send(in_body(at("events", read=listed("event", "cursor"))), query="0"),
    },
    "Read what happened in a project": {
        "Query.events(projectId)": ask(f"{EVENTS} {{ nodes {{ cursor }} }}", told),
        "GET /events/?project=": Send(in_body(at("events", read=told)), query="%(project)s&after=0"),
        "Event.actor": ask(f"{EVENTS} {{ nodes {{ actor {{ id }} }} }}", shown("actor", "owner")),
        "ProjectCreated.project": event("ProjectCreated", "project", "project"),
        "ProjectUpdated.project": event("ProjectUpdated", "project", "project"),
        "ProjectDeleted.project": event("ProjectDeleted", "project", "gone", of="gone"),
        "TaskCreated.task": event("TaskCreated", "task", "task"),
        "TaskUpdated.task": event("TaskUpdated", "task", "task"),
        "TaskDeleted.task": event("TaskDeleted", "task", "deleted_task"),
        "TaskCommented.task": event("TaskCommented", "task", "task"),
        "TaskCommented.comment": event("TaskCommented", "comment", "comment"),
        "ReportGenerated.report": event("ReportGenerated", "report", "report"),
    },
    "Hear what happens": {"Subscription.events": Hear(), "WS /ws/notifications/": Hear(), "SSE /events/": Hear()},
    "Hear what happens in a project": {
        "Subscription.events(projectId)": Hear(", projectId: %(project)s"),
        "Subscription.events(taskId)": Hear(", taskId: %(task)s"),
        "WS /ws/notifications/?project=": Hear("&project=%(project)s"),
        "SSE /events/?project=": Hear("&project=%(project)s"),
    },
    "List tokens": {
        "Query.tokens": ask("tokens { nodes { id } }", listed("token")),
        "Query.tokens.totalCount": ask("tokens { totalCount }", at("totalCount", read=counted("token"))),
    },
    "Create a token of yours": {
        "Mutation.createToken": do('createToken(input: { name: "%(word)s", scope: READ })', NEW_TOKEN),
        "NewToken.token": do(
            'createToken(input: { name: "%(word)s", scope: READ })',
            NEW_TOKEN,
            "... on NewToken { token { name } }",
            at("token", "name", read=anything),
        ),
    },
    "Revoke a token of yours": {
        "Mutation.revokeToken": do("revokeToken(input: { id: %(own_token)s })", there_is_no(Token, pk="own_token")),
    },
    "Revoke a token of another's": {
        "Mutation.revokeToken": do(
            "revokeToken(input: { id: %(others_token)s })", there_is_no(Token, pk="others_token")
        ),
    },
    "Read the audit log": {
        "Query.auditLog": ask("auditLog { nodes { id } }", listed("audit entry")),
        "Query.auditLog.totalCount": ask("auditLog { totalCount }", at("totalCount", read=counted("audit entry"))),
        "AuditEntry.actor": ask(
            "auditLog { nodes { id actor { name } } }",
            lambda visit, log: listed("audit entry")(visit, [entry for entry in log["nodes"] if entry["actor"]]),
        ),
    },
    "Open the admin": {"GET /admin/": opens("/admin/")},
    "See and change rows in the admin": {
        "GET /admin/*": Page(read_admin),
        "POST /admin/*": Page(write_admin, NEW_PROJECT),
    },
}
