"""The drill: everyday faults brought about for real, what pubd says of each and how soon, and that it leads out.

``python -m tests.drill`` plays it against a real RabbitMQ; ``--write`` makes docs/drill.rst of it.
"""
