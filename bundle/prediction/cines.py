# SPDX-License-Identifier: Apache-2.0
"""The finding of a file of several frames, made of those of the frames that were looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bundle.evaluation.cine import RULE, CineFinding, Look, follow
from bundle.finding import FOUND, UNUSABLE

_LOST = {"jumps": "jump", "creeps": "creep"}
"""What is told of outlines that are not on a lesion that is followed."""


class CineSummary:
    """Gathers what is needed of each frame's finding, so that memory does not grow with masks.

    Args:
        file: name of the source in the results.
        frames: how many it holds.
    """

    def __init__(self, file: str, frames: int) -> None:
        self.file, self.frames = file, frames
        self.unusable = 0
        self._looks: dict[int, Look] = {}
        self._more: dict[int, dict[str, Any]] = {}
        self._thresholds: dict[str, float] = {}

    @property
    def looked_at(self) -> int:
        """How many frames were."""
        return len(self._looks)

    def add(self, image: str, finding: Mapping[str, Any]) -> None:
        """Take note of the finding, as plain JSON, of one frame, called ``image`` in the results."""
        frame = finding["frame"]
        self.unusable += finding["lesion_state"] == UNUSABLE
        self._looks[frame] = Look.of(finding)
        self._more[frame] = {
            "image": image,
            "lesion_state": finding["lesion_state"],
            "area_mm2": (finding["lesion"] or {}).get("area_mm2"),
        }
        self._thresholds = {name: point["threshold"] for name, point in finding["decisions"].items()}

    def as_dict(self) -> dict[str, Any]:
        """What the frames come to, as plain JSON.

        Returns:
            "file", "frames", "looked_at", "unusable"; "most_suspicious" ("image", "frame", "probability",
            "lesion_state") or None; "probability" of the cine, by "rule" of `bundle.evaluation.cine.AGGREGATES`, or
            None, and "decisions" by it; "followed", "jumps", "creeps" and "other_tracks": frames whose outlines make
            that probability, belong to no track, went on from a track and lost what it follows, or belong to other
            tracks; "curve": per frame "frame", "image", "lesion_state", "probability", "area_px", "area_mm2",
            "centroid_px", "contrast", and "smooth_area_px", "smooth_centroid_px" of those on a track.
        """
        finding = follow(list(self._looks.values()))
        followed = [finding.looks[index].frame for index in finding.followed]
        jumps, creeps = (
            [look.frame for look, told in zip(finding.looks, flags, strict=True) if told]
            for flags in (finding.jumps, finding.creeps)
        )
        others = [finding.looks[index].frame for track in finding.tracks[1:] for index in track]
        return {
            **{"file": self.file, "frames": self.frames, "looked_at": self.looked_at, "unusable": self.unusable},
            "most_suspicious": self._most_suspicious(finding, followed),
            **{"probability": finding.probability, "rule": RULE, "decisions": self._decide(finding.probability)},
            **{"followed": followed, "jumps": jumps, "creeps": creeps, "other_tracks": sorted(others)},
            "curve": self._curve(finding),
        }

    def _most_suspicious(self, finding: CineFinding, followed: Sequence[int]) -> dict[str, Any] | None:
        """The frame of the highest probability among those that are followed, a doubtful one only where no other is."""
        best = max(
            (look for look in finding.looks if look.probability is not None),
            key=lambda look: (
                look.frame in followed,
                self._more[look.frame]["lesion_state"] == FOUND,
                look.probability,
            ),
            default=None,
        )
        if best is None:
            return None
        more = self._more[best.frame]
        told = {"frame": best.frame, "probability": best.probability, "lesion_state": more["lesion_state"]}
        return {"image": more["image"], **told}

    def _decide(self, probability: float | None) -> dict[str, dict[str, Any]]:
        return {
            name: {
                "threshold": threshold,
                "decision": None if probability is None else "malignant" if probability >= threshold else "benign",
            }
            for name, threshold in self._thresholds.items()
        }

    def _curve(self, finding: CineFinding) -> list[dict[str, Any]]:
        return [
            {
                **{"frame": look.frame, "image": self._more[look.frame]["image"]},
                **{"lesion_state": self._more[look.frame]["lesion_state"], "probability": look.probability},
                **{"area_px": look.area, "area_mm2": self._more[look.frame]["area_mm2"]},
                **{"centroid_px": look.centroid, "contrast": look.contrast},
                **{"smooth_area_px": area, "smooth_centroid_px": centroid},
            }
            for look, area, centroid in zip(finding.looks, finding.areas, finding.centroids, strict=True)
        ]


def line_of(cine: Mapping[str, Any]) -> str:
    """What a terminal shows of a cine."""
    blank = f", {cine['unusable']} of them unusable" if cine["unusable"] else ""
    looked = f"{cine['file']}: {cine['looked_at']} of {cine['frames']} frames{blank}"
    best = cine["most_suspicious"]
    if best is None:
        return f"{looked}; none shows a lesion"
    lost = "".join(f", {len(cine[key])} outlines {verb}" for key, verb in _LOST.items() if cine[key])
    whole = f"P(malignant) {cine['probability']:.3f}, {cine['rule']} of {len(cine['followed'])} that follow it{lost}"
    return f"{looked}; {whole}; most suspicious: frame {best['frame']}, P(malignant) {best['probability']:.3f}"
