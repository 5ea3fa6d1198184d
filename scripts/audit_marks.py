# SPDX-License-Identifier: Apache-2.0
"""Ask a segmenter whether it takes calipers for the lesion: drawn on normal images, and moved at lesions.

The images are those that its training left for the test; nothing that it learnt from is asked about.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, nargs="+", help="one dataset, or several, as the training had them")
    parser.add_argument("--weights", type=Path, required=True, help="model.pt of a training, its card beside it")
    parser.add_argument("--prepared_dir", type=Path, required=True, help="of that training")
    parser.add_argument("--images", type=int, default=100, help="of each kind at most; default: %(default)s")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the result, JSON")
    options = parser.parse_args(argv)

    from bundle.audit.marks import audit_marks, segmenter_of  # after the arguments: torch takes seconds to import
    from bundle.data.datalists import DATALIST, load_datalist
    from bundle.files import write_json
    from bundle.networks.weights import read_card
    from bundle.provenance import describe_run
    from bundle.reports.segmentation_handler import refuse_another_split

    datalist = load_datalist(options.prepared_dir / DATALIST, options.dataset)
    refuse_another_split(read_card(options.weights), datalist, options.weights)
    records = []
    for part in ("test", "test_normal"):
        chosen = list(datalist[part])
        random.Random(0).shuffle(chosen)
        records += chosen[: options.images]
    result = audit_marks(records, segmenter_of(options.weights))
    told = {key: datalist.get(key) for key in ("name", "synthetic", "dataset_sha256", "split")}
    weights = {"weights_sha256": read_card(options.weights).get("sha256")}
    write_json(options.output, {**result, **told, **weights, "provenance": describe_run()})
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
