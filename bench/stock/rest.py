"""DRF as in its tutorial. Like ours, its cursor pagination counts no rows."""

from rest_framework.pagination import CursorPagination
from rest_framework.serializers import ModelSerializer
from rest_framework.viewsets import ModelViewSet

from backend.projects.models import Task


class Page(CursorPagination):
    page_size = 100
    ordering = "-id"


class TaskSerializer(ModelSerializer):
    class Meta:
        model = Task
        fields = [
            "id",
            "project",
            "title",
            "description",
            "status",
            "assignee",
            "due_date",
            "created_at",
            "updated_at",
            "version",
        ]


class Tasks(ModelViewSet):
    queryset = Task.objects.all()
    serializer_class = TaskSerializer
    pagination_class = Page
