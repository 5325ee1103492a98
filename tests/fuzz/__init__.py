"""Fuzz drivers that are run by hand, for minutes or hours: ``python -m tests.fuzz.NAME --seconds N``."""
