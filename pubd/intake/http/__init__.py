"""The HTTP intake, on Twisted's HTTPChannel.

``channel`` reads requests off a connection and writes answers; ``route`` says which action answers which request;
``request`` and ``answer`` are the values between the two; every other module is a group of actions.
"""
