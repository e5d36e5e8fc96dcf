"""Finds out which faults this machine and this user allow, by doing each of them once; says why one is missing.

A fault that is not available is reported with its reason, never left out silently.
"""

import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final

from tests.support.cluster.commands import NAME_PREFIX, CommandError, run

FAKETIME_LIBRARIES: Final = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
)
"""Where distributions put the library for programs with threads."""

AS_ROOT: Final = "run as root, or everything inside `unshare -Urnm` with a tmpfs mounted on /run"


class Capability(StrEnum):
    """One thing that faults need."""

    NAMESPACES = "network namespaces"
    FIREWALL = "packet filter"
    SLOW_LINKS = "slow links"
    DELAYED_LINKS = "delayed links"
    IMAGE_DISKS = "disk images"
    CALL_FAULTS = "faults in system calls"
    FAKED_CLOCK = "faked wall clock"
    PINNING = "pinned processes"


@functools.cache
def missing() -> dict[Capability, str]:
    """What is not available, and why; looked at once."""
    found = {one: probe() for one, probe in _PROBES.items()}
    return {one: reason for one, reason in found.items() if reason}


@functools.cache
def firewall() -> str:
    """`nft` or `iptables`, whichever works; empty when none does."""
    if not shutil.which("ip") or _namespaces():
        return ""
    return next((program for program, command in _FIREWALLS.items() if not _in_namespace(*command)), "")


def faketime_library() -> str:
    """Path of libfaketime, empty when it is not installed."""
    return next((path for path in FAKETIME_LIBRARIES if Path(path).exists()), "")


_FIREWALLS: Final[dict[str, tuple[str, ...]]] = {
    "nft": ("nft", "add rule inet probe input numgen random mod 1000 < 1 drop"),
    "iptables": ("iptables", "-w", "-A", "INPUT", "-m", "statistic", "--mode", "random", "--probability", "0.1"),
}
"""A command of each that needs the module which is most likely to be absent: random loss."""


@functools.cache
def _namespaces() -> str:
    if not shutil.which("ip") or not shutil.which("nsenter"):
        return "`ip` or `nsenter` is not installed (Debian: iproute2, util-linux)"
    return _in_namespace("ip", "link", "add", "probe", "type", "veth", "peer", "name", "peer") or _in_namespace(
        "ip", "link", "add", "probe", "type", "bridge"
    )


def _firewall() -> str:
    if _namespaces():
        return _namespaces()
    return "" if firewall() else "neither `nft` nor `iptables` works (Debian: nftables, iptables)"


def _slow_links() -> str:
    return _qdisc("tbf", "rate", "1mbit", "burst", "16kb", "latency", "50ms")


def _delayed_links() -> str:
    return _qdisc("netem", "delay", "1ms")


def _qdisc(*discipline: str) -> str:
    if not shutil.which("tc"):
        return "`tc` is not installed (Debian: iproute2)"
    return _namespaces() or _in_namespace("tc", "qdisc", "add", "dev", "lo", "root", *discipline)


def _image_disks() -> str:
    if not shutil.which("mkfs.ext4") or not shutil.which("mount"):
        return "`mkfs.ext4` or `mount` is not installed (Debian: e2fsprogs, mount)"
    with tempfile.TemporaryDirectory(prefix=f"{NAME_PREFIX}-{os.getpid()}-") as directory:
        image, mount_point = Path(directory, "image"), Path(directory, "mounted")
        mount_point.mkdir()
        with image.open("wb") as file:
            file.truncate(16 * 1024 * 1024)
        try:
            run("mkfs.ext4", "-q", str(image))
            run("mount", "-o", "loop", str(image), str(mount_point))
            run("umount", str(mount_point))
        except CommandError as error:
            return f"{error} (run as root, with loop devices)"
    return ""


def _call_faults() -> str:
    if not shutil.which("strace"):
        return "`strace` is not installed (Debian: strace)"
    try:
        run("strace", "-qq", "-e", "trace=fsync", "-e", "inject=fsync:delay_enter=1", "true")
    except CommandError as error:
        return str(error)
    return ""


def _faked_clock() -> str:
    return "" if faketime_library() else "libfaketime is not installed (Debian: libfaketime)"


def _pinning() -> str:
    return "" if shutil.which("taskset") else "`taskset` is not installed (Debian: util-linux)"


_PROBES: Final[dict[Capability, Callable[[], str]]] = {
    Capability.NAMESPACES: _namespaces,
    Capability.FIREWALL: _firewall,
    Capability.SLOW_LINKS: _slow_links,
    Capability.DELAYED_LINKS: _delayed_links,
    Capability.IMAGE_DISKS: _image_disks,
    Capability.CALL_FAULTS: _call_faults,
    Capability.FAKED_CLOCK: _faked_clock,
    Capability.PINNING: _pinning,
}


def _in_namespace(*command: str) -> str:
    """Runs a command in a namespace that lives no longer; why it failed, empty when it did not."""
    name = f"{NAME_PREFIX}-{os.getpid()}-probe"
    try:
        run("ip", "netns", "add", name)
    except CommandError as error:
        return f"{error} ({AS_ROOT})"
    try:
        inside = ("nsenter", f"--net=/run/netns/{name}")
        if command[0] == "nft":
            chain = "add table inet probe; add chain inet probe input { type filter hook input priority 0; }; "
            run(*inside, "nft", "-f", "-", stdin=chain + command[1])
        else:
            run(*inside, *command)
    except CommandError as error:
        return str(error)
    finally:
        run("ip", "netns", "del", name)
    return ""
