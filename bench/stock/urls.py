from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt
from rest_framework.routers import DefaultRouter
from strawberry.django.views import GraphQLView

from .graphql import schema
from .rest import Tasks

router = DefaultRouter()
router.register("tasks", Tasks)

urlpatterns = [
    # Strawberry's synchronous view is the faster one here: the other one uses a thread for each query.
    path("graphql/", csrf_exempt(GraphQLView.as_view(schema=schema))),
    path("", include(router.urls)),
]
