from django.db import Error, connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from backend.projects.errors import Unavailable


@csrf_exempt  # a POST gets a 405, not a 403 for its missing token
def healthz(request: HttpRequest) -> JsonResponse:
    """Respond with 200 while the database responds, else 503. Redis is not checked: without it we are only slower."""
    if request.method not in ("GET", "HEAD"):
        return JsonResponse({"detail": "Use GET."}, status=405, headers={"Allow": "GET, HEAD"})
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Error:
        headers = {"Retry-After": str(Unavailable.retry_after_s)}
        return JsonResponse({"status": "no database"}, status=503, headers=headers)
    return JsonResponse({"status": "ok"})
