"""Ids are text in routes, so that an id that is not a number is a 404 like any absent id."""

from django.urls import path

from . import docs, streams, views

app_name = "rest"
urlpatterns = [
    path("projects/", views.Projects.as_view(), name="projects"),
    path("projects/<str:id>/", views.Project.as_view(), name="project"),
    path("projects/<str:id>/members/", views.Members.as_view(), name="members"),
    path("projects/<str:id>/members/<str:user_id>/", views.Member.as_view(), name="member"),
    path("projects/<str:id>/invitations/", views.ProjectInvitations.as_view(), name="project-invitations"),
    path(
        "projects/<str:id>/invitations/<str:invitation_id>/",
        views.ProjectInvitation.as_view(),
        name="project-invitation",
    ),
    path("invitations/", views.Invitations.as_view(), name="invitations"),
    path("invitations/<str:id>/accept/", views.AcceptInvitation.as_view(), name="accept-invitation"),
    path("invitations/<str:id>/decline/", views.DeclineInvitation.as_view(), name="decline-invitation"),
    path("tasks/", views.Tasks.as_view(), name="tasks"),
    path("tasks/<str:id>/", views.Task.as_view(), name="task"),
    path("tasks/<str:id>/comments/", views.Comments.as_view(), name="comments"),
    path("reports/", views.Reports.as_view(), name="reports"),
    path("reports/<str:id>/", views.Report.as_view(), name="report"),
    path("events/", streams.Events.as_view(), name="events"),
    path("openapi.json", docs.OpenApi.as_view(), name="openapi"),
    path("docs/", docs.Docs.as_view(), name="docs"),
]
