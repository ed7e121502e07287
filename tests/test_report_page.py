"""The report as a page and as JSON: complete, self-contained, and safe whatever files are called."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview.app.report_graph import error_bars, graph_drawing, node_places, plain, shown_links
from manyview.app.report_page import complete_report, report_page, save_report, thumbnails_of, worst_findings
from manyview.errors import ExportError, InputError
from manyview.geometry import Camera, intrinsics
from manyview.refine.pair_graph import pair_graph
from manyview.refine.photo_reading import MeasuredPhotos, measure_photos
from manyview.refine.photo_report import photo_report
from manyview.refine.report import PhotoOutcome, RefineReport, Report, refine_report

EVIL = 'a"><script>alert(1)</script>&amp;.png'


@pytest.fixture(scope="module")
def measured() -> MeasuredPhotos:
    random = np.random.default_rng(0)
    return measure_photos([random.integers(0, 255, (60, 80, 3), dtype=np.uint8) for _ in range(4)])


def names(measured: MeasuredPhotos) -> list[str]:
    return [photo.name for photo in measured.photos]


def outcomes(measured: MeasuredPhotos) -> list[PhotoOutcome]:
    lost = PhotoOutcome(name=names(measured)[0], registered=False, reason="no matches", camera_source="network")
    return [
        lost,
        *(
            PhotoOutcome(
                name=name,
                registered=True,
                camera_source="refined",
                observations=100 + index,
                error_before=3.0 + index,
                error_after=0.5,
                rotation_degrees=0.8,
                translation=0.02,
            )
            for index, name in enumerate(names(measured)[1:])
        ),
    ]


def whole_report(measured: MeasuredPhotos) -> Report:
    graph = pair_graph(names(measured), 0.5 * np.eye(4, k=1))
    return Report(photos=photo_report(measured), graph=graph, refined=refine_report(outcomes(measured), points=50))


class Page(HTMLParser):
    """Tags with their attributes, text, and whether all that opens closes."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_asks_for_nothing_from_outside(measured: MeasuredPhotos) -> None:
    page = Page(report_page(whole_report(measured), thumbnails_of(measured)))
    assert page.open == []
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
    policies = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert policies and "default-src 'none'" in (policies[0] or "")
    style = next(iter(re.findall(r"<style>(.*?)</style>", report_page(whole_report(measured), {}), re.S)))
    assert "url(" not in style and "@import" not in style


def test_each_photo_has_its_picture_and_its_findings(measured: MeasuredPhotos) -> None:
    report = whole_report(measured)
    page = Page(report_page(report, thumbnails_of(measured), title="My <set>"))
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [attributes["alt"] for attributes in pictures] == names(measured)
    assert all((attributes["src"] or "").startswith("data:image/jpeg;base64,") for attributes in pictures)
    assert "My <set>" in page.text
    assert report.graph is not None
    for photo in report.photos.photos:
        for finding in photo.findings:
            assert finding.words[1:] in page.text
    assert "3 of 4" in page.text and "no matches" in page.text


def test_photos_alone_make_a_page_without_the_other_sections(measured: MeasuredPhotos) -> None:
    page = report_page(Report(photos=photo_report(measured)), thumbnails_of(measured))
    assert "Cameras before and after" not in page and "What sees the same" not in page
    assert Page(page).open == []


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    from PIL import Image

    name = EVIL.replace("/", "")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(tmp_path / name)
    measured = measure_photos(tmp_path)
    found = names(measured)
    graph = pair_graph(found, np.zeros((1, 1)))
    refined = refine_report([PhotoOutcome(name=found[0], registered=False, reason=EVIL)], points=0, verdict=EVIL)
    page = Page(
        report_page(
            Report(photos=photo_report(measured), graph=graph, refined=refined), thumbnails_of(measured), title=EVIL
        )
    )
    assert "script" not in {tag for tag, _ in page.tags}
    assert name in page.text and page.open == []


@given(st.text(max_size=40))
def test_plain_text_survives_a_parser(text: str) -> None:
    kept = text.replace("\r", "").replace("\x00", "")
    assert Page(f"<p>{plain(kept)}</p>").text == kept


def test_file_names_that_are_no_text_are_written_out() -> None:
    assert plain("a\udcff.jpg") == "a\\udcff.jpg"


# ------------------------------------------------------------------ files
def test_both_files_are_written_and_the_json_holds_everything(measured: MeasuredPhotos, tmp_path: Path) -> None:
    report = whole_report(measured)
    files = save_report(tmp_path / "out", report, thumbnails_of(measured))
    assert [path.name for path in files] == ["report.json", "report.html"]
    data = json.loads(files[0].read_text(encoding="utf-8"))
    assert [photo["name"] for photo in data["photos"]["photos"]] == names(measured)
    assert data["refined"]["totals"]["registered"] == 3
    assert data["graph"]["components"] == [[0, 1, 2, 3]]


def test_an_earlier_report_is_replaced_only_on_request(measured: MeasuredPhotos, tmp_path: Path) -> None:
    save_report(tmp_path, complete_report(measured), thumbnails_of(measured))
    with pytest.raises(ExportError):
        save_report(tmp_path, complete_report(measured), thumbnails_of(measured))
    save_report(tmp_path, complete_report(measured), thumbnails_of(measured), overwrite=True)


# ------------------------------------------------------------------ drawings
def test_weak_links_are_dashed_and_wishes_drawn() -> None:
    matrix = np.zeros((4, 4))
    matrix[0, 1], matrix[1, 2] = 0.6, 0.15
    drawing = graph_drawing(pair_graph(["a", "b", "c", "d"], matrix), {"d"})
    root = ElementTree.fromstring(drawing)
    lines = [line.get("class") for line in root.iter("line")]
    assert sorted(filter(None, lines)) == ["link", "link weak", "wanted", "wanted", "wanted"]
    assert len(list(root.iter("circle"))) == 4
    assert drawing.count("node marked") == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 10_000))
def test_shown_links_are_few_and_keep_every_part_connected(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    matrix = random.random((count, count)) * (random.random((count, count)) < 0.3)
    labels = [str(index) for index in range(count)]
    graph = pair_graph(labels, matrix)
    shown = np.zeros((count, count))
    for link in shown_links(graph):
        shown[link.first, link.second] = link.strength
    assert pair_graph(labels, shown).components == graph.components
    assert np.count_nonzero(shown) <= 5 * count


def test_places_keep_the_map_and_stay_in_the_drawing() -> None:
    cameras = []
    for x, z in ((0, 0), (4, 0), (4, 3)):
        matrix = np.eye(4)
        matrix[:3, 3] = x, 0, z
        cameras.append(Camera(K=intrinsics(500, (320, 240)), world_from_camera=matrix, width=640, height=480))
    graph = pair_graph(["a", "b", "c", "d"], np.full((4, 4), 0.5), cameras=[*cameras, None])
    places = np.array(node_places(graph))
    assert (places >= 0).all() and (places <= [640, 480]).all()
    assert np.linalg.norm(places[1] - places[0]) == pytest.approx(4 / 3 * np.linalg.norm(places[2] - places[1]))
    assert places[3, 1] > places[:3, 1].max()


def test_cameras_at_one_place_are_drawn_on_a_circle() -> None:
    camera = Camera(K=intrinsics(500, (320, 240)), world_from_camera=np.eye(4), width=640, height=480)
    places = node_places(pair_graph(["a", "b"], np.full((2, 2), 0.5), cameras=[camera, camera]))
    assert places[0] != places[1]


def test_bars_are_as_long_as_errors() -> None:
    root = ElementTree.fromstring(error_bars(4.0, 1.0, 4.0))
    widths = [float(bar.get("width") or 0) for bar in root.iter("rect")]
    assert widths[0] == pytest.approx(4 * widths[1], rel=0.01)
    assert error_bars(None, None, 1.0) == ""


# ------------------------------------------------------------------ the refinement's numbers
def test_totals_add_up(measured: MeasuredPhotos) -> None:
    report: RefineReport = refine_report(outcomes(measured), points=50)
    totals = report.totals
    assert (totals.photos, totals.registered, totals.refined, totals.network) == (4, 3, 3, 1)
    assert totals.observations == 100 + 101 + 102
    assert (totals.error_before, totals.error_after) == (4.0, 0.5)
    assert "3 of 4" in report.verdict


def test_an_undone_refinement_is_said_so(measured: MeasuredPhotos) -> None:
    assert "undone" in refine_report(outcomes(measured), points=50, kept="unrefined").verdict


def test_without_an_observation_there_is_no_error() -> None:
    report = refine_report([PhotoOutcome(name="a", registered=False)], points=0)
    assert report.totals.error_after is None and report.totals.without_camera == 1


def test_reports_without_photos_or_with_infinite_numbers_are_errors() -> None:
    with pytest.raises(InputError):
        refine_report([], points=0)
    with pytest.raises(InputError, match="b: a number"):
        refine_report([PhotoOutcome(name="b", registered=True, error_after=float("nan"))], points=0)


def test_no_photo_is_advised_beside_one_that_shows_nothing() -> None:
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 255, (60, 80, 3), dtype=np.uint8) for _ in range(3)]
    measured = measure_photos([*pictures, np.zeros((60, 80, 3), dtype=np.uint8)])
    black = names(measured)[3]
    graph = pair_graph(names(measured), np.zeros((4, 4)))
    assert any(black in (new.first, new.second) for new in graph.worth_adding)
    report = complete_report(measured, graph=graph)
    assert report.graph is not None and report.graph.worth_adding
    assert not any(black in (new.first, new.second) for new in report.graph.worth_adding)
    assert black in [name for name, _ in worst_findings(report)]
