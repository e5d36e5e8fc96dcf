"""What the specification says about one request, given what is registered: the answers that are allowed. Pure.

Written from protocol.md sections 4 to 12, not from the server. `""` stands for success, an empty set for no answer.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from server.config.model import Limits
from server.protocol import stan_pb2 as pb
from store.machine.state import State, Subscription

Verdict = frozenset[str]

Owners = Mapping[bytes, str]
"""By connection id: the client that sent it last."""

SUCCESS: Final = frozenset({""})
SILENCE: Final[Verdict] = frozenset()

INVALID_CONNECT: Final = "stan: invalid connection request"
INVALID_CLIENT_ID: Final = "stan: invalid clientID: only alphanumeric and `-` or `_` characters allowed"
IN_USE: Final = "stan: clientID already registered"
INVALID_PUBLISH: Final = "stan: invalid publish request"
INVALID_SUBSCRIBE: Final = "stan: invalid subscription request"
NO_CLIENT_ID: Final = "stan: clientID missing"
ACK_WAIT: Final = "stan: invalid ack wait time, should be >= 1s"
MAX_IN_FLIGHT: Final = "stan: invalid MaxInflight, should be >= 1"
START_POSITION: Final = "stan: invalid start position"
INVALID_SUBJECT: Final = "stan: invalid subject"
UNKNOWN_CLIENT: Final = "stan: unknown clientID"
DUPLICATE: Final = "stan: duplicate durable registration"
COLON: Final = "stan: durable name of a durable queue subscriber can't contain the character ':'"
INVALID_UNSUBSCRIBE: Final = "stan: invalid unsubscribe request"
UNKNOWN_CHANNEL: Final = "stan: unknown channel"
INVALID_SUBSCRIPTION: Final = "stan: invalid subscription"
INVALID_CLOSE: Final = "stan: invalid close request"
TOO_MANY_CHANNELS: Final = "too many channels"
TOO_MANY_SUBSCRIPTIONS: Final = "too many subscriptions per channel"
REPLACED: Final = "client has been replaced or is no longer registered"
TOO_LARGE: Final = "nats: maximum payload exceeded"

NAME_MAX_BYTES: Final = 255
INBOX_MAX_BYTES: Final = 1024

REDELIVERY_FIELDS_BYTES: Final = 8
"""What a redelivery adds to a MsgProto at most: a flag and a uint32 (B97)."""

SEQUENCE_SPREAD_BYTES: Final = 9
"""Encodings of two sequences differ by at most so much."""

_M = TypeVar("_M", bound=Message)


def decoded(kind: type[_M], payload: bytes) -> _M | None:
    """The request, or None when it does not decode (B25)."""
    try:
        return kind.FromString(payload)
    except DecodeError:
        return None


def connect(payload: bytes, state: State, *, is_old_answering: bool) -> Verdict:
    """B40, B50."""
    request = decoded(pb.ConnectRequest, payload)
    if request is None or inbox_faults(request.heartbeatInbox) == {True}:
        return frozenset({INVALID_CONNECT})
    if re.fullmatch(r"[a-zA-Z0-9_\-]+", request.clientID) is None:
        rest = frozenset({INVALID_CLIENT_ID})
    elif request.clientID in state.clients and is_old_answering:
        rest = frozenset({IN_USE})
    else:
        rest = SUCCESS
    return rest | {INVALID_CONNECT} if True in inbox_faults(request.heartbeatInbox) else rest


def ping(payload: bytes, state: State, *, owners: Owners) -> Verdict:
    """B70 to B72."""
    request = decoded(pb.Ping, payload)
    if request is None or not request.connID:
        return SILENCE
    return frozenset("" if is_known else REPLACED for is_known in _known(request.connID, state, owners))


def publish(
    payload: bytes, state: State, limits: Limits, *, nats_channel: str, max_payload: int, owners: Owners
) -> Verdict:
    """B90 to B97; `nats_channel`: what the NATS subject says."""
    request = decoded(pb.PubMsg, payload)
    if request is None or not request.guid:
        return frozenset({INVALID_PUBLISH})
    if not is_channel(request.subject) or request.subject != nats_channel:
        return frozenset({INVALID_PUBLISH})
    registered = _known(request.connID, state, owners) if request.connID else {request.clientID in state.clients}
    if True not in registered:
        return frozenset({INVALID_PUBLISH})
    verdict = _channel(request.subject, state, limits)
    if False in registered:
        verdict |= {INVALID_PUBLISH}
    message = pb.MsgProto(
        sequence=2**63, subject=request.subject, reply=request.reply, data=request.data, timestamp=2**62
    )
    most = len(message.SerializeToString()) + REDELIVERY_FIELDS_BYTES
    if most <= max_payload:
        return verdict
    is_too_large = most - SEQUENCE_SPREAD_BYTES > max_payload
    return (verdict - SUCCESS if is_too_large else verdict) | {TOO_LARGE}


def subscribe(payload: bytes, state: State, limits: Limits, *, replaces_durables: bool) -> Verdict:
    """B82, B83, B85, B66; nothing else is under way."""
    request = decoded(pb.SubscriptionRequest, payload)
    faults = _subscribe_faults(request)
    if faults or request is None:
        return faults
    either = frozenset({INVALID_SUBSCRIBE}) if True in inbox_faults(request.inbox) else frozenset[str]()
    if request.clientID not in state.clients:
        return either | {UNKNOWN_CLIENT}
    channel = _channel(request.subject, state, limits)
    if channel != SUCCESS:
        return either | channel
    if request.qGroup and ":" in request.durableName:
        return either | {COLON}
    return either | _place(request, state, limits, replaces_durables=replaces_durables)


def end(payload: bytes, state: State) -> Verdict:
    """B101, for both subjects."""
    request = decoded(pb.UnsubscribeRequest, payload)
    if request is None:
        return frozenset({INVALID_UNSUBSCRIBE})
    if request.subject not in state.channels:
        return frozenset({UNKNOWN_CHANNEL})
    subscription = ended(request, state)
    if subscription is None:
        return frozenset({INVALID_SUBSCRIPTION})
    if subscription.client_id != request.clientID:
        return frozenset({UNKNOWN_CLIENT})
    return SUCCESS


def ended(request: pb.UnsubscribeRequest, state: State) -> Subscription | None:
    """The subscription that the request names: by ack inbox, else the latest by delivery inbox (B89, B100)."""
    channel_id = state.channels[request.subject].channel_id
    online = [one for one in state.subscriptions.values() if one.channel_id == channel_id and one.is_online]
    by_ack_inbox = [one for one in online if one.ack_inbox == request.inbox]
    by_inbox = [one for one in online if one.inbox == request.inbox]
    found = by_ack_inbox or by_inbox
    return found[-1] if found else None


def close(payload: bytes, state: State) -> Verdict:
    """B105."""
    request = decoded(pb.CloseRequest, payload)
    if request is None:
        return frozenset({INVALID_CLOSE})
    return SUCCESS if request.clientID in state.clients else frozenset({UNKNOWN_CLIENT})


def is_channel(name: str) -> bool:
    """B61, B62."""
    if not name or any(one in "/*>" or one.isspace() or unicodedata.category(one) == "Cc" for one in name):
        return False
    return "" not in name.split(".") and len(name.encode()) <= NAME_MAX_BYTES


def inbox_faults(subject: str) -> set[bool]:
    """{False}: a subject that can be published to; {True}: none (B41, B85); both: the specification leaves it open."""
    tokens = subject.split(".")
    if "" in tokens or "*" in tokens or ">" in tokens:
        return {True}
    if any(one.isspace() or one < " " or one == "\x7f" for one in subject):
        return {True}
    is_odd = any(one in "*>" or unicodedata.category(one) == "Cc" for one in subject)
    return {False, True} if is_odd or len(subject.encode()) > INBOX_MAX_BYTES else {False}


def _subscribe_faults(request: pb.SubscriptionRequest | None) -> Verdict:
    """Checks 1 to 6 of B82, then B85 and B66; none: nothing is wrong so far."""
    if request is None:
        return frozenset({INVALID_SUBSCRIBE})
    checks = (
        (not request.clientID, NO_CLIENT_ID),
        (request.ackWaitInSecs < 1, ACK_WAIT),
        (request.maxInFlight < 1, MAX_IN_FLIGHT),
        (request.startPosition not in range(5), START_POSITION),
        (not is_channel(request.subject), INVALID_SUBJECT),
        (inbox_faults(request.inbox) == {True}, INVALID_SUBSCRIBE),
        (len(request.durableName.encode()) > NAME_MAX_BYTES, INVALID_SUBSCRIBE),
        (len(request.qGroup.encode()) > NAME_MAX_BYTES, INVALID_SUBSCRIBE),
    )
    return frozenset([text for is_wrong, text in checks if is_wrong][:1])


def _known(conn_id: bytes, state: State, owners: Owners) -> set[bool]:
    """Whether a client has this connection id; it is the latest one's that sent it (B46)."""
    owner = state.clients.get(owners.get(conn_id, ""))
    if owner is not None and owner.conn_id == conn_id:
        return {True}
    is_known = any(client.conn_id == conn_id for client in state.clients.values())
    return {is_known, False}


def _channel(name: str, state: State, limits: Limits) -> Verdict:
    """Found or created (B63, B331)."""
    if name in state.channels:
        return SUCCESS
    for existing in state.channels:
        if existing.lower() == name.lower():
            text = f'rejecting channel "{name}" because channel "{existing}" alreay exists'
            return frozenset({f"{text} (different cases not allowed)"})
    if limits.max_channels and len(state.channels) >= limits.max_channels:
        return frozenset({TOO_MANY_CHANNELS})
    return SUCCESS


def _place(request: pb.SubscriptionRequest, state: State, limits: Limits, *, replaces_durables: bool) -> Verdict:
    """Duplicates (B83.3, B292), then room (B83.6, B330)."""
    channel = state.channels.get(request.subject)
    if channel is None:
        return SUCCESS
    here = [one for one in state.subscriptions.values() if one.channel_id == channel.channel_id]
    groups = [one for one in state.groups.values() if one.channel_id == channel.channel_id]
    if request.qGroup:
        key = (request.durableName, request.qGroup)
        if any((one.durable_name, one.name) == key and not one.members for one in groups):
            return SUCCESS
    elif request.durableName:
        key = (request.clientID, request.durableName)
        for one in here:
            if not one.queue_group and (one.client_id, one.durable_name) == key:
                return SUCCESS if replaces_durables or not one.is_online else frozenset({DUPLICATE})
    count = len(here) + sum(not one.members for one in groups)
    is_full = bool(limits.max_subs) and count >= limits.max_subs
    return frozenset({TOO_MANY_SUBSCRIPTIONS}) if is_full else SUCCESS
