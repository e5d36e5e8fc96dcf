"""The first byte of every log entry's command: what kind of entry it is. Pure.

The values 0 to 3 are PySyncObj's command types; it writes no-ops itself. 2 (membership) and 3 (code version) carry
pickles and are never written or accepted here. The journal adds one value for the placeholders of a reset.
"""

from typing import Final

REGULAR: Final = b"\x00"
"""An opaque entry of the application."""

NO_OP: Final = b"\x01"
"""The first entry of a leadership, and entry 1 of every log."""

CONFIGURATION: Final = b"\x04"
"""Who the members are (`raft.membership`). Not a value of PySyncObj's, which must never take it for its own."""
