"""Drawings of the report page as SVG text: which photos are linked, and errors before and after."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from html import escape

from manyview.refine.pair_graph import Link, PairGraph, in_words

WIDTH, HEIGHT, BORDER = 640, 480, 36
PART_COLOURS = 6  # as many as the style has
MOST_LABELS = 80  # more photos than this are not numbered
STRONGEST_SHOWN = 4  # links of each photo, beside those that hold the set together
Place = tuple[float, float]


def plain(text: str) -> str:
    """Text for HTML and SVG: escaped, and with bytes that are no text (in file names) written out."""
    return escape(text.encode("utf-8", "backslashreplace").decode("utf-8"), quote=True)


def graph_drawing(graph: PairGraph, marked: Collection[str] = ()) -> str:
    """The links between photos: seen from above where cameras are known, else on a circle in the order taken.

    Solid links are lines, weak ones dashed; a dotted green line with a plus is where a photo is worth adding. Parts
    that nothing links differ in colour.

    Args:
        graph: at least one photo.
        marked: names of photos that are ringed.
    """
    places = node_places(graph)
    number_of = {photo.name: index for index, photo in enumerate(graph.photos)}
    radius = min(13.0, max(3.0, 150 / math.sqrt(len(places)) / 4))
    lines = [_link(graph, link, places) for link in reversed(shown_links(graph))]
    wanted = [
        _wanted(places[number_of[photo.first]], places[number_of[photo.second]], photo.reason)
        for photo in graph.worth_adding[:12]
    ]
    nodes = [_node(graph, index, places[index], radius, marked) for index in range(len(places))]
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="links between the photos">'
        f"{''.join(lines)}{''.join(wanted)}{''.join(nodes)}</svg>"
    )


def shown_links(graph: PairGraph) -> list[Link]:
    """The strongest of each photo and those without which the set would fall apart: all would hide each other."""
    drawn = [0] * len(graph.photos)
    part = list(range(len(graph.photos)))
    shown = []
    for link in graph.links:  # strongest first, so that joining parts gives a maximum spanning tree
        first, second = _root(part, link.first), _root(part, link.second)
        if first != second:
            part[first] = second
        elif min(drawn[link.first], drawn[link.second]) >= STRONGEST_SHOWN:
            continue
        drawn[link.first] += 1
        drawn[link.second] += 1
        shown.append(link)
    return shown


def _root(part: list[int], index: int) -> int:
    while part[index] != index:
        part[index] = part[part[index]]
        index = part[index]
    return index


def node_places(graph: PairGraph) -> list[Place]:
    """(x, y) of each photo in the drawing; those without a camera stand in a row below the map."""
    known = [place for place in graph.positions or () if place is not None]
    extent = max((max(axis) - min(axis) for axis in zip(*known, strict=True)), default=0.0) if known else 0.0
    if graph.positions is None or len(known) < 2 or extent < 1e-9:
        return _on_circle(graph)
    unknown = len(graph.positions) - len(known)
    map_height = HEIGHT - (2 * BORDER if unknown else 0)
    low_x, low_y = (min(axis) for axis in zip(*known, strict=True))
    span_x, span_y = (max(axis) - min(axis) for axis in zip(*known, strict=True))
    scale = min((WIDTH - 2 * BORDER) / max(span_x, 1e-12), (map_height - 2 * BORDER) / max(span_y, 1e-12))
    left, top = (WIDTH - scale * span_x) / 2, (map_height - scale * span_y) / 2
    places, waiting = [], 0
    for place in graph.positions:
        if place is None:
            waiting += 1
            places.append((BORDER + (waiting - 0.5) * (WIDTH - 2 * BORDER) / unknown, HEIGHT - float(BORDER)))
        else:
            places.append((left + scale * (place[0] - low_x), top + scale * (place[1] - low_y)))
    return places


def _on_circle(graph: PairGraph) -> list[Place]:
    """Clockwise from the top, part by part with a gap between."""
    parts = graph.components
    gaps = len(parts) if len(parts) > 1 else 0
    step = 2 * math.pi / max(len(graph.photos) + gaps, 1)
    places: list[Place] = [(WIDTH / 2, HEIGHT / 2)] * len(graph.photos)
    if len(places) == 1:
        return places
    position = 0
    for part in parts:
        for index in sorted(part):
            angle = position * step - math.pi / 2
            radius_x, radius_y = WIDTH / 2 - BORDER, HEIGHT / 2 - BORDER
            places[index] = WIDTH / 2 + radius_x * math.cos(angle), HEIGHT / 2 + radius_y * math.sin(angle)
            position += 1
        position += bool(gaps)
    return places


def _link(graph: PairGraph, link: Link, places: Sequence[Place]) -> str:
    (x1, y1), (x2, y2) = places[link.first], places[link.second]
    names = f"{graph.photos[link.first].name}, {graph.photos[link.second].name}"
    weak = " weak" if link.strength < graph.solid_from else ""
    width = 1 + 2.5 * min(1.0, link.strength / (3 * graph.solid_from))
    return (
        f'<line class="link{weak}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke-width="{width:.1f}">'
        f"<title>{plain(names)}: {in_words(link.strength, graph.measure)}</title></line>"
    )


def _wanted(first: Place, second: Place, reason: str) -> str:
    (x1, y1), (x2, y2) = first, second
    return (
        f'<g><title>a photo worth adding: {plain(reason)}</title><line class="wanted" x1="{x1:.1f}" y1="{y1:.1f}" '
        f'x2="{x2:.1f}" y2="{y2:.1f}"/><text class="plus" x="{(x1 + x2) / 2:.1f}" y="{(y1 + y2) / 2:.1f}">+</text></g>'
    )


def _node(graph: PairGraph, index: int, place: Place, radius: float, marked: Collection[str]) -> str:
    photo, (x, y) = graph.photos[index], place
    colour = f"var(--part-{photo.component % PART_COLOURS})"
    ring = " marked" if photo.name in marked else ""
    label = (
        f'<text class="label" x="{x:.1f}" y="{y:.1f}">{index + 1}</text>' if len(graph.photos) <= MOST_LABELS else ""
    )
    words = f"{index + 1}: {photo.name}, {photo.links} links"
    return (
        f'<g><title>{plain(words)}</title><circle class="node{ring}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" '
        f'fill="{colour}"/>{label}</g>'
    )


def error_bars(before: float | None, after: float | None, largest: float) -> str:
    """Two bars one below the other, in pixels of the original; `largest` is the length of a full bar."""
    rows = []
    for number, (name, value) in enumerate((("before", before), ("after", after))):
        if value is None:
            continue
        top, length = 2 + 15 * number, 85 * min(1.0, value / max(largest, 1e-12))
        rows.append(
            f'<rect class="{name}" x="0" y="{top}" width="{max(length, 1.0):.1f}" height="11" rx="2"/>'
            f'<text x="{max(length, 1.0) + 5:.1f}" y="{top + 6}">{value:.2f}</text>'
        )
    if not rows:
        return ""
    words = ", ".join(f"{n} {v:.2f}" for n, v in (("before", before), ("after", after)) if v is not None)
    return (
        f'<svg class="bars" viewBox="0 0 144 32" role="img" aria-label="error {words} pixels">'
        f"<title>{words} pixels</title>{''.join(rows)}</svg>"
    )
