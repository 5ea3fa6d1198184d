# SPDX-License-Identifier: Apache-2.0
"""Check a dataset, group near duplicates and split it: what training and evaluation read."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.data.check import dataset_folder
from bundle.data.prepare import count_table, prepare
from bundle.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "dataset", type=Path, help="folder with benign/ malignant/ (normal/), or with manifest.csv, or a CSV manifest"
    )
    parser.add_argument("--output", type=Path, help="folder to write to; default: data/prepared/<dataset folder name>")
    parser.add_argument(
        "--split", default="15:5:80", help="training:validation:test; default: %(default)s, as in the paper"
    )
    parser.add_argument("--folds", type=int, help="also write a datalist per fold of a cross-validation")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws another split; default: %(default)s")
    parser.add_argument("--skip-bad", action="store_true", help="leave bad files out and list them in cases.json")
    options = parser.parse_args(argv)
    output = options.output or Path("data/prepared") / dataset_folder(options.dataset).resolve().name
    try:
        prepare(
            options.dataset,
            output,
            split=options.split,
            folds=options.folds,
            seed=options.seed,
            skip_bad=options.skip_bad,
        )
        print(count_table(output))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"Written to {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
