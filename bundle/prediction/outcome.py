# SPDX-License-Identifier: Apache-2.0
"""What becomes of the cases of a run over many files, one by one and together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bundle import __version__
from bundle.data.walk import passed_over_line
from bundle.errors import InputError
from bundle.finding import UNUSABLE
from bundle.outputs.findings import title_of_state, write_findings_csv, write_findings_json
from bundle.outputs.records import Findings, Records
from bundle.prediction.cines import CineSummary, line_of


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Args:
        name: of the image, or of the frame, in the results.
        source: the file's name in the results.
        frames: how many the file holds.
        finding: as plain JSON; None where it failed.
        error: why it failed.
        refused: outputs that its source does not allow, each with the reason.
        resumed: it was done by an earlier run.
        ends_file: no further frame of its file follows.
        passed_over: kind of a file in a folder that is no image and was not meant to be; "" for all others.
    """

    name: str
    source: str
    frames: int = 1
    finding: dict[str, Any] | None = None
    error: InputError | None = None
    refused: Sequence[dict[str, str]] = ()
    resumed: bool = False
    ends_file: bool = True
    passed_over: str = ""

    def line(self) -> str | None:
        """What a terminal shows of it; nothing of what an earlier run has done."""
        if self.error is not None:
            return f"skipped: {self.error}"
        if self.finding is None or self.resumed:
            return None
        warnings = "".join(f"\n    warning: {warning}" for warning in self.finding["warnings"])
        lesion, spacing = self.finding["lesion"], self.finding["spacing_mm"]
        if lesion is None:
            return f"{self.name}: {title_of_state(self.finding['lesion_state'], None)}{warnings}"
        unit, digits = ("px", 0) if spacing is None else ("mm", 1)
        axes = " × ".join(f"{lesion[f'{axis}_axis_{unit}']:.{digits}f}" for axis in ("long", "short"))
        return (
            f"{self.name}: P(malignant) {self.finding['probability']:.3f}, lesion of {axes} {unit} "
            f"at {tuple(self.finding['box'])}{warnings}"
        )


class Summary:
    """What a run came to, gathered outcome by outcome: names and counts, no findings.

    Args:
        passed_over: how many files of the folders were none of the inputs, by kind.
        computed_by: what computed the networks, for the record, see `Predictor.computed_by`.
    """

    def __init__(
        self,
        passed_over: Mapping[str, int] = MappingProxyType({}),
        computed_by: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.computed_by = dict(computed_by)
        self.names: list[str] = []
        self.skipped: list[dict[str, str]] = []
        self._cines: dict[str, CineSummary] = {}
        self.refused: dict[tuple[str, str], list[str]] = {}
        self.blank: list[str] = []
        self.resumed = 0
        self.passed_over = Counter(passed_over)

    def add(self, outcome: Outcome) -> None:
        """Take note of one outcome."""
        if outcome.error is not None:
            bad = outcome.error
            self.skipped.append({"path": outcome.source, "reason": bad.reason, "mend": bad.mend})
        if outcome.passed_over:
            self.passed_over[outcome.passed_over] += 1
        if outcome.finding is None:
            return
        self.names.append(outcome.name)
        self.resumed += outcome.resumed
        for refusal in outcome.refused:
            self.refused.setdefault((refusal["output"], refusal["reason"]), []).append(outcome.name)
        if outcome.frames > 1:
            cine = self._cines.setdefault(outcome.source, CineSummary(outcome.source, outcome.frames))
            cine.add(outcome.name, outcome.finding)
        elif outcome.finding["lesion_state"] == UNUSABLE:
            self.blank.append(outcome.name)

    @property
    def unusable(self) -> list[str]:
        """Images that show nothing, and files of several frames of which none that was looked at shows anything."""
        blank = (cine.file for cine in self._cines.values() if cine.unusable == cine.looked_at)
        return [*self.blank, *blank]

    @property
    def usable(self) -> bool:
        """Whether any image was of use."""
        frames = sum(cine.unusable for cine in self._cines.values())
        return len(self.names) > len(self.blank) + frames

    @property
    def cines(self) -> dict[str, dict[str, Any]]:
        """What the files of several frames come to, by their names; see `CineSummary`."""
        return {name: cine.as_dict() for name, cine in self._cines.items()}

    def not_written(self) -> list[dict[str, Any]]:
        """Outputs that sources do not allow: {"output", "reason", "images"}."""
        return [
            {"output": output, "reason": reason, "images": names} for (output, reason), names in self.refused.items()
        ]

    def lines(self) -> list[str]:
        """What a terminal shows at the end, one line per matter."""
        lines = [f"{self.resumed} done by an earlier run and kept; --again redoes them"] if self.resumed else []
        lines += [line] if (line := passed_over_line(self.passed_over)) else []
        lines += [line_of(cine) for cine in self.cines.values()]
        by_reason: dict[tuple[str, int], list[str]] = {}
        for refusal in self.not_written():
            by_reason.setdefault((refusal["reason"], len(refusal["images"])), []).append(refusal["output"])
        lines += [f"no {', '.join(outputs)} of {n} image(s): {reason}" for (reason, n), outputs in by_reason.items()]
        return lines

    def finish(self, output: Path, outputs: Sequence[str]) -> list[Path]:
        """Write the tables and the report of all findings from their records; returns what was written.

        Raises:
            InputError: a record is gone, or a file cannot be written.
        """
        findings = Findings(Records(output), self.names)
        written = []
        if "json" in outputs:
            more = {
                **{"bundle_version": __version__, "skipped": self.skipped, "cines": list(self.cines.values())},
                "not_written": self.not_written(),
                **({"computed_by": self.computed_by} if self.computed_by else {}),
            }
            written.append(output / "findings.json")
            write_findings_json(findings, written[-1], more)
        if "csv" in outputs:
            written.append(output / "findings.csv")
            write_findings_csv(findings, written[-1])
        if "parquet" in outputs:
            from bundle.outputs.parquet import write_findings_parquet

            written.append(output / "findings.parquet")
            write_findings_parquet(findings, self.skipped, written[-1])
        if {"html", "pdf"} & set(outputs):
            from bundle.outputs.findings_page import write_findings_report  # which needs jinja2

            written += write_findings_report(findings, self.skipped, list(self.cines.values()), output, outputs)
        return written
