# SPDX-License-Identifier: Apache-2.0
"""Pack the bundle as the zip that a model zoo hosts, and try it: unpacked elsewhere it must find lesions on its own."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors

ROOT = Path(__file__).resolve().parents[1]


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for a user's mistake or a package that does not run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("dist"), metavar="DIR", help="default: dist")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--python", default=sys.executable, help="of the environment to try it in; default: this one")
    where.add_argument(
        "--fresh-environment", action="store_true", help="try it in a new one that holds what metadata.json pins alone"
    )
    where.add_argument("--no-try", action="store_true", help="write it only")
    options = parser.parse_args(argv)

    from bundle.files import read_json, sha256_of  # after the arguments: torch takes seconds to import
    from bundle.release.package import list_files, make_environment, try_package, write_package

    package = write_package(ROOT, options.output)
    size = package.stat().st_size / 1e6
    print(f"{package}: {len(list_files(ROOT))} files, {size:.1f} MB, sha256 {sha256_of(package)}")
    if options.no_try:
        return 0
    python = options.python
    with tempfile.TemporaryDirectory(prefix="environment-") as folder:
        if options.fresh_environment:
            started = time.monotonic()
            python = make_environment(read_json(ROOT / "configs" / "metadata.json"), folder)
            print(f"environment made from the metadata's pins in {time.monotonic() - started:.0f} s")
        started = time.monotonic()
        found = try_package(package, python)
    seconds = time.monotonic() - started
    print(f"unpacked elsewhere, it found the lesions of {found} synthetic images in {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
