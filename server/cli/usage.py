"""Builds what help and version print (O11, O12). Pure."""

from typing import Final

from server.version import VERSION

from .flag_table import SECTIONS, SUPPORTED
from .flags import Flag, Kind

_PROGRAM: Final = "nats-streaming-server"
_SHORT_WIDTH: Final = 6
"""Columns of a short name with its comma, so that long names stand in one column."""

_OPTION_WIDTH_MIN: Final = 36
"""Columns of the names and the type, so that descriptions stand in one column; more below a heading with long names."""


def usage_text() -> str:
    """The help text, ending in a newline. Headings without an option of this version are left out."""
    lines = ["", f"Usage: {_PROGRAM} [options]"]
    for section in SECTIONS:
        flags = [flag for flag in SUPPORTED if flag.section == section]
        if flags:
            lines += ["", f"{section}:", *_section_lines(flags)]
    return "\n".join(lines) + "\n"


def version_line(nats_version: str) -> str:
    """The one line of `--version`; `nats_version` is the binary's, or `none`."""
    return f"{_PROGRAM} version {VERSION}, nats-server: {nats_version}"


def names_and_type(flag: Flag) -> str:
    """`-cid, --cluster_id <string>`."""
    return ", ".join(flag.dashed(name) for name in flag.names) + _type(flag)


def _section_lines(flags: list[Flag]) -> list[str]:
    columns = [_names_column(flag) for flag in flags]
    width = max(_OPTION_WIDTH_MIN, 1 + max(map(len, columns)))
    return [
        f"    {names:<{width}}{flag.meaning}{f' (default: {flag.default})' if flag.default else ''}"
        for flag, names in zip(flags, columns, strict=True)
    ]


def _names_column(flag: Flag) -> str:
    short, *others = [flag.dashed(name) for name in flag.names]
    if short.startswith("--"):
        return f"{'':{_SHORT_WIDTH}}{names_and_type(flag)}"
    if others:
        return f"{short + ',':<{_SHORT_WIDTH}}{', '.join(others)}{_type(flag)}"
    return names_and_type(flag)


def _type(flag: Flag) -> str:
    """What follows the names. A boolean takes its value only behind `=` (O2)."""
    if not flag.placeholder:
        return ""
    return f"=<{flag.placeholder}>" if flag.kind is Kind.BOOL else f" <{flag.placeholder}>"
