"""The only room that stores messages: the Spool protocol and the stores that fulfil it. Knows nothing of AMQP."""
