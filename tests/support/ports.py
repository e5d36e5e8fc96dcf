"""Finds free loopback ports at run time and waits until a port is served or given up, with a deadline."""

import socket
import threading
import time

HOST = "127.0.0.1"
POLL_S = 0.01
"""Pause between two connection attempts while waiting for a port, seconds."""


def free_port() -> int:
    """A TCP port nobody listens on right now; another process could still take it before its use."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def is_served(port: int) -> bool:
    """Whether somebody accepts connections on `port`."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def wait_served(port: int, *, served: bool, timeout_s: float) -> None:
    """Returns when `port` is served (or no longer, by `served`); raises TimeoutError at the deadline."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while is_served(port) is not served:
        if time.monotonic() > deadline:
            state = "served" if served else "free"
            raise TimeoutError(f"port {port} is not {state} after {timeout_s} s")
        pause.wait(POLL_S)
