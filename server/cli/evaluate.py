"""Turns a parsed command line into checked options. Reads no file but the cluster's secret.

Order: options of the original that do not exist here are refused first, then values are read, then `Options` checks
them. Without `--clustered` the other options of clustering are ignored (O40). Errors are one line for the operator (O10).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from server.config.cluster import ClusterOptions
from server.config.model import Limits, Options
from server.config.option_error import OptionError
from server.config.secret_file import read_secret
from server.config.units import parse_size, quote

from .flag_table import (
    CLUSTER_PREFIX,
    CLUSTER_SECRET_FILE_TARGET,
    CLUSTERED_TARGET,
    FLAGS,
    NATS_DEBUG_AND_TRACE_TARGET,
    STAN_DEBUG_AND_TRACE_TARGET,
)
from .flags import Flag, FlagValue, Kind

BINARY_VARIABLE: Final = "NATS_SERVER_BINARY"
"""Environment variable that names the nats-server executable to start instead of the installed one."""

_BY_NAME: Final = {name: flag for flag in FLAGS for name in flag.names}

_BOTH: Final = {
    STAN_DEBUG_AND_TRACE_TARGET: ("stan_debug", "stan_trace"),
    NATS_DEBUG_AND_TRACE_TARGET: ("nats_debug", "nats_trace"),
}
"""Options that set two fields and win over the single ones, wherever they stand (O79)."""

_OWN_NATS_ONLY: Final = ("host", "port", "nats_debug", "nats_trace", "route_listen", "routes")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Checked options, and what the operator should be warned about once the log is open."""

    options: Options
    warnings: tuple[str, ...]


def evaluate(given: Mapping[str, FlagValue], environ: Mapping[str, str]) -> Evaluation:
    """Options for the values `given` by name as typed. Raises OptionError."""
    _refuse_missing(given)
    values = _values(given)
    fields: dict[str, object] = {target: value for target, value in values.items() if target in Options.model_fields}
    for target, pair in _BOTH.items():
        if target in values:
            fields |= dict.fromkeys(pair, values[target])
    limits = Limits.model_validate({name: values[name] for name in Limits.model_fields if name in values})
    cluster, secret_warnings = _cluster(values) if values.get(CLUSTERED_TARGET) else (None, ())
    options = Options.model_validate(
        {**fields, "limits": limits, "cluster": cluster, "nats_server_binary": environ.get(BINARY_VARIABLE) or None}
    )
    return Evaluation(options, (*_warnings(given, options), *secret_warnings))


def is_asked(given: Mapping[str, FlagValue], target: str) -> bool:
    """True when the boolean option behind `target` (`HELP_TARGET`, `VERSION_TARGET`) is on."""
    asked = [value for name, value in given.items() if _BY_NAME[name].target == target]
    return bool(asked and asked[-1])


def _refuse_missing(given: Mapping[str, FlagValue]) -> None:
    for name, value in given.items():
        flag = _BY_NAME[name]
        if flag.target is None:
            raise OptionError(
                f"option {flag.dashed(name)} is not supported by this version",
                option=flag.dashed(name),
                value=value,
                allowed="not to be given",
            )


def _values(given: Mapping[str, FlagValue]) -> dict[str, FlagValue]:
    """Value by target; the last one given wins, sizes read."""
    values: dict[str, FlagValue] = {}
    for name, value in given.items():
        flag = _BY_NAME[name]
        assert flag.target is not None  # refused before
        if flag.kind is Kind.SIZE:
            # Of two names of a size the first in the table wins, whatever the order (O7).
            size = _size(name, str(value))
            if name != flag.names[0] and flag.names[0] in given:
                continue
            values[flag.target] = size
        else:
            values[flag.target] = value
    return values


def _cluster(values: Mapping[str, FlagValue]) -> tuple[ClusterOptions, tuple[str, ...]]:
    """Options of a clustered server, and what the operator should be warned about the secret's file."""
    fields: dict[str, object] = {
        target.removeprefix(CLUSTER_PREFIX): value
        for target, value in values.items()
        if target.startswith(CLUSTER_PREFIX) and target != CLUSTER_SECRET_FILE_TARGET
    }
    warnings: tuple[str, ...] = ()
    if CLUSTER_SECRET_FILE_TARGET in values:
        fields["secret"], warnings = read_secret(str(values[CLUSTER_SECRET_FILE_TARGET]))
    return ClusterOptions.model_validate(fields), warnings


def _size(name: str, text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        allowed = "an integer with an optional suffix such as k, KB, m or MB"
        raise OptionError(
            f"{name} should be a size, got '{quote(text)[1:-1]}'", option=f"--{name}", value=text, allowed=allowed
        ) from error


def _warnings(given: Mapping[str, FlagValue], options: Options) -> tuple[str, ...]:
    warnings: list[str] = []
    if "." in options.cluster_id:
        warnings.append(
            f"Cluster ID {quote(options.cluster_id)} contains dots: a cluster whose ID is its first part hears its "
            "publishes and answers them with errors"
        )
    if options.cluster is not None:
        warnings += options.cluster.warnings()
    unused = [_BY_NAME[name].dashed(name) for name in given if options.nats_urls and _acts_on_own_nats(_BY_NAME[name])]
    if unused:
        warnings.append(f"Options without effect together with --nats_server: {' '.join(unused)}")
    return tuple(warnings)


def _acts_on_own_nats(flag: Flag) -> bool:
    """True for what an external NATS server makes useless (O82, O83, O92, O93, O102, O103)."""
    return flag.target in _OWN_NATS_ONLY or flag.target == NATS_DEBUG_AND_TRACE_TARGET
