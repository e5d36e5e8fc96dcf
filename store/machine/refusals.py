"""The texts of refused operations. Those that a client of the original knows are the original's (protocol.md B120)."""

from typing import Final

from store.machine.state import Refusal

UNKNOWN_CHANNEL: Final = Refusal("stan: unknown channel")
UNKNOWN_CLIENT_ID: Final = Refusal("stan: unknown clientID")
DUPLICATE_CLIENT_ID: Final = Refusal("stan: clientID already registered")
DUPLICATE_DURABLE: Final = Refusal("stan: duplicate durable registration")
INVALID_SUBSCRIPTION: Final = Refusal("stan: invalid subscription")
TOO_MANY_SUBSCRIPTIONS: Final = Refusal("too many subscriptions per channel")
