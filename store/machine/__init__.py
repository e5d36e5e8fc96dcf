"""The deterministic state machine: the same entries give the same state on every node."""
