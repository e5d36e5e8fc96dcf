"""Covers raft/engine/self_check.py."""

from types import ModuleType

import pytest
from pysyncobj import syncobj

from raft.engine import self_check
from raft.errors import SelfCheckError


def copy_of_pysyncobj() -> ModuleType:
    """A module with the same names and a class with the same methods, free to be damaged."""
    copy = ModuleType("pysyncobj.syncobj")
    vars(copy).update(vars(syncobj))
    copy.SyncObj = type(
        "SyncObj", (), {name: value for name, value in vars(syncobj.SyncObj).items() if name[:2] != "__"}
    )
    copy.SyncObj.__init__ = syncobj.SyncObj.__init__
    return copy


def test_installed_release_passes():
    """The installed PySyncObj is the proven one."""
    self_check.check(syncobj)
    self_check.check(copy_of_pysyncobj())


@pytest.mark.parametrize("version", ["0.3.16", "0.3.18", None])
def test_other_version_is_refused(version):
    """Another release is refused by its version alone, and the message names both."""
    module = copy_of_pysyncobj()
    module.VERSION = version
    with pytest.raises(SelfCheckError, match=rf"pysyncobj {version} .*allowed: exactly 0\.3\.17"):
        self_check.check(module)


@pytest.mark.parametrize("name", [name for name in self_check.MODULE_NAMES if name != "VERSION"])
def test_missing_global_is_named(name):
    """A module global that the engine replaces must exist, or the replacement would change nothing."""
    module = copy_of_pysyncobj()
    delattr(module, name)
    with pytest.raises(SelfCheckError, match=rf"lacks {name};"):
        self_check.check(module)


@pytest.mark.parametrize("name", self_check.OVERRIDDEN_METHODS + self_check.CALLED_METHODS)
def test_missing_method_is_named(name):
    """A method that the engine overrides or calls must exist, or the stock behaviour would run."""
    module = copy_of_pysyncobj()
    delattr(module.SyncObj, name)
    with pytest.raises(SelfCheckError, match=rf"lacks {name};"):
        self_check.check(module)


@pytest.mark.parametrize("name", self_check.ASSIGNED_ATTRIBUTES)
def test_attribute_no_longer_set_is_named(name):
    """An attribute that the engine reads or replaces must be set by the constructor."""
    module = copy_of_pysyncobj()
    code = syncobj.SyncObj.__init__.__code__
    renamed = tuple(f"{each}_renamed" if each == name else each for each in code.co_names)

    def constructor(self):
        """Stand-in that gets the constructor's code with one attribute renamed."""

    constructor.__code__ = code.replace(co_names=renamed, co_freevars=())
    module.SyncObj.__init__ = constructor
    with pytest.raises(SelfCheckError, match=rf"lacks {name};"):
        self_check.check(module)
