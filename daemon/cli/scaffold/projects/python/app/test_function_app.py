"""python3 -m unittest discover app

With drover.testing, tests can run functions as drover does; see README.md.
"""

import types
import typing
import unittest

from function_app import Line, Order, orders, total


class OrdersTest(unittest.TestCase):
    def test_an_order(self) -> None:
        message: typing.Any = types.SimpleNamespace(attempt=1)
        self.assertEqual(orders(Order(7, [Line(5, 2)]), message), {"id": 7, "total": 10})

    def test_the_total_of_nothing(self) -> None:
        self.assertEqual(total(Order(8, [])), 0)


if __name__ == "__main__":
    unittest.main()
