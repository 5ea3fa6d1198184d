# SPDX-License-Identifier: Apache-2.0
"""Ask how far the findings depend on how grey values were stored: other depths, ranges, offsets and gammas.

Every picture is stored anew and read as a file would be; its finding is compared with that of the plain 8-bit PNG.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors

ROOT = Path(__file__).resolve().parents[1]


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="a dataset's folder or manifest; its lesions are asked about")
    parser.add_argument("--models", type=Path, default=ROOT / "models", metavar="DIR", help="default: models")
    parser.add_argument("--images", type=int, default=40, help="drawn at random, seed 0; default: %(default)s")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the result, JSON")
    options = parser.parse_args(argv)

    from tqdm import tqdm

    from bundle.audit.grey import audit_grey  # after the arguments: torch takes seconds to import
    from bundle.data.check import check_dataset
    from bundle.files import write_json
    from bundle.prediction import Predictor
    from bundle.provenance import describe_run

    found = check_dataset(options.dataset, skip_bad=True)
    images = [str(options.dataset / case.image) for case in found.cases if case.masks]
    random.Random(0).shuffle(images)
    predictor = Predictor.from_folder(options.models, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        result = audit_grey(tqdm(images[: options.images], unit="image"), predictor.predict, Path(folder))
    told = {"dataset": found.name, "synthetic": found.synthetic, "dataset_sha256": found.dataset_sha256}
    write_json(options.output, {**result, **told, "weights": predictor.classifier.models, "provenance": describe_run()})
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
