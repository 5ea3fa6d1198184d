# SPDX-License-Identifier: Apache-2.0
"""One answer per examination: what the images of a study came to, per breast."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bundle import __version__
from bundle.errors import InputError
from bundle.evaluation.cine import RULE
from bundle.evaluation.classification import name_point
from bundle.evaluation.examination import examination_probability
from bundle.evaluation.external import RULES
from bundle.files import write_atomically, write_json
from bundle.finding import NOT_A_DEVICE
from bundle.outputs.dicom import write_dicom
from bundle.outputs.dicom_study_sr import make_study_report
from bundle.outputs.records import Records
from bundle.prediction.cines import CineSummary
from bundle.readers.dicom import read_header
from bundle.reports.html import stream_html
from bundle.serving.local_predictions import read_answer
from bundle.serving.queue import FAILED, TROUBLE, WAITING, Answer, Queue

SIDES = ("R", "L", "")
"""Right, left, and images whose header does not tell."""

logger = logging.getLogger(__name__)

_IMAGES = (
    f"Probabilities were calibrated on single images. A cine counts once, with the {RULE} over the frames that follow "
    "its lesion. "
)
NOTE = (
    f"{_IMAGES}The highest of several images is higher than that of one, and neither it nor the mean is calibrated for "
    "a patient."
)
NOTE_CALIBRATED = (
    "{images}That of the examination is their {rule}, calibrated on {patients} patients with {most} images at most; "
    "the highest and the mean are not calibrated for a patient."
)


def summarise_quiet_studies(
    queue: Queue, quiet: float, card: Mapping[str, Any] | None = None, now: float | None = None
) -> int:
    """Summarise each study of which nothing came for some time and no image waits; returns how many.

    Args:
        queue: of the node.
        quiet: seconds without a further image.
        card: of the classifier, see `summarise_study`.
        now: seconds since the epoch; for tests.

    Raises:
        InputError: a summary cannot be written.
    """
    now = time.time() if now is None else now
    rows = queue.all(
        "select uid, last_image, summaries from studies s where is_open and last_image <= ? "
        "and not exists (select 1 from images where study = s.uid and state = ?)",
        *(now - quiet, WAITING),
    )
    for uid, last_image, summaries in rows:
        try:
            _summarise(queue, str(uid), float(last_image), int(summaries) + 1, card)
        except InputError:  # of the disk: it is tried again
            raise
        except Exception:
            logger.exception("a study could not be summarised")
            queue.note(TROUBLE, "a study could not be summarised, see the node's log")
            queue.close_study(str(uid), [], float(last_image))
    return len(rows)


def _summarise(queue: Queue, study: str, last_image: float, number: int, card: Mapping[str, Any] | None) -> None:
    images = _images_of(queue, study)
    summary = summarise_study(images, card)
    failed = queue.all("select reason from images where study = ? and state = ?", study, FAILED)
    summary = {**summary, "number": number, "not_used": [str(reason) for (reason,) in failed]}
    folder = queue.answers / "studies"
    write_json(folder / f"{study}.json", {"study": study, **summary})
    page = "".join(stream_html("study.html", summary=summary, synthetic=False, version=__version__))
    write_atomically(folder / f"{study}.html", page)
    queue.close_study(study, _report(queue, study, images, summary), last_image)


def _report(queue: Queue, study: str, images: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> list[Answer]:
    """Write the summary as an SR, which belongs to the study; none where no image could be predicted or is whole."""
    if not images:
        return []
    path = queue.answers / "studies" / f"{study}.{summary['number']}.sr.dcm"
    try:
        headers = {image["uid"]: read_header(queue.path(image["uid"])) for image in images}
        write_dicom(make_study_report(summary, images, headers), path)
    except InputError as error:
        if error.path != str(path):
            queue.note(TROUBLE, f"no SR of a study: {error.reason}")
            return []
        raise
    return [read_answer(queue.folder, path)]


def _images_of(queue: Queue, study: str) -> list[dict[str, Any]]:
    """Each image of a study that was predicted: its UID, its side, and the findings of its frames."""
    records = Records(queue.answers)
    rows = queue.all(
        "select i.uid, i.side, c.name from images i join cases c on c.image = i.uid where i.study = ? "
        "order by i.number, c.rowid",
        study,
    )
    images: dict[str, dict[str, Any]] = {}
    for uid, side, name in rows:
        image = images.setdefault(str(uid), {"uid": uid, "side": side, "findings": []})
        image["findings"].append(records.read(str(name))["finding"])
    return list(images.values())


def summarise_study(images: Sequence[Mapping[str, Any]], card: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Say what the images of one study came to, for each side that a header tells.

    An image counts once: a cine with the probability of the outlines that follow its lesion. An image without an
    outlined lesion has no probability and enters none of the rules.

    Args:
        images: "uid", "side" ("L", "R" or "") and "findings", of its frames, as plain JSON.
        card: of the classifier. Where it has an `examination`, see `bundle.evaluation.examination`, and made all of the
            findings, a side's images have a calibrated probability as well.

    Returns:
        "sides": by side, the number of "images" and of those "with_lesion", the "most_suspicious" ("uid", "frame",
        "probability", "decisions", "call", "warnings"; of a cine those of its most suspicious frame,
        and "cine" with its own probability) or None, and "probability" by each rule of
        `bundle.evaluation.external.RULES`; "note", "notice", "bundle_version". With a calibration also
        "probability" by "examination", "decisions" at its operating points, and "beyond_fit": whether there are more
        images than of any patient that it was fitted on.
    """
    calibration = _calibration_for(images, card)
    sides: dict[str, dict[str, Any]] = {}
    for side in (side for side in SIDES if any(image["side"] == side for image in images)):
        of_side = [image for image in images if image["side"] == side]
        chosen = [shown for image in of_side if (shown := _most_suspicious(image)) is not None]
        probabilities = [_probability(shown) for shown in chosen]
        best = max(chosen, key=_probability, default=None)
        sides[side] = {
            **{"images": len(of_side), "with_lesion": len(chosen)},
            "most_suspicious": best,
            "probability": {rule: join(probabilities) if chosen else None for rule, join in RULES.items()},
        }
        if calibration is not None:
            _add_examination(sides[side], probabilities, calibration)
    note = NOTE
    if calibration is not None:
        on = calibration["fitted_on"]
        numbers = {"rule": calibration["rule"], "patients": on["patients"], "most": on["most_images"]}
        note = NOTE_CALIBRATED.format(images=_IMAGES, **numbers)
    return {"sides": sides, "note": note, "notice": NOT_A_DEVICE, "bundle_version": __version__}


def _calibration_for(images: Sequence[Mapping[str, Any]], card: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What the card says of examinations; None where it says nothing, or other weights made a finding, or a site's
    calibration did, for which it was not fitted."""
    calibration: Mapping[str, Any] | None = (card or {}).get("examination")
    made = [finding for image in images for finding in image["findings"]]
    fits = all(each["models"].get("classifier") == (card or {}).get("sha256") and not each.get("site") for each in made)
    return calibration if made and fits else None


def _add_examination(side: dict[str, Any], probabilities: Sequence[float], calibration: Mapping[str, Any]) -> None:
    value = examination_probability(calibration, probabilities) if probabilities else None
    side["probability"]["examination"] = value
    side["decisions"] = {
        name_point(point["sensitivity_wish"]): {
            "threshold": point["threshold"],
            "decision": None if value is None else ("malignant" if value >= point["threshold"] else "benign"),
        }
        for point in calibration["operating_points"]
    }
    side["beyond_fit"] = len(probabilities) > calibration["fitted_on"]["most_images"]


def _most_suspicious(image: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is told of an image with an outline: of a cine the frame that answers for it, and its own probability."""
    findings = image["findings"]
    cine = CineSummary(image["uid"], len(findings))
    for finding in findings:
        cine.add("", finding)
    told = cine.as_dict()
    best = told["most_suspicious"]
    if best is None:
        return None
    (shown,) = (finding for finding in findings if finding["frame"] == best["frame"])
    keys = ("frame", "probability", "decisions", "call", "lesion", "spacing_mm", "warnings", "models", "site")
    of_cine = None if best["frame"] is None else told["probability"]
    return {"uid": image["uid"], **{key: shown.get(key) for key in keys}, "cine": of_cine}


def _probability(shown: Mapping[str, Any]) -> float:
    """Of an image, or of a cine as a whole."""
    return float(shown["probability"] if shown["cine"] is None else shown["cine"])
