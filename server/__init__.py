"""Serves STAN clients over NATS: connections, delivery, process and operator."""
