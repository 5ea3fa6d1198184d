# SPDX-License-Identifier: Apache-2.0
"""Write both networks as TorchScript, ONNX, torch.export and safetensors; each is loaded again, run and compared."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors

ROOT = Path(__file__).resolve().parents[1]
FORMATS = ("torchscript", "onnx", "torch.export", "safetensors")


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Returns 0, 1 if an export computes something else than its network, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--models",
        type=Path,
        default=ROOT / "models",
        metavar="DIR",
        help="default: models; models/paper for paper_model.pt and its fellows there",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="gets the files and exports.json")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS), help="default: all")
    options = parser.parse_args(argv)

    from bundle.release.export import (  # after the arguments: torch takes seconds to import
        MAX_DIFFERENCE,
        export_networks,
    )

    entries = export_networks(options.models, options.output, options.formats)
    for entry in entries:
        verdict = "" if entry["ok"] else f", more than {MAX_DIFFERENCE:g}: removed"
        print(f"{entry['file']:>30}: largest difference of a logit {entry['largest_difference']:.2g}{verdict}")
    return int(not all(entry["ok"] for entry in entries))


if __name__ == "__main__":
    sys.exit(main())
