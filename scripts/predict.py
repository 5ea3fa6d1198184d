# SPDX-License-Identifier: Apache-2.0
"""Find the lesion in breast ultrasound images and estimate the probability of malignancy. Research software only."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.config import one_line_errors
from bundle.errors import InputError, UserError

ROOT = Path(__file__).resolve().parents[1]


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Returns 0, 2 for a user's mistake, 3 if some images could not be used and the others are done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", nargs="+", type=Path, metavar="FILE_OR_FOLDER", help="images, or folders of images")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write findings.json, findings.csv, masks, overlays")
    parser.add_argument("--models", type=Path, default=ROOT / "models", metavar="DIR", help="default: models")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 …; default: a GPU where there is one")
    options = parser.parse_args(argv)

    from tqdm import tqdm  # after the arguments: torch and MONAI take seconds to import

    from bundle.data.folder import SOME_CASES_FAILED, list_images
    from bundle.outputs.findings import write_findings, write_pictures
    from bundle.outputs.handler import output_name
    from bundle.predictor import Predictor

    images: list[tuple[Path, Path]] = []  # each with the folder that its name is relative to
    skipped: list[InputError] = []
    for given in options.inputs:
        if given.is_dir():
            found = list_images(given)
            images += [(Path(path), given) for path in found.readable]
            skipped += found.skipped
        else:
            images.append((given, given.parent))
    predictor = Predictor.from_folder(options.models, options.device)
    rows = []
    for path, folder in tqdm(images, desc="predicting", unit="image", disable=len(images) < 2):
        try:
            finding = predictor.predict(path)
        except InputError as error:
            skipped.append(error)
            continue
        name = output_name(path, folder)
        if options.output:
            write_pictures(finding, name, options.output)
        rows.append({**finding.as_dict(), "image": name.as_posix()})
        warnings = "".join(f"\n    warning: {warning}" for warning in finding.warnings)
        tqdm.write(
            f"{path}: P(malignant) {finding.probability:.3f}, lesion of {finding.lesion['long_axis_px']:.0f} × "
            f"{finding.lesion['short_axis_px']:.0f} px at {finding.box}{warnings}"
        )
    if options.output:
        write_findings(rows, [bad.as_dict() for bad in skipped], options.output)
        print(f"Written: {options.output / 'findings.json'}")
    for bad_file in skipped:
        print(f"skipped: {bad_file}", file=sys.stderr)
    print("Research software, not a medical device.")
    if skipped and not rows:
        raise UserError("no image could be used; see the lines above")
    return SOME_CASES_FAILED if skipped else 0


if __name__ == "__main__":
    sys.exit(main())
