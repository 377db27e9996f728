from django.test import SimpleTestCase

from bench.support.figures import Figure, report, taken


class FigureTests(SimpleTestCase):
    def test_a_figure_reaches_its_goal_or_falls_short(self) -> None:
        for figure, mark in [
            (Figure("as fast", 0.8, goal=0.8), "reached"),
            (Figure("too slow", 0.799, goal=0.8), "falls short"),
            (Figure("soon", 10, "ms", goal=10, is_cost=True), "reached"),
            (Figure("late", 10.1, "ms", goal=10, is_cost=True), "falls short"),
            (Figure("without a goal", 5, "KB"), ""),
        ]:
            with self.subTest(figure.name):
                self.assertEqual(figure.mark, mark)

    def test_a_value_below_its_goal_is_never_rounded_up_to_it(self) -> None:
        figure = Figure("nearly", 0.7996, goal=0.8)
        self.assertEqual((figure.shown_value, figure.shown_goal), ("0.799", "0.800 or more"))

    def test_taken_returns_each_figure_once(self) -> None:
        taken()
        report(Figure("one", 1.0))
        self.assertEqual([figure.name for figure in taken()], ["one"])
        self.assertEqual(taken(), [])
