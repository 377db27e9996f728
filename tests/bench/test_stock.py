from django.test import SimpleTestCase

from bench.stock.rest import TaskSerializer
from rest import serializers


class StockSerializerTests(SimpleTestCase):
    def test_the_stock_serializer_of_a_task_has_the_fields_of_ours(self) -> None:
        self.assertEqual(TaskSerializer.Meta.fields, list(serializers.Task().fields))
