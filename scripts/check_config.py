# SPDX-License-Identifier: Apache-2.0
"""Check config files before they run: one line per fault, with the nearest valid names."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bundle.config import one_line_errors
from bundle.errors import UserError

_EPILOG = """\
An overlay is merged over the files that its comment line `# overlay of: train.json` names, or over --base.
Macros `%file::id` are looked for from the working directory, as MONAI does: run this from the bundle root.
Only check configs that you trust: their imports and expressions are executed.
Exit codes: 0 all are well, 1 faults were found, 2 a file is missing or the command line is wrong.
"""


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Print `FILE: ok` or one line per fault for every file; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="JSON or YAML config")
    parser.add_argument("--base", action="append", default=[], type=Path, help="merge FILE over this one (repeatable)")
    parser.add_argument(
        "--override", nargs="+", default=[], metavar="ID=VALUE", help="as on monai.bundle's command line: max_epochs=3"
    )
    parser.add_argument("--no-instantiate", action="store_true", help="do not build networks, losses, transforms …")
    args = parser.parse_args(argv)

    from bundle.config.check import check_file  # after the arguments: torch and MONAI take seconds to import

    overrides = _overrides(args.override)
    found = {file: check_file(file, args.base, overrides, not args.no_instantiate) for file in args.files}
    for file, faults in found.items():
        for where, message in faults:
            print(f"{file}: {where}: {message}" if where else f"{file}: {message}")
        if not faults:
            print(f"{file}: ok")
    return int(any(found.values()))


def _overrides(pairs: list[str]) -> dict[str, object]:
    from fire.parser import DefaultParseValue  # so that a value means here what it means to monai.bundle

    for pair in pairs:
        if "=" not in pair.lstrip("="):
            raise UserError(f"--override {pair}: no value given; write ID=VALUE, for example max_epochs=3")
    return {key: DefaultParseValue(value) for key, _, value in (pair.partition("=") for pair in pairs)}


if __name__ == "__main__":
    raise SystemExit(main())
