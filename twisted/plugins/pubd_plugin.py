"""Tells ``twistd`` and ``twist`` about pubd; what it runs is in :mod:`pubd.service`."""

from __future__ import annotations

from twisted.application.service import ServiceMaker

pubd = ServiceMaker("pubd", "pubd.service", "Publish to RabbitMQ and answer for every message.", "pubd")
