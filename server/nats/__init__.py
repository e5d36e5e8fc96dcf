"""Speaks to NATS: one connection that is kept for ever, and what rides on it."""
