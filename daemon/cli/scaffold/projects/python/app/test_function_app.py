"""python3 -m unittest discover app"""

import types
import unittest

import function_app


class OrdersTest(unittest.TestCase):
    def test_an_order(self):
        message = types.SimpleNamespace(
            body=b'{"id": 7, "lines": [{"price": 5, "count": 2}]}', attempt=1
        )
        self.assertEqual(function_app.orders(message), {"id": 7, "total": 10})

    def test_the_total_of_nothing(self):
        self.assertEqual(function_app.total({"lines": []}), 0)


if __name__ == "__main__":
    unittest.main()
