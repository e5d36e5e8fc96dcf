"""Requests of clients: checked on receipt in the order of the specification, turned into operations, answered when applied."""
