"""How DRF learns who asks."""

from typing import Any

from rest_framework.authentication import SessionAuthentication
from rest_framework.request import Request

from backend.projects import access, authentication
from backend.projects.access import Viewer


class ViewerAuthentication(SessionAuthentication):
    """The viewer of a request is its `auth`; a session writes with its CSRF token only.

    Whoever may see nothing is refused here (NotSignedIn), before anything else of the request is read.
    """

    def authenticate(self, request: Request) -> tuple[Any, Viewer]:
        viewer = authentication.viewer_of_request(request._request)
        access.require_access(viewer)
        if viewer.session_key is not None:
            self.enforce_csrf(request)
        return request._request.user, viewer
