"""Covers server/nats/compat.py."""

import asyncio
import inspect
from types import ModuleType

import nats.aio.client
import pytest

from server.errors import SelfCheckError
from server.nats import compat


def copy_of_library() -> ModuleType:
    """The library's client module under another object, so that a test may damage it."""
    module = ModuleType("copy")
    module.__dict__.update(vars(nats.aio.client))
    module.asyncio = asyncio
    return module


def client_with(**changes: object) -> type:
    """A class like the library's Client with some members replaced; None removes one."""
    members = dict(vars(nats.aio.client.Client)) | changes
    return type("Client", (), {name: member for name, member in members.items() if member is not None})


def test_installed_release_passes() -> None:
    """The release that is installed has every name that we touch."""
    compat.check(nats.aio.client)


def test_other_release_is_refused() -> None:
    """A release that was never tried is refused, naming it and the allowed one."""
    module = copy_of_library()
    module.__version__ = "0.12.0"
    with pytest.raises(SelfCheckError, match=r"0\.12\.0 is installed; allowed: exactly 0\.11\.5"):
        compat.install(module)
    assert module.asyncio is asyncio


@pytest.mark.parametrize("name", compat.OVERRIDDEN_METHODS)
def test_missing_method_is_refused(name: str) -> None:
    """A method that we replace and that is gone would leave the stock behaviour in place."""
    module = copy_of_library()
    module.Client = client_with(**{name: None})
    with pytest.raises(SelfCheckError, match=f"lacks {name};"):
        compat.check(module)


@pytest.mark.parametrize("name", compat.READ_ATTRIBUTES)
def test_missing_attribute_is_refused(name: str) -> None:
    """An attribute that we read and that nobody sets is refused."""
    module = copy_of_library()
    others = [other for other in compat.READ_ATTRIBUTES if other != name]
    namespace: dict[str, object] = {}
    exec("def __init__(self):\n" + "".join(f"    self.{other} = None\n" for other in others), namespace)
    module.Client = client_with(__init__=namespace["__init__"])
    with pytest.raises(SelfCheckError, match=f"lacks {name};"):
        compat.check(module)


@pytest.mark.parametrize("name", ["asyncio", "Client"])
def test_missing_module_member_is_refused(name: str) -> None:
    """Without these the module is not the library's."""
    module = copy_of_library()
    delattr(module, name)
    with pytest.raises(SelfCheckError, match=f"lacks {name};"):
        compat.install(module)


def test_install_is_idempotent_and_leaves_asyncio_alone() -> None:
    """The second call changes nothing, and nobody else's asyncio loses a check."""
    module = copy_of_library()
    before = dict(vars(asyncio))
    compat.install(module)
    first = module.asyncio
    compat.install(module)
    assert module.asyncio is first
    assert first is not asyncio
    assert dict(vars(asyncio)) == before


@pytest.mark.parametrize("name", compat.LOOP_TAKERS)
def test_asyncio_does_not_take_loop(name: str) -> None:
    """The reason for the proxy still exists on this Python."""
    assert "loop" not in inspect.signature(getattr(asyncio, name)).parameters


@pytest.mark.asyncio
async def test_queue_drops_loop() -> None:
    """`Queue(maxsize=…, loop=…)` works."""
    queue = compat.proxy().Queue(maxsize=3, loop=asyncio.get_running_loop())
    assert queue.maxsize == 3


@pytest.mark.asyncio
async def test_sleep_drops_loop() -> None:
    """`sleep(…, loop=…)` works."""
    assert await compat.proxy().sleep(0, "result", loop=asyncio.get_running_loop()) == "result"


@pytest.mark.asyncio
async def test_wait_for_drops_loop() -> None:
    """`wait_for(…, loop=…)` works."""
    assert await compat.proxy().wait_for(asyncio.sleep(0, 7), 5, loop=asyncio.get_running_loop()) == 7


@pytest.mark.asyncio
async def test_open_connection_drops_loop() -> None:
    """`open_connection(…, loop=…, limit=…)` works."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await compat.proxy().open_connection(
            "127.0.0.1", port, loop=asyncio.get_running_loop(), limit=4096
        )
        assert await reader.readline() == b"hello\n"
        writer.close()
        await writer.wait_closed()


def test_everything_else_is_forwarded() -> None:
    """Other members are asyncio's own, and unknown ones are unknown."""
    proxy = compat.proxy()
    assert proxy.CancelledError is asyncio.CancelledError
    assert proxy.Future is asyncio.Future
    with pytest.raises(AttributeError):
        _ = proxy.no_such_member
