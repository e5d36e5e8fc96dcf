"""Turns what the leader decided into log entries: one open batch, one entry in flight."""
