"""Carries messages between nodes in order, without repeats and without strangers, over a carrier that may lose or reorder."""
