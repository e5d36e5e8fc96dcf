"""Tells whether a text that came from outside can be the id of a node. Pure."""

from server.config.cluster import ClusterOptions
from server.config.option_error import OptionError


def is_node_id(text: str) -> bool:
    """Whether an operator could have given it with --cluster_node_id."""
    try:
        return ClusterOptions(node_id=text).node_id != ""
    except OptionError:
        return False
