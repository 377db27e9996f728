from xml.etree import ElementTree

from django.test import SimpleTestCase

from bench.support.curves import as_svg, as_text


class CurveTests(SimpleTestCase):
    def test_bars_rise_to_the_highest_value(self) -> None:
        self.assertEqual(as_text([(0, 0), (1, 50), (2, 100)]), "▁▅█")

    def test_a_long_curve_is_shortened(self) -> None:
        self.assertEqual(len(as_text([(n, n) for n in range(1000)], columns=60)), 60)

    def test_the_picture_is_xml_with_a_line_per_curve_and_per_mark(self) -> None:
        curves = {"web": [(0.0, 100.0), (60.0, 120.0)], "worker <1>": [(0.0, 50.0)], "none": []}
        picture = ElementTree.fromstring(as_svg("Memory", "MB", curves, {"Redis & co": 30.0}))  # noqa: S314
        namespace = "{http://www.w3.org/2000/svg}"
        self.assertEqual(len(picture.findall(f"{namespace}polyline")), 2)
        texts = [text.text for text in picture.findall(f"{namespace}text")]
        self.assertLessEqual({"Memory", "web", "worker <1>", "Redis & co", "1:00"}, set(texts))
