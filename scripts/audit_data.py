# SPDX-License-Identifier: Apache-2.0
"""Audit a dataset: near duplicates, conflicting labels and contours, drawn marks, unusual sizes; with pictures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "dataset", type=Path, help="folder with benign/ malignant/ (normal/), or with manifest.csv, or a CSV manifest"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="gets groups.csv, audit.json and audit.html"
    )
    options = parser.parse_args(argv)

    from bundle.audit.dataset import audit_dataset  # after the arguments: it loads torch, which takes seconds

    audit = audit_dataset(options.dataset, options.output)
    print(
        f"{audit['images']} images; {audit['repeated_images']} share their scene with others, in "
        f"{audit['repeated_groups']} groups, {len(audit['label_conflicts'])} of them in several classes"
    )
    print(
        f"contours of one frame that disagree: {audit['contours_that_disagree']} of {len(audit['contours'])}; "
        f"sets of equal files: {len(audit['equal_files'])}; with colour: {len(audit['coloured'])}; "
        f"with caliper marks: at least {len(audit['calipers'])}; of unusual size: {len(audit['outlier_sizes'])}; "
        f"bad files: {len(audit['skipped'])}"
    )
    print(f"Written in {audit['seconds']:.0f} s; look at {options.output / 'audit.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
