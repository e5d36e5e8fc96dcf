"""The NATS subjects one cluster id is served on (B1 to B7, B11, B17). Pure."""

from dataclasses import dataclass, field

DEFAULT_DISCOVER_PREFIX = "_STAN.discover"


@dataclass(frozen=True, slots=True)
class Subjects:
    """Subjects of `cluster_id`; only the discover prefix is configurable (B11)."""

    cluster_id: str
    discover_prefix: str = DEFAULT_DISCOVER_PREFIX
    connect: str = field(init=False)
    ping: str = field(init=False)
    publish_prefix: str = field(init=False)
    subscribe: str = field(init=False)
    unsubscribe: str = field(init=False)
    close_subscription: str = field(init=False)
    close: str = field(init=False)

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "connect", f"{self.discover_prefix}.{self.cluster_id}")
        set_(self, "ping", f"{self.connect}.pings")
        set_(self, "publish_prefix", f"_STAN.pub.{self.cluster_id}")
        set_(self, "subscribe", f"_STAN.sub.{self.cluster_id}")
        set_(self, "unsubscribe", f"_STAN.unsub.{self.cluster_id}")
        set_(self, "close_subscription", f"_STAN.subclose.{self.cluster_id}")
        set_(self, "close", f"_STAN.close.{self.cluster_id}")

    @property
    def publish(self) -> str:
        """The subscription that receives every publish."""
        return f"{self.publish_prefix}.>"
