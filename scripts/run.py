# SPDX-License-Identifier: Apache-2.0
"""Run configs through monai.bundle after checking them: wrong file names, ids and arguments are named, not run.

`python scripts/run.py configs/train.json --max_epochs 3` does what `python -m monai.bundle run training --config_file
configs/train.json --max_epochs 3` does. Several configs are merged, the later over the earlier. Relative paths are
those of the folder that it is called in; what no path names lies in the bundle's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import find_config, one_line_errors
from bundle.config.typed import resolve_paths, text_values, typed_overrides
from bundle.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Returns the run's exit code, or 2 when a config or an override is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", type=Path, metavar="CONFIG", help="such as configs/train.json")
    parser.add_argument("overrides", nargs=argparse.REMAINDER, metavar="--id value", help="such as --max_epochs 3")
    options, unknown = parser.parse_known_args(argv)
    words = [*unknown, *options.overrides]
    if len(words) % 2 or not all(word.startswith("--") for word in words[::2]):
        raise UserError(f"overrides '{' '.join(words)}': give them as --id value")

    from fire.parser import DefaultParseValue  # so that a value means here what it means to monai.bundle

    from bundle.config.check import check_file  # after the arguments: torch and MONAI take seconds to import

    words = resolve_paths(words, Path.cwd())
    overrides = {word[2:]: DefaultParseValue(value) for word, value in zip(words[::2], words[1::2], strict=True)}
    # The guard of the run takes them as typed, whatever MONAI makes of a "#".
    overrides |= {id_: "path" for id_ in text_values(typed_overrides(words))}
    options.configs = [find_config(path, ROOT) for path in options.configs]
    *bases, last = options.configs
    faults = check_file(last, bases, overrides, instantiate=False)
    if faults:
        raise UserError(
            " | ".join(f"{last}: {f'{fault.where}: ' if fault.where else ''}{fault.message}" for fault in faults)
        )
    files = [str(path.resolve()) for path in options.configs]
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run"]
    command += ["--config_file", files[0] if len(files) == 1 else str(files), *words]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
