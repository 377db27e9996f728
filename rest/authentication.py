"""DRF's authentication class."""

from typing import Any

from rest_framework.authentication import SessionAuthentication
from rest_framework.request import Request

from backend.projects import access, authentication
from backend.projects.access import Viewer


class ViewerAuthentication(SessionAuthentication):
    """Sets `request.auth` to the viewer. A session needs its CSRF token to write.

    Raises NotSignedIn for a viewer without access, before anything else of the request is read.
    """

    def authenticate(self, request: Request) -> tuple[Any, Viewer]:
        viewer = authentication.viewer_of_request(request._request)
        access.require_access(viewer)
        if viewer.session_key is not None:
            self.enforce_csrf(request)
        return request._request.user, viewer
