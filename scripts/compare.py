# SPDX-License-Identifier: Apache-2.0
"""Compare two models on the same images: the difference of each score, with its interval and p-value."""

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
    parser.add_argument("first", type=Path, help="RUN_FOLDER/evaluation/per_image.csv of one model")
    parser.add_argument("second", type=Path, help="the same of the other")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the comparison as JSON")
    options = parser.parse_args(argv)

    from bundle.evaluation.comparison import compare_tables  # after the arguments: it loads torch
    from bundle.files import write_json
    from bundle.provenance import describe_run

    result = compare_tables(options.first, options.second)
    print(
        f"{result['images']} images in {result['groups']} groups; "
        f"left out: {result['only_first']} and {result['only_second']} that only one of them has"
    )
    for name, score in result["scores"].items():
        known = {key: "–" if value is None else f"{value:.4f}" for key, value in score["difference"].items()}
        print(
            f"{name:>18}: {score['first']:.4f} and {score['second']:.4f}, difference {known['estimate']} "
            f"[{known['low']}, {known['high']}], p {known['p_value']} ({score['method']})"
        )
    if options.output:
        write_json(options.output, {**result, "provenance": describe_run()})
        print(f"Written: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
