"""Tests of pubd, and what they stand on: private RabbitMQ nodes, certificates, strictness."""
