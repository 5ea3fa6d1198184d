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
    parser.add_argument(
        "--explain", action="store_true", help="also draw where the classifier saw malignancy (Grad-CAM)"
    )
    parser.add_argument("--models", type=Path, default=ROOT / "models", metavar="DIR", help="default: models")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 …; default: a GPU where there is one")
    options = parser.parse_args(argv)
    if options.explain and not options.output:
        parser.error("--explain draws pictures; say where to with --output DIR")

    from tqdm import tqdm  # after the arguments: torch and MONAI take seconds to import

    from bundle.data.folder import SOME_CASES_FAILED, list_images
    from bundle.outputs.findings import name_below, write_findings, write_pictures
    from bundle.outputs.handler import output_name
    from bundle.predictor import Predictor

    images: list[tuple[Path, Path]] = []  # each with the folder that its name is relative to
    skipped: list[tuple[InputError, Path]] = []
    for given in options.inputs:
        if given.is_dir():
            found = list_images(given, options.output)
            images += [(Path(path), given) for path in found.readable]
            skipped += [(bad, given) for bad in found.skipped]
        else:
            images.append((given, given.parent))
    if options.output:
        _refuse_equal_names([(path, output_name(path, folder)) for path, folder in images])
    predictor = Predictor.from_folder(options.models, options.device, explain=options.explain)
    rows = []
    for path, folder in tqdm(images, desc="predicting", unit="image", disable=len(images) < 2):
        try:
            finding = predictor.predict(path)
        except InputError as error:
            skipped.append((error, folder))
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
        write_findings(rows, [name_below(*bad) for bad in skipped], options.output)
        print(f"Written: {options.output / 'findings.json'}")
    for bad_file, _ in skipped:
        print(f"skipped: {bad_file}", file=sys.stderr)
    print("Research software, not a medical device.")
    if skipped and not rows:
        raise UserError("no image could be used; see the lines above")
    return SOME_CASES_FAILED if skipped else 0


def _refuse_equal_names(images: list[tuple[Path, Path]]) -> None:
    """Refuse inputs whose masks and overlays would overwrite each other."""
    seen: dict[Path, Path] = {}
    for path, name in images:
        if name in seen:
            raise UserError(f"{seen[name]} and {path} would both be written as {name}; give them in two runs")
        seen[name] = path


if __name__ == "__main__":
    sys.exit(main())
