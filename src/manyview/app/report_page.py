"""The report as one HTML page that needs nothing else, and as JSON."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image

from manyview.app.report_graph import error_bars, graph_drawing, plain
from manyview.app.report_style import STYLE
from manyview.files import staged, write_json
from manyview.refine.pair_graph import LinkedPhoto, PairGraph
from manyview.refine.photo_reading import MeasuredPhotos
from manyview.refine.photo_report import Finding, PhotoFacts, Severity, photo_report
from manyview.refine.report import PhotoOutcome, RefineReport, Report

REPORT_JSON, REPORT_PAGE = "report.json", "report.html"
JPEG_QUALITY = 80
# Nothing may be loaded from anywhere, and no script may run, whatever a file's name is.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_SIGNS: dict[Severity, str] = {"problem": "✕", "doubt": "?", "note": "i"}
_ORDER: tuple[Severity, ...] = ("problem", "doubt", "note")
_CAMERAS = {
    "refined": "network's, refined",
    "incremental": "incremental mapping",
    "network": "network's, moved along",
    "none": "none",
}
_UNFIT = ("blurred", "plain", "duplicate")  # what more photos nearby would not help
_SHOWN_NEW_PHOTOS = 12


def save_report(
    folder: str | Path,
    report: Report,
    thumbnails: Mapping[str, np.ndarray],
    *,
    title: str = "Photo report",
    overwrite: bool = False,
) -> list[Path]:
    """Write `report.json` and `report.html` into a folder.

    Args:
        folder: made if it is missing.
        report: of `complete_report`.
        thumbnails: of `thumbnails_of`.
        title: of the page.
        overwrite: replace an earlier report of ours.

    Raises:
        ExportError: files are in the way, or the disk refuses.
    """
    folder = Path(folder)
    with staged(folder, overwrite=overwrite, last=REPORT_PAGE) as staging:
        written = write_report(staging, report, thumbnails, title=title)
    return [folder / path.name for path in written]


def complete_report(
    measured: MeasuredPhotos, *, graph: PairGraph | None = None, refined: RefineReport | None = None
) -> Report:
    """All that is known of photos; none is advised beside one that is blurred, plain or a duplicate.

    Args:
        measured: the photos.
        graph, refined: what is known beside them; their photos are found by name.
    """
    photos = photo_report(measured)
    if graph is not None:
        unfit = {photo.name for photo in photos.photos for finding in photo.findings if finding.kind in _UNFIT}
        advised = tuple(new for new in graph.worth_adding if not {new.first, new.second} & unfit)
        graph = replace(graph, worth_adding=advised)
    return Report(photos=photos, graph=graph, refined=refined)


def worst_findings(report: Report) -> list[tuple[str, Finding]]:
    """Name and worst finding, of the photo and of its links, of each photo that has any."""
    linked = _linked(report.graph)
    found = [(photo.name, _findings(photo, linked.get(photo.name))) for photo in report.photos.photos]
    return [(name, min(each, key=lambda f: _ORDER.index(f.severity))) for name, each in found if each]


def write_report(
    folder: Path, report: Report, thumbnails: Mapping[str, np.ndarray], *, title: str = "Photo report"
) -> list[Path]:
    """Write both files into a folder that is there, such as the staging folder of a larger result.

    Raises:
        ExportError: a number is not finite.
    """
    write_json(folder / REPORT_JSON, asdict(report))
    page = report_page(report, thumbnails, title=title)
    (folder / REPORT_PAGE).write_text(page, encoding="utf-8", newline="\n")
    return [folder / REPORT_JSON, folder / REPORT_PAGE]


def thumbnails_of(measured: MeasuredPhotos) -> dict[str, np.ndarray]:
    """(H, W, 3) uint8 RGB of each photo by its name."""
    return {photo.name: photo.thumbnail for photo in measured.photos}


def report_page(report: Report, thumbnails: Mapping[str, np.ndarray], *, title: str = "Photo report") -> str:
    """One HTML page with everything in it: pictures, drawings and style; it asks for nothing from outside.

    Args:
        report: what to show.
        thumbnails: (H, W, 3) uint8 RGB by the photo's name; photos without one are shown by their name.
        title: plain text.
    """
    sections = [
        _header(report, title),
        _to_know(report),
        "" if report.graph is None else _graph_section(report.graph),
        "" if report.refined is None else _refined_section(report.refined),
        _photos_section(report, thumbnails),
        _details(report),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{plain(title)}</title>\n<style>{STYLE}</style></head>\n<body>\n"
        f"{''.join(f'{section}{chr(10)}' for section in sections if section)}</body></html>\n"
    )


# ------------------------------------------------------------------ the set
def _header(report: Report, title: str) -> str:
    photos, refined = report.photos, report.refined
    tiles = [(str(len(photos.photos)), "photos read")]
    if photos.skipped:
        tiles.append((str(len(photos.skipped)), "not readable"))
    for severity, word in (("problem", "with problems"), ("doubt", "in doubt")):
        tiles.append((str(sum(worst.severity == severity for _, worst in worst_findings(report))), word))
    if report.graph is not None:
        parts = len(report.graph.components)
        tiles.append((str(parts), "connected part" if parts == 1 else "separate parts"))
    if refined is not None:
        totals = refined.totals
        tiles.append((f"{totals.registered} of {totals.photos}", "registered"))
        if totals.error_after is not None:
            before = "" if totals.error_before is None else f"{totals.error_before:.2f} → "
            tiles.append((f"{before}{totals.error_after:.2f} px", "matches are missed by (median)"))
        tiles.append((f"{totals.points:,}", "sparse points"))
        if refined.seconds:
            tiles.append((f"{sum(refined.seconds.values()):.0f} s", "in all"))
    shown = "".join(f'<div class="tile"><b>{plain(value)}</b><span>{word}</span></div>' for value, word in tiles)
    verdict = f"<p>{plain(refined.verdict)}</p>" if refined is not None and refined.verdict else ""
    return f'<header><h1>{plain(title)}</h1>{verdict}<div class="tiles">{shown}</div></header>'


def _to_know(report: Report) -> str:
    findings = [*report.photos.findings, *(report.graph.findings if report.graph else ())]
    warnings = [*report.photos.warnings, *(report.refined.warnings if report.refined else ())]
    items = _finding_items(findings) + "".join(
        f'<li><span class="badge doubt">? warning</span> {plain(warning)}</li>' for warning in warnings
    )
    return f'<section><h2>About the set</h2><ul class="findings">{items}</ul></section>' if items else ""


def _finding_items(findings: Sequence[Finding]) -> str:
    ordered = sorted(findings, key=lambda finding: _ORDER.index(finding.severity))
    return "".join(
        f'<li><span class="badge {f.severity}">{_SIGNS[f.severity]} {f.kind.replace("_", " ")}</span> '
        f"{plain(_sentence(f.words))}</li>"
        for f in ordered
    )


def _sentence(words: str) -> str:
    """Findings of a photo go on after its name; here they stand alone. A file's name keeps its first letter."""
    first = words.split(" ", 1)[0]
    return words if "." in first else words[:1].upper() + words[1:]


def _graph_section(graph: PairGraph) -> str:
    marked = {photo.name for photo in graph.photos if any(f.severity == "problem" for f in photo.findings)}
    marked |= {photo.name for photo in graph.photos if photo.holds}
    where = "seen from above" if graph.positions is not None else "in the order taken"
    legend = (
        f'<p class="faint">Photos by number, {where}. Dashed: weak link. Ringed: linked to no other, or without it the '
        "set would fall apart. Dotted with +: a photo worth adding. Each photo's strongest links are drawn.</p>"
    )
    number_of = {photo.name: index + 1 for index, photo in enumerate(graph.photos)}
    wishes = "".join(
        f"<li>between {plain(new.first)} ({number_of[new.first]}) and {plain(new.second)} ({number_of[new.second]}): "
        f"{plain(new.reason)}</li>"
        for new in graph.worth_adding[:_SHOWN_NEW_PHOTOS]
    )
    left = len(graph.worth_adding) - _SHOWN_NEW_PHOTOS
    more = f'<p class="faint">and {left} more in {REPORT_JSON}</p>' if left > 0 else ""
    wanted = f"<h3>Photos worth adding</h3><ol>{wishes}</ol>{more}" if wishes else "<p>No photo is missing.</p>"
    drawing = graph_drawing(graph, marked)
    return (
        f'<section><h2>What sees the same</h2><div class="graph"><div>{drawing}{legend}</div><div>{wanted}</div></div>'
        "</section>"
    )


# ------------------------------------------------------------------ the refinement
def _refined_section(refined: RefineReport) -> str:
    errors = [e for photo in refined.photos for e in (photo.error_before, photo.error_after) if e is not None]
    # One hopeless photo must not make all other bars invisible: the longest bar is cut.
    largest = float(np.percentile(errors, 90)) if errors else 1.0
    rows = "".join(_outcome_row(index, photo, largest) for index, photo in enumerate(refined.photos))
    heads = ("photo", "registered", "camera", "points seen", "error before / after, px", "turned", "moved")
    numeric = {"points seen", "turned", "moved"}
    cells = "".join(f"<th{_NUMBER if head in numeric else ''}>{head}</th>" for head in heads)
    legend = (
        '<p class="faint">Errors are medians over the verified matches with other photos of how many pixels the '
        "two cameras miss them by. Turned in degrees and moved in percent of the scene's size, beside the change of "
        "frame.</p>"
    )
    return (
        f'<section><h2>Cameras before and after</h2><div class="wide"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{legend}</section>"
    )


_NUMBER = ' class="number-cell"'


def _outcome_row(index: int, photo: PhotoOutcome, largest: float) -> str:
    state = '<span class="good">✓ yes</span>' if photo.registered else '<span class="badge problem">✕ no</span>'
    reason = f"<br>{plain(photo.reason)}" if photo.reason else ""
    group = f" (group {photo.group})" if photo.group else ""
    turned = "" if photo.rotation_degrees is None else f"{photo.rotation_degrees:.2f}°"
    moved = "" if photo.translation is None else f"{photo.translation:.2%}"
    return (
        f'<tr><td class="name"><span class="number">{index + 1}</span> {plain(photo.name)}</td>'
        f'<td class="reason">{state}{reason}</td><td>{_CAMERAS[photo.camera_source]}{group}</td>'
        f"<td{_NUMBER}>{photo.observations:,}</td><td>{error_bars(photo.error_before, photo.error_after, largest)}</td>"
        f"<td{_NUMBER}>{turned}</td><td{_NUMBER}>{moved}</td></tr>"
    )


# ------------------------------------------------------------------ the photos
def _photos_section(report: Report, thumbnails: Mapping[str, np.ndarray]) -> str:
    linked = _linked(report.graph)
    cards = "".join(
        _card(index, photo, _findings(photo, linked.get(photo.name)), thumbnails.get(photo.name))
        for index, photo in enumerate(report.photos.photos)
    )
    return f'<section><h2>Photos</h2><div class="photos">{cards}</div></section>'


def _card(index: int, photo: PhotoFacts, findings: Sequence[Finding], thumbnail: np.ndarray | None) -> str:
    worst = _worst(findings)
    mark = f" has-{worst}" if worst in ("problem", "doubt") else ""
    picture = "" if thumbnail is None else f'<img src="{_embedded(thumbnail)}" alt="{plain(photo.name)}">'
    listed = _finding_items(findings)
    items = f'<ul class="findings">{listed}</ul>' if listed else '<p class="good">✓ nothing to remark</p>'
    return (
        f'<article class="photo{mark}">{picture}<h3><span class="number">{index + 1}</span> {plain(photo.name)}</h3>'
        f'<p class="faint">{plain(_facts(photo))}</p>{items}</article>'
    )


def _facts(photo: PhotoFacts) -> str:
    facts = [f"{photo.size[1]} × {photo.size[0]}", f"edges {photo.blur:.1f} px"]
    if not photo.upright_in_file:
        facts.append("turned upright")
    if photo.brightness_difference is not None and abs(photo.brightness_difference) >= 0.05:
        facts.append(f"{photo.brightness_difference:+.1f} stops")
    if photo.focal_mm is not None:
        facts.append(f"{photo.focal_mm:g} mm")
    if photo.focal_35mm is not None:
        facts.append(f"({photo.focal_35mm:g} mm on 35 mm film)")
    facts += [fact for fact in (photo.camera, (photo.taken or "").replace("T", " ")) if fact]
    return " · ".join([*facts, *photo.changes])


def _embedded(thumbnail: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(thumbnail)).save(stream, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{b64encode(stream.getvalue()).decode('ascii')}"


def _findings(photo: PhotoFacts, linked: LinkedPhoto | None) -> tuple[Finding, ...]:
    return photo.findings + (linked.findings if linked is not None else ())


def _worst(findings: Sequence[Finding]) -> Severity | None:
    found = {finding.severity for finding in findings}
    return next((severity for severity in _ORDER if severity in found), None)


def _linked(graph: PairGraph | None) -> dict[str, LinkedPhoto]:
    return {} if graph is None else {photo.name: photo for photo in graph.photos}


# ------------------------------------------------------------------ how it was made
def _details(report: Report) -> str:
    made: dict[str, object] = {"limits": asdict(report.photos.limits)}
    if report.graph is not None:
        made["links"] = {name: getattr(report.graph, name) for name in ("measure", "linked_from", "solid_from")}
    if report.refined is not None:
        made |= {"settings": report.refined.settings, "seconds": report.refined.seconds}
    words = plain(json.dumps(made, indent=1, ensure_ascii=False))
    summary = f"Settings and thresholds (all numbers are in {REPORT_JSON})"
    return f"<details><summary>{summary}</summary><pre>{words}</pre></details>"
