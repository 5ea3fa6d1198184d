# SPDX-License-Identifier: Apache-2.0
"""The summary of a study as a DICOM Structured Report (TID 1500): one measurement group for each breast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from bundle import __version__
from bundle.finding import NOT_A_DEVICE
from bundle.outputs.dicom import (
    MANUFACTURER,
    MODEL_NAME,
    SCHEME,
    algorithm_parameters,
    building,
    instance_arguments,
    load_highdicom,
    name_class_of,
    source_of,
    stand_in,
)
from bundle.outputs.dicom_sr import PERCENT_STEP, observer, round_to, separate

SERIES_NUMBER, SERIES_DESCRIPTION = 9105, "Summary of the study"
"""Beside the numbers of `bundle.outputs.dicom.SERIES`; one series for all summaries of a study."""

_SIDES = {"R": codes.SCT.Right, "L": codes.SCT.Left}
_NAMES = {"R": "right breast", "L": "left breast", "": "breast, side not told"}
_DERIVATIONS = {"max": codes.SCT.Maximum, "mean": codes.SCT.Mean}
EXAMINATION = Code("EXAMINATION", SCHEME, "Calibrated for the images of an examination together")


def make_study_report(
    summary: Mapping[str, Any], images: Sequence[Mapping[str, Any]], headers: Mapping[str, Dataset]
) -> Dataset:
    """Return a Comprehensive SR: for each side the probability of cancer, its most suspicious image and comments.

    The highest and the mean probability of a side's images are in percent, and where the weights were calibrated for
    that, the probability of all of them together. A side without an outlined lesion has no
    number, and refers to all of its images.

    Args:
        summary: "sides", "note" and "number", see `bundle.serving.study.summarise_study`.
        images: "uid", "side" and "findings" of each image.
        headers: of each image, by its UID, without pixels.

    Raises:
        InputError: a source lacks UIDs, or no SR can be made of its header.
    """
    sr, schemes = load_highdicom("highdicom.sr"), load_highdicom("highdicom.coding_schemes")
    sources = {uid: source_of(header, uid) for uid, header in headers.items()}
    models: Mapping[str, str | None] = next(
        (finding["models"] for image in images for finding in image["findings"]), {}
    )
    first = sources[images[0]["uid"]]
    with building("SR", "study"):
        groups = [_group(sr, side, content, images, sources, models) for side, content in summary["sides"].items()]
        comments = [summary["note"], f"Summary {summary['number']} of this study. {NOT_A_DEVICE}"]
        _add_comments(sr, groups[0], comments)
        content = sr.MeasurementReport(
            observation_context=observer(sr, models),
            procedure_reported=codes.SCT.UltrasonographyOfBreast,
            imaging_measurements=groups,
            title=codes.DCM.ImagingMeasurementReport,
        )
        separate(content)
        arguments = {
            **instance_arguments("SR", first, models, None),
            "series_instance_uid": generate_uid(entropy_srcs=[first.StudyInstanceUID, SERIES_DESCRIPTION, __version__]),
            "series_number": SERIES_NUMBER,
            "series_description": SERIES_DESCRIPTION,
            "instance_number": summary["number"],
        }
        dataset: Dataset = sr.ComprehensiveSR(
            evidence=[stand_in(source) for source in sources.values()],
            content=content,
            is_complete=True,
            is_final=False,
            is_verified=False,
            record_evidence=True,
            coding_schemes=[schemes.CodingSchemeIdentificationItem(SCHEME, version=__version__)],
            **arguments,
        )
        for source in sources.values():
            name_class_of(source, dataset)
    return dataset


def _group(
    sr: Any,
    side: str,
    content: Mapping[str, Any],
    images: Sequence[Mapping[str, Any]],
    sources: Mapping[str, Dataset],
    models: Mapping[str, str | None],
) -> Any:
    """One breast, as TID 1501."""
    best = content["most_suspicious"]
    shown = [best["uid"]] if best else [image["uid"] for image in images if image["side"] == side]
    frames = [best["frame"] + 1] if best and best["frame"] is not None else None
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=generate_uid(), identifier=f"Summary, {_NAMES[side]}"),
        finding_sites=[sr.FindingSite(anatomic_location=codes.SCT.Breast, laterality=_SIDES.get(side))],
        algorithm_id=sr.AlgorithmIdentification(
            name=MODEL_NAME,
            version=__version__,
            manufacturer=MANUFACTURER,
            family=codes.DCM.ArtificialIntelligence,
            parameters=algorithm_parameters(models),
        ),
        measurements=[
            sr.Measurement(
                name=codes.DCM.ProbabilityOfCancer,
                value=round_to(100 * value, PERCENT_STEP),
                unit=codes.UCUM.Percent,
                derivation=_DERIVATIONS.get(rule),
                method=EXAMINATION if rule == "examination" else None,
            )
            for rule, value in content["probability"].items()
            if value is not None
        ],
        source_images=[
            sr.SourceImageForMeasurementGroup(stand_in(sources[uid]).SOPClassUID, uid, frames) for uid in shown
        ],
    )
    counted = f"{content['images']} image(s), {content['with_lesion']} with an outlined lesion"
    warnings = [f"Warning: {warning}" for warning in best["warnings"]] if best else []
    site = [f"Calibrated for {best['site']}"] if best and best.get("site") else []
    decisions = [
        f"Examination at {name}: {told['decision']}"
        for name, told in content.get("decisions", {}).items()
        if told["decision"] is not None
    ]
    beyond = ["Warning: more images than of any patient it was calibrated on"] if content.get("beyond_fit") else []
    _add_comments(sr, group, [counted, *decisions, *beyond, *warnings, *site])
    return group


def _add_comments(sr: Any, group: Any, comments: Sequence[str]) -> None:
    group[0].ContentSequence += [
        sr.TextContentItem(codes.DCM.Comment, comment, sr.RelationshipTypeValues.CONTAINS) for comment in comments
    ]
