"""Names the databases and keys of the LMDB environment. Pure.

| database | key | value |
|---|---|---|
| meta | `format`, `identity`, `applied`, `cluster` | record |
| channels, clients, subscriptions, progress, groups, group_progress | u64 big-endian id (clients: number) | record |
| messages | u64 channel id, u64 first sequence, both big-endian | block |

Records are sealed (`store.records`); a block has its own checksum. Big-endian keys sort like their numbers.
"""

import struct
from typing import Final

META: Final = b"meta"
CHANNELS: Final = b"channels"
CLIENTS: Final = b"clients"
SUBSCRIPTIONS: Final = b"subscriptions"
PROGRESS: Final = b"progress"
GROUPS: Final = b"groups"
GROUP_PROGRESS: Final = b"group_progress"
MESSAGES: Final = b"messages"

DATABASES: Final = (META, CHANNELS, CLIENTS, SUBSCRIPTIONS, PROGRESS, GROUPS, GROUP_PROGRESS, MESSAGES)

FORMAT_KEY: Final = b"format"
IDENTITY_KEY: Final = b"identity"
APPLIED_KEY: Final = b"applied"
CLUSTER_KEY: Final = b"cluster"

ID_KEY: Final = struct.Struct(">Q")
MESSAGE_KEY: Final = struct.Struct(">QQ")
