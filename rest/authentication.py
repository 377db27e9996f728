"""Who asks: the one place where a request becomes a Viewer. Tokens join here."""

from typing import Any

from rest_framework.authentication import SessionAuthentication
from rest_framework.request import Request

from backend.projects import access
from backend.projects.access import Viewer


class ViewerAuthentication(SessionAuthentication):
    """The viewer of a request is its `auth`, by Django's session; a session writes with its CSRF token only.

    Whoever may see nothing is refused here (NotSignedIn), before anything else of the request is read.
    """

    def authenticate(self, request: Request) -> tuple[Any, Viewer]:
        user = request._request.user
        viewer = access.viewer_for(user)
        access.require_access(viewer)
        if viewer.is_signed_in:
            self.enforce_csrf(request)
        return user, viewer

    def authenticate_header(self, request: Request) -> str:
        return 'Session realm="taskwire"'
