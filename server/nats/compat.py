"""Makes asyncio-nats-client run on the Python we run on, and checks that it is the release we know.

The library passes `loop=` to functions of asyncio that lost this parameter in Python 3.10. Its client module gets an
`asyncio` of its own, which forwards everything and drops `loop=` there; nobody else's asyncio is touched. The library
is used for one thing only, to get a connection (TCP, TLS, login); the private names this takes are listed here.
"""

import asyncio
import dis
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, Final

from server.errors import SelfCheckError

ALLOWED_VERSION: Final = "0.11.5"
"""The only release that was tried; it is also the last one. Source: the pin in pyproject.toml."""

LOOP_TAKERS: Final = ("Queue", "open_connection", "sleep", "wait_for")
"""Members of asyncio to which the library passes `loop=` and which no longer take it."""

OVERRIDDEN_METHODS: Final = ("_connect_command", "_read_loop")
"""Methods of the library's Client that `dial.py` replaces. A renamed one would leave the stock behaviour in place."""

READ_ATTRIBUTES: Final = ("_bare_io_writer", "_io_reader", "_io_writer", "_server_info")
"""Attributes that the library's `Client.__init__` must set, because `dial.py` reads them."""

PROXY_NAME: Final = "asyncio without loop parameters"


def install(client_module: ModuleType) -> None:
    """Give `client_module` (`nats.aio.client`) its own asyncio. Harmless when it has it already.

    Raises SelfCheckError when the module is not what we know; then nothing is changed.
    """
    current = getattr(client_module, "asyncio", None)
    if isinstance(current, ModuleType) and current.__name__ == PROXY_NAME:
        return
    check(client_module)
    client_module.asyncio = proxy()  # type: ignore[attr-defined]  # the point of this module


def check(client_module: ModuleType) -> None:
    """Raise SelfCheckError unless the library has the allowed version and every name that we touch."""
    version = getattr(client_module, "__version__", None)
    if version != ALLOWED_VERSION:
        raise SelfCheckError(f"asyncio-nats-client {version} is installed; allowed: exactly {ALLOWED_VERSION}")
    names = vars(client_module)
    missing = [name for name in ("asyncio", "Client") if name not in names]
    if not missing:
        methods = vars(names["Client"])
        missing = [name for name in OVERRIDDEN_METHODS if name not in methods]
        attributes = _attributes_set_by(methods["__init__"])
        missing += [name for name in READ_ATTRIBUTES if name not in attributes]
    if missing:
        raise SelfCheckError(
            f"asyncio-nats-client {version} lacks {', '.join(missing)}; "
            f"allowed: an unmodified asyncio-nats-client {ALLOWED_VERSION}"
        )


def proxy() -> ModuleType:
    """A module that is asyncio except that `LOOP_TAKERS` accept and ignore `loop=`."""
    module = ModuleType(PROXY_NAME)
    for name in LOOP_TAKERS:
        setattr(module, name, _without_loop(getattr(asyncio, name)))
    module.__dict__["__getattr__"] = lambda name: getattr(asyncio, name)
    return module


def _without_loop(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, loop: object = None, **options: Any) -> Any:  # noqa: ARG001  dropping it is the purpose
        return function(*args, **options)

    return call


def _attributes_set_by(function: FunctionType) -> set[str]:
    return {str(step.argval) for step in dis.get_instructions(function) if step.opname == "STORE_ATTR"}
