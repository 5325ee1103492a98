"""The status page: ``/``, what it links to, and the few files that it needs; for people with a browser.

``render`` turns values into HTML, ``overview`` says what is on the page, and purely; every other module is a group of
actions. It shows what ``GET /status``, ``/history`` and ``/messages`` tell programs, and does what they can do.
"""
