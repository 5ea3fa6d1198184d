# SPDX-License-Identifier: Apache-2.0
"""Prepare the folder that a hub of models shows, with its model card, and upload it to the Hugging Face hub."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors

ROOT = Path(__file__).resolve().parents[1]


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for a user's mistake or a refusal of the hub."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", metavar="OWNER/NAME", help="on the hub; made where it is not there yet")
    parser.add_argument("--output", type=Path, default=Path("dist/hub"), metavar="DIR", help="default: dist/hub")
    parser.add_argument("--public", action="store_true", help="a new repository is private without it")
    parser.add_argument("--dry-run", action="store_true", help="write the folder and say what would be uploaded")
    options = parser.parse_args(argv)

    from bundle.files import read_json  # after the arguments: torch takes seconds to import
    from bundle.release.hub import prepare_folder, upload

    names = prepare_folder(ROOT, options.output)
    size = sum((options.output / name).stat().st_size for name in names)
    what = f"{len(names)} files, {size / 1e6:.1f} MB, to {options.repository}"
    if options.dry_run:
        print("\n".join(f"{(options.output / name).stat().st_size:>9} {name}" for name in names))
        print(f"{options.output}: would upload {what} ({'public' if options.public else 'private'})")
        return 0
    version = read_json(ROOT / "configs" / "metadata.json")["version"]
    print(f"Uploaded {what}: {upload(options.output, options.repository, not options.public, f'Version {version}')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
