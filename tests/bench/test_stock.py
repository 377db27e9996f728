from django.test import SimpleTestCase

from bench.stock.rest import TaskSerializer
from rest import serializers


class StockTwinTests(SimpleTestCase):
    def test_the_twin_of_a_task_has_the_same_fields(self) -> None:
        self.assertEqual(TaskSerializer.Meta.fields, list(serializers.Task().fields))
