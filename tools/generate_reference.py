"""Writes `docs/reference/options.md` from the table of options; with `--check` only compares.

Exit status 1 when `--check` finds a difference.
"""

import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from server.cli.flag_table import REFUSED, SECTIONS, SUPPORTED  # noqa: E402  the checkout must be found first
from server.cli.flags import Flag  # noqa: E402

OPTIONS_FILE: Final = ROOT / "docs" / "reference" / "options.md"

INTRODUCTION: Final = """\
# Command line options

<!-- Written by tools/generate_reference.py from server/cli/flag_table.py. Do not edit. -->

Options follow the conventions of Go's `flag` package, as in the original server:

- One or two dashes are the same. A value follows as the next word or behind `=`: `-store file`, `--store=file`.
- A boolean stands alone or takes its value behind `=`: `--clustered=false`. It never takes the next word.
- Durations are numbers with units, such as `30s`, `1.5h` or `2h45m`.
- Sizes are integers with an optional suffix: `1k` is 1000, `1KB` is 1024; `m`, `g`, `t`, `p`, `e` likewise.
- The last occurrence wins. Of `-mb` and `--max_bytes` given together `-mb` wins. `-SDV` and `-DV` win over the single
  options.
- Options end at the first word that is none; the words `version` and `help` act like the options.

The environment variable `NATS_SERVER_BINARY` names the nats-server program to start instead of the installed one.

## Exit status

| status | when |
|---|---|
| 0 | help, version, stopped by SIGINT |
| 1 | malformed or unusable option, failed start, fatal error |
| 143 | stopped by SIGTERM |

The original exits with 0 after a malformed option. This server exits with 1, so that a supervisor notices.
"""

REFUSED_INTRODUCTION: Final = """\
## Known options that this version refuses

They exist in the original. Giving one ends the start with `option … is not supported by this version` and status 1.
"""


def options_page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for section in SECTIONS:
        flags = [flag for flag in SUPPORTED if flag.section == section]
        if flags:
            rows = "\n".join(_row(flag) for flag in flags)
            parts.append(f"## {section}\n\n| option | value | default | meaning |\n|---|---|---|---|\n{rows}\n")
    refused = "\n".join(
        f"| {_names(flag)} | {flag.kind} |" for flag in sorted(REFUSED, key=lambda flag: flag.names[-1])
    )
    parts.append(f"{REFUSED_INTRODUCTION}\n| option | value |\n|---|---|\n{refused}\n")
    return "\n".join(parts)


def main(argv: list[str]) -> int:
    """Write the page, or compare it when `argv` is `--check`."""
    if argv not in ([], ["--check"]):
        print("usage: generate_reference.py [--check]", file=sys.stderr)
        return 2
    page = options_page()
    if argv:
        if OPTIONS_FILE.exists() and OPTIONS_FILE.read_text(encoding="utf-8") == page:
            return 0
        print(f"{OPTIONS_FILE.relative_to(ROOT)} is out of date: run tools/generate_reference.py", file=sys.stderr)
        return 1
    OPTIONS_FILE.parent.mkdir(parents=True, exist_ok=True)
    OPTIONS_FILE.write_text(page, encoding="utf-8")
    return 0


def _row(flag: Flag) -> str:
    value = "" if not flag.placeholder else f"`{flag.placeholder}`"
    default = f"`{flag.default}`" if flag.default else ""
    return f"| {_names(flag)} | {value} | {default} | {flag.meaning} |"


def _names(flag: Flag) -> str:
    return ", ".join(f"`{flag.dashed(name)}`" for name in flag.names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
