"""Matches of two photos as one picture: both side by side, a coloured dot on every match, lines between a few.

The colour says where a match lies in the first photo: hue from left to right, light from top to bottom. Where the same
colours lie in the same order on the second photo, the matches agree; stray colours and crossing lines are mistakes.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from manyview.errors import InputError
from manyview.files import replaced
from manyview.geometry import spread_sample, transform_pixels
from manyview.images import View, load_views
from manyview.methods.match import Matches

WIDTH = 1200
MARGIN, GAP, HEADER, FOOTER = 20, 16, 30, 34
MOST_HEIGHT = 800  # of the photos: portraits make the page narrower instead of taller
SHARPNESS = 2  # drawn this many times larger and reduced, so that lines are smooth
MOST_LINES = 100
MOST_DOTS = 3000
PAPER, INK, FAINT = (255, 255, 255), (36, 41, 47), (110, 119, 129)
DIMMED = 0.25  # share of grey laid over the photos, so that colours stand out
LINE_ALPHA, DOT_ALPHA = 190, 220
HUES = (0.0, 0.83)  # red to violet: a full circle would give both edges one colour
LIGHTS = (0.72, 0.42)


@dataclass(frozen=True)
class _Panel:
    """A photo on the page: the picture, its corner (left, top) and the affine map from original to page pixels."""

    picture: Image.Image
    corner: tuple[int, int]
    page_from_original: np.ndarray


def match_picture(matches: Matches, *, max_lines: int = 60) -> np.ndarray:
    """Draw matches.

    Photos are read again from their files, so that they are sharp; arrays are shown as the network saw them.

    Args:
        matches: from `match_pictures`; without a match the photos are drawn alone.
        max_lines: how many matches get a line, at most 100: evenly spread, the surest ones.

    Returns:
        (H, W, 3) uint8 RGB, at most 1200 pixels wide.

    Raises:
        InputError: `max_lines` is out of range, or a photo is gone.
    """
    if not 0 <= max_lines <= MOST_LINES:
        raise InputError(f"max_lines: expected 0 to {MOST_LINES}, got {max_lines}")
    panels, size = _layout(matches)
    page = Image.new("RGB", size, PAPER)
    for panel in panels:
        page.paste(panel.picture, panel.corner)
    ends = [
        transform_pixels(panel.page_from_original, pixels)
        for panel, pixels in zip(panels, (matches.first_pixels, matches.second_pixels), strict=True)
    ]
    colours = position_colours(matches.first_pixels, matches.views[0].original_size)
    dotted = _spread(matches, MOST_DOTS)
    lined = _spread(matches, max_lines)
    page = _with_marks(page, ends[0], ends[1], colours, dotted, lined)
    _draw_words(page, matches, panels, len(lined))
    return np.asarray(page).copy()


def save_match_picture(matches: Matches, path: str | Path, *, max_lines: int = 60) -> Path:
    """Write `match_picture` as PNG, whole or not at all; a file of that name is replaced.

    Raises:
        InputError: as `match_picture`.
        ExportError: the disk refuses.
    """
    path = Path(path)
    picture = Image.fromarray(match_picture(matches, max_lines=max_lines))
    with replaced(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)
    return path


def position_colours(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels (M, 2) of a picture of (height, width) -> (M, 3) uint8 RGB: hue by x, light by y."""
    shares = (np.asarray(pixels, dtype=np.float64).reshape(-1, 2) + 0.5) / [size[1], size[0]]
    colours = [
        colorsys.hls_to_rgb(np.interp(x, [0, 1], HUES), np.interp(y, [0, 1], LIGHTS), 0.95) for x, y in shares.tolist()
    ]
    return np.rint(255 * np.array(colours).reshape(-1, 3)).astype(np.uint8)


def _spread(matches: Matches, most: int) -> np.ndarray:
    """Rows of at most so many matches, evenly spread over the first photo, the surest of each cell."""
    view = matches.views[0]
    places = transform_pixels(np.linalg.inv(view.original_from_network), matches.first_pixels)
    x, y = np.rint(places).astype(np.int64).T
    row_of = np.full(view.size, -1)
    confidence = np.zeros(view.size)
    row_of[y, x] = np.arange(len(matches))
    confidence[y, x] = matches.confidence
    if most == 0:
        return np.zeros(0, dtype=np.int64)
    return row_of.reshape(-1)[spread_sample(row_of >= 0, most, confidence=confidence)]


# ------------------------------------------------------------------ the page
def _layout(matches: Matches) -> tuple[tuple[_Panel, _Panel], tuple[int, int]]:
    """Both photos at one height, and the (width, height) of the page."""
    ratios = [view.original_size[1] / view.original_size[0] for view in matches.views]
    height = min(MOST_HEIGHT, round((WIDTH - 2 * MARGIN - GAP) / sum(ratios)))
    widths = [max(1, round(height * ratio)) for ratio in ratios]
    lefts = (MARGIN, MARGIN + widths[0] + GAP)
    first, second = (
        _panel(view, (width, height), (left, HEADER + MARGIN // 2))
        for view, width, left in zip(matches.views, widths, lefts, strict=True)
    )
    page = (2 * MARGIN + GAP + sum(widths), HEADER + MARGIN // 2 + height + FOOTER + MARGIN // 2)
    return (first, second), page


def _panel(view: View, size: tuple[int, int], corner: tuple[int, int]) -> _Panel:
    original_height, original_width = view.original_size
    scale_x, scale_y = size[0] / original_width, size[1] / original_height
    # Corner coordinates scale; centres are half a pixel from them on both sides.
    page_from_original = np.array(
        [
            [scale_x, 0.0, 0.5 * scale_x - 0.5 + corner[0]],
            [0.0, scale_y, 0.5 * scale_y - 0.5 + corner[1]],
            [0.0, 0.0, 1.0],
        ]
    )
    photo = _photo(view, size)
    grey = Image.new("RGB", size, (128, 128, 128))
    return _Panel(Image.blend(photo, grey, DIMMED), corner, page_from_original)


def _photo(view: View, size: tuple[int, int]) -> Image.Image:
    """The whole original at (width, height); of an array, what the network saw of it, on grey."""
    if view.source is not None:
        whole = load_views([view.source], size=max(size), fit="pad", patch_size=1, strict=True)[0]
        return Image.fromarray(whole.pixels).resize(size, Image.Resampling.LANCZOS)
    height, width = view.original_size
    scale = np.array([size[0] / width, size[1] / height])
    left_top = (transform_pixels(view.original_from_network, np.array([-0.5, -0.5])) + 0.5) * scale
    right_bottom = transform_pixels(view.original_from_network, np.array(view.size[::-1]) - 0.5) + 0.5
    left, top, right, bottom = np.rint([*left_top, *(right_bottom * scale)]).astype(int).tolist()
    page = Image.new("RGB", size, (128, 128, 128))
    seen = Image.fromarray(view.pixels).resize((max(right - left, 1), max(bottom - top, 1)), Image.Resampling.BICUBIC)
    page.paste(seen, (left, top))
    return page


def _with_marks(
    page: Image.Image,
    first: np.ndarray,
    second: np.ndarray,
    colours: np.ndarray,
    dotted: np.ndarray,
    lined: np.ndarray,
) -> Image.Image:
    """Small dots, then lines with a dark rim and larger dots at their ends."""
    large = page.resize((page.width * SHARPNESS, page.height * SHARPNESS), Image.Resampling.BICUBIC)
    layer = Image.new("RGBA", large.size)
    draw = ImageDraw.Draw(layer)
    first, second = ((ends + 0.5) * SHARPNESS - 0.5 for ends in (first, second))
    tint = [(int(red), int(green), int(blue)) for red, green, blue in colours]
    for row in dotted.tolist():
        for x, y in (first[row], second[row]):
            draw.ellipse(_disc(x, y, 1.6), fill=(*tint[row], DOT_ALPHA))
    for row in lined.tolist():
        line = [tuple(first[row]), tuple(second[row])]
        draw.line(line, fill=(*INK, LINE_ALPHA // 2), width=2 * SHARPNESS)
        draw.line(line, fill=(*tint[row], LINE_ALPHA), width=SHARPNESS)
    for row in lined.tolist():
        for x, y in (first[row], second[row]):
            draw.ellipse(_disc(x, y, 4.0), fill=(*tint[row], 255), outline=(*PAPER, 255), width=SHARPNESS)
    large.paste(layer, mask=layer)
    return large.resize(page.size, Image.Resampling.LANCZOS)


def _disc(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    radius *= SHARPNESS
    return x - radius, y - radius, x + radius, y + radius


def _draw_words(page: Image.Image, matches: Matches, panels: tuple[_Panel, _Panel], lines: int) -> None:
    draw = ImageDraw.Draw(page)
    for panel, view, focal in zip(panels, matches.views, matches.focals, strict=True):
        words = f"{view.name}   focal length {focal:.0f} px"
        draw.text((panel.corner[0], HEADER), words, INK, _font(15), anchor="ls")
    draw.text(
        (MARGIN, page.height - FOOTER // 2 - MARGIN // 2), _summary(matches, lines), FAINT, _font(13), anchor="lm"
    )


def _summary(matches: Matches, lines: int) -> str:
    words = f"{len(matches):,} matches" + (f", lines for {lines}" if 0 < lines < len(matches) else "")
    if matches.relative is None:
        return f"{words}; relative camera not found: {matches.reason}"
    cosine = (np.trace(matches.relative.first_from_second[:3, :3]) - 1) / 2
    degrees = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    words += f"; the cameras are turned by {degrees:.1f} degrees, {matches.relative.inlier_ratio:.0%} of points agree"
    return f"{words}; doubtful: {matches.reason}" if matches.status == "doubtful" else words


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
