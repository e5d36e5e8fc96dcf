"""Replicates opaque log entries and applies them in order. Knows no STAN and no NATS."""
