# SPDX-License-Identifier: Apache-2.0
"""Pack the bundle as the zip that a model zoo hosts, and try it: unpacked elsewhere it must find lesions on its own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors

ROOT = Path(__file__).resolve().parents[1]


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for a user's mistake or a package that does not run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("dist"), metavar="DIR", help="default: dist")
    parser.add_argument("--python", default=sys.executable, help="of the environment to try it in; default: this one")
    parser.add_argument("--no-try", action="store_true", help="write it only")
    options = parser.parse_args(argv)

    from bundle.files import sha256_of  # after the arguments: torch takes seconds to import
    from bundle.package import list_files, try_package, write_package

    package = write_package(ROOT, options.output)
    size = package.stat().st_size / 1e6
    print(f"{package}: {len(list_files(ROOT))} files, {size:.1f} MB, sha256 {sha256_of(package)}")
    if not options.no_try:
        print(f"unpacked elsewhere, it found the lesions of {try_package(package, options.python)} synthetic images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
