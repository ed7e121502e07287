"""What procedural worlds look like: seamless patterns, natural materials, and a sensor like that of a real camera."""

from __future__ import annotations

import io
from random import Random
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from manyview.worlds.looks import LOOKS, PALETTES, Role, draw_colour
from manyview.worlds.materials import Material, Materials, draw_material, stack_materials, surface_colour
from manyview.worlds.patterns import PATTERNS, TEXTURES, TILE, pattern_colours, pattern_pictures, texture_bank
from manyview.worlds.sensor import (
    Response,
    SceneResponse,
    compress_jpeg,
    develop,
    draw_response,
    neutral_response,
    stack_responses,
    tone_curve,
)
from manyview.worlds.settings import WorldSettings
from manyview.worlds.textures import LEVELS, sample_smooth_texture, sample_texture, texture_atlas

ROLES = get_args(Role)


def materials(role: Role, count: int = 300, texture: float = 1.0) -> list[Material]:
    random = Random(7)
    return [draw_material(random, role, texture) for _ in range(count)]


def contrast(material: Material) -> float:
    """Deviation of the brightness from its mean, relative to it."""
    gains = np.array(material.gains).mean(axis=1)
    return float(np.hypot(*gains) / np.mean(material.colour))


def saturation(colour: tuple[float, float, float]) -> float:
    """Of the encoded colour (HSV): 0 grey, 1 pure."""
    encoded = np.array(colour) ** (1 / 2.2)
    return float(1 - encoded.min() / encoded.max())


# Patterns


def test_the_bank_holds_normalised_patterns() -> None:
    bank = texture_bank()
    assert bank.shape == (TEXTURES, 3, TILE, TILE)
    assert bank.mean(dim=(-2, -1)).abs().max() < 0.1
    deviation = bank.square().mean(dim=(1, 2, 3)).sqrt()
    assert ((deviation > 0.85) & (deviation < 1.001)).all()


@pytest.mark.parametrize("axis", [-1, -2])
def test_patterns_have_no_seam(axis: int) -> None:
    # The step across the tile's edge is no larger than the larger ones of those between neighbours inside it:
    # patterns with a lattice have an edge there as at every other line of the lattice.
    bank = texture_bank()
    others = tuple({1, 2, 3} - {axis % 4})
    inner = bank.diff(dim=axis).abs().mean(dim=others)
    seam = (bank.select(axis, 0) - bank.select(axis, -1)).abs().mean(dim=(1, 2))
    one_sheet = {"print", "text", "scene", "rug", "books", "windows"}  # pages and shelves do end at their edges
    endless = torch.tensor([pattern.kind not in one_sheet for pattern in PATTERNS])
    assert (seam <= 1.3 * inner.amax(dim=1))[endless].all()


def test_patterns_are_the_same_in_every_run() -> None:
    again = PATTERNS[3].make(np.random.default_rng(3))
    painted = pattern_pictures()[3].float().flip(1).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(painted, np.clip(again, 0.005, 0.95), atol=1e-3)


def test_natural_patterns_have_the_spectrum_of_natural_pictures() -> None:
    # Amplitude falls with about the first power of the frequency in photographs (Field, 1987).
    natural = [n for n, pattern in enumerate(PATTERNS) if pattern.kind in {"foliage", "leaves", "rock", "scene", "rug"}]
    grey = pattern_pictures()[natural].float().mean(dim=1)
    power = torch.fft.fft2(grey - grey.mean(dim=(-2, -1), keepdim=True)).abs().square()
    frequency = torch.fft.fftfreq(TILE).mul(TILE)
    radius = torch.hypot(frequency[:, None], frequency[None])
    rings = [(radius >= low) & (radius < 2 * low) for low in (4, 8, 16, 32, 64)]
    level = torch.stack([power[:, ring].mean(dim=-1) for ring in rings]).log2()
    slope = -(level[-1] - level[0]) / (2 * (len(rings) - 1))
    assert ((slope > 0.3) & (slope < 2.0)).all()
    assert 0.7 < float(slope.mean()) < 1.5


@pytest.mark.parametrize("level", range(LEVELS))
def test_each_level_of_the_pyramid_is_the_mean_of_its_texels(level: int) -> None:
    size = TILE >> level
    expected = torch.nn.functional.avg_pool2d(texture_bank(), 1 << level)
    generator = torch.Generator().manual_seed(level)
    texture = torch.randint(0, TEXTURES, (1, 300), generator=generator)
    row, column = torch.randint(0, size, (2, 1, 300), generator=generator)
    u, v, footprint = (column + 0.5) / size, (row + 0.5) / size, torch.full((1, 300), 1 / size)
    wanted = expected[texture[0], :, row[0], column[0]].T
    for lookup in (sample_texture, sample_smooth_texture):
        found = lookup(texture_atlas(), texture.float(), u, v, footprint)[:, 0]
        torch.testing.assert_close(found, wanted, atol=2e-2, rtol=0)


def test_lookups_wrap_round() -> None:
    generator = torch.Generator().manual_seed(0)
    texture = torch.randint(0, TEXTURES, (1, 500), generator=generator).float()
    u, v = torch.rand(2, 1, 500, generator=generator)
    footprint = torch.rand(1, 500, generator=generator) * 0.1
    here = sample_texture(texture_atlas(), texture, u, v, footprint)
    there = sample_texture(texture_atlas(), texture, u + 3, v - 2, footprint)
    torch.testing.assert_close(there, here, atol=2e-2, rtol=0)


def test_the_atlas_stays_small() -> None:
    assert texture_atlas().nbytes < 100e6


# Materials


@pytest.mark.parametrize("role", ROLES)
def test_every_role_has_materials_with_sane_numbers(role: Role) -> None:
    kinds = {pattern.kind for pattern in PATTERNS}
    assert set(LOOKS[role].kinds) <= kinds
    assert set(LOOKS[role].palettes) <= {*PALETTES, "strong"}
    for material in materials(role, 100):
        assert all(0 < channel < 1 for channel in material.colour)
        assert all(0 <= index < TEXTURES for index in material.patterns)
        assert all(0.02 < repeats < 25 for repeats in material.repeats)
        assert 0 <= material.shine <= 1
        assert 4 <= material.gloss <= 200


def test_the_same_random_numbers_give_the_same_material() -> None:
    first, second, other = Random(5), Random(5), Random(6)
    drawn = [draw_material(first, role) for role in ROLES]
    assert drawn == [draw_material(second, role) for role in ROLES]
    assert drawn != [draw_material(other, role) for role in ROLES]


@pytest.mark.parametrize("role", ["wall", "ceiling", "floor", "road", "rock"])
def test_large_surfaces_are_mostly_of_subdued_colours(role: Role) -> None:
    assert np.median([saturation(material.colour) for material in materials(role)]) < 0.35


def test_posters_and_objects_have_more_colour_than_walls() -> None:
    def colourful(role: Role) -> float:
        return float(np.mean([saturation(draw_colour(Random(seed), LOOKS[role].palettes)) for seed in range(400)]))

    assert colourful("object") > colourful("wall") + 0.1


def test_foliage_is_green() -> None:
    colours = np.array([material.colour for material in materials("foliage")])
    assert np.mean((colours[:, 1] > colours[:, 0]) & (colours[:, 1] > colours[:, 2])) > 0.7


def test_some_walls_are_nearly_plain_and_some_are_not() -> None:
    contrasts = np.array([contrast(material) for material in materials("wall", 600)])
    assert 0.2 < np.mean(contrasts < 0.06) < 0.5
    assert np.mean(contrasts > 0.15) > 0.25


def test_texture_scales_the_contrast_and_nothing_else() -> None:
    for plain, half, full in zip(*(materials("object", 50, texture) for texture in (0, 0.5, 1)), strict=True):
        assert plain.colour == half.colour == full.colour
        assert plain.gains == ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
        np.testing.assert_allclose(np.array(half.gains) * 2, full.gains)


def test_bricks_are_as_high_as_bricks() -> None:
    for pattern in PATTERNS:
        if pattern.kind == "brick":
            courses = pattern.make.keywords["rows"]  # type: ignore[attr-defined]
            assert 0.055 < pattern.metres[0] / courses <= pattern.metres[1] / courses < 0.09


def test_stacked_materials_keep_every_number_and_are_padded() -> None:
    random = Random(2)
    scenes = [[draw_material(random, role) for role in ROLES[:count]] for count in (3, 5)]
    stacked = stack_materials(scenes)
    assert stacked.colour.shape == (2, 5, 3)
    table = stacked.table()
    assert table.shape == (len(scenes[0][0].numbers()), 2, 5)
    for number, scene in enumerate(scenes):
        wanted = torch.tensor([material.numbers() for material in scene])
        torch.testing.assert_close(table[:, number, : len(scene)].T, wanted)
    assert stacked.gain[0, 3:].abs().max() == 0


def test_a_patterned_surface_has_its_pattern_s_own_colours_from_afar_and_near() -> None:
    number = next(n for n, pattern in enumerate(PATTERNS) if pattern.kind == "grass")
    own = pattern_colours()[number]
    gain = (own.deviation, own.deviation, own.deviation)
    material = Material(colour=own.mean, gains=(gain, (0.0, 0.0, 0.0)), patterns=(number, 0), repeats=(1.0, 1.0))
    grid = (torch.arange(TILE) + 0.5) / TILE
    v, u = (axis.reshape(1, -1) for axis in torch.meshgrid(grid, grid, indexing="ij"))
    colour = painted(stack_materials([[material]]), u, v, 1 / TILE).view(3, TILE, TILE)
    picture = pattern_pictures()[number].float()
    assert (colour - picture.clamp_min(0.015)).abs().mean() < 0.01
    far = painted(stack_materials([[material]]), u, v, 4.0)
    torch.testing.assert_close(far.mean(dim=(1, 2)), torch.tensor(own.mean), atol=0.02, rtol=0)


def painted(stacked: Materials, u: Tensor, v: Tensor, footprint: float) -> Tensor:
    parameters = stacked.table().expand(-1, -1, u.shape[-1])
    return surface_colour(parameters, u, v, torch.full_like(u, footprint), texture_atlas())


def test_an_unknown_role_is_no_role() -> None:
    with pytest.raises(KeyError):
        draw_material(Random(0), "lava")  # type: ignore[arg-type]


# Sensor


def neutral(scenes: int = 1, views: int = 1, **changes: Tensor) -> Response:
    response = stack_responses([neutral_response(views)] * scenes)
    return Response(**{**vars(response), **changes})


def smooth_picture(height: int = 53, width: int = 70) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width] / width
    picture = np.stack([0.5 + 0.4 * np.sin(5 * x + 3 * y), 0.5 + 0.3 * np.cos(4 * y), 0.4 + 0.3 * x * y], axis=-1)
    return (picture * 255).round().astype(np.uint8)


def as_tensor(picture: np.ndarray) -> Tensor:
    return torch.tensor(picture).float().div(255).permute(2, 0, 1)[None, None]


def test_a_neutral_camera_is_the_tone_curve_alone() -> None:
    linear = torch.rand(2, 3, 3, 12, 20)
    torch.testing.assert_close(develop(linear, neutral(2, 3)), tone_curve(linear))


def test_the_tone_curve_is_monotone_and_close_to_srgb_up_to_mid_tones() -> None:
    light = torch.linspace(0, 4, 400)
    for strength in (-0.5, 0.0, 0.8):
        picture = tone_curve(light, strength)
        assert picture.diff().min() > 0
        assert float(picture[0]) == pytest.approx(0, abs=1e-6)
        assert float(picture[-1]) <= 1
    mid = torch.linspace(0.01, 0.5, 50)
    assert (tone_curve(mid) - (1.055 * mid ** (1 / 2.4) - 0.055)).abs().max() < 0.06


def test_exposure_vignette_contrast_and_saturation_do_what_they_say() -> None:
    linear = torch.rand(1, 1, 3, 21, 31) * 0.5 + 0.1
    plain = develop(linear, neutral())
    torch.testing.assert_close(
        develop(linear, neutral(exposure=torch.tensor([[[2.0, 1.0, 1.0]]])))[:, :, 0], tone_curve(2 * linear[:, :, 0])
    )
    darker = develop(linear, neutral(vignette=torch.tensor([0.3])))
    assert float(darker[..., 10, 15].sub(plain[..., 10, 15]).abs().max()) < 1e-6
    torch.testing.assert_close(darker[..., 0, 0], tone_curve(0.7 * linear[..., 0, 0]))
    grey = develop(linear, neutral(saturation=torch.tensor([0.0])))
    assert float(grey.std(dim=2).max()) < 1e-6
    assert develop(linear, neutral(contrast=torch.tensor([0.7]))).std() > plain.std()


def test_blur_is_a_gaussian_of_its_own_width_in_each_view() -> None:
    linear = torch.zeros(1, 2, 3, 33, 33)
    linear[..., 16, 16] = 1
    blurred = develop(linear, neutral(1, 2, blur=torch.tensor([[0.0, 0.9]])))
    light = -(1 - blurred.square()).log() / 1.3
    torch.testing.assert_close(light[:, 0], linear[:, 0], atol=1e-4, rtol=0)
    spread = light[0, 1, 0].sum(dim=0)
    variance = float((spread * (torch.arange(33) - 16).square()).sum() / spread.sum())
    assert float(light[0, 1, 0].sum()) == pytest.approx(1, abs=1e-3)
    assert variance == pytest.approx(0.81, rel=0.15)


def test_noise_has_the_promised_deviation_in_the_dark_and_in_the_light() -> None:
    noise = torch.randn(1, 1, 3, 200, 200, generator=torch.Generator().manual_seed(0))
    response = neutral(read=torch.tensor([0.01]), shot=torch.tensor([0.03]))
    for level in (0.1, 0.6):
        picture = develop(torch.full_like(noise, level), response, noise)
        light = -(1 - picture.square()).log() / 1.3
        assert float(light.mean()) == pytest.approx(level, rel=0.01)
        assert float(light.std()) == pytest.approx((0.01**2 + 0.03**2 * level) ** 0.5, rel=0.03)


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 90])
def test_jpeg_agrees_with_an_independent_encoder(quality: int) -> None:
    picture, file = smooth_picture(), io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    reference = as_tensor(np.asarray(Image.open(file)))
    ours = compress_jpeg(as_tensor(picture), torch.tensor([[float(quality)]]))
    assert float((ours - reference).abs().mean()) < 1 / 255
    loss = float((reference - as_tensor(picture)).abs().mean())
    assert float((ours - as_tensor(picture)).abs().mean()) == pytest.approx(loss, rel=0.25)


def test_jpeg_errors_fall_with_the_quality_and_end_at_none() -> None:
    picture = torch.rand(1, 1, 3, 37, 50, generator=torch.Generator().manual_seed(1))
    errors = [
        float((compress_jpeg(picture, torch.tensor([[float(q)]])) - picture).abs().mean()) for q in (5, 25, 50, 80, 95)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]
    assert compress_jpeg(picture, torch.tensor([[100.0]])) is picture


def test_only_views_with_a_quality_are_compressed() -> None:
    pictures = torch.rand(2, 2, 3, 16, 24)
    result = compress_jpeg(pictures, torch.tensor([[100.0, 20.0], [100.0, 100.0]]))
    changed = (result != pictures).flatten(2).any(dim=-1)
    assert changed.tolist() == [[False, True], [False, False]]


def test_drawn_cameras_follow_the_settings() -> None:
    perfect = WorldSettings(exposure=0, noise=0, blur=0, jpeg=0)
    for seed in range(20):
        drawn = draw_response(Random(seed), 3, perfect)
        assert len(set(drawn.exposure)) == 1
        assert (drawn.read, drawn.shot, *drawn.blur) == (0,) * 5
        assert min(drawn.quality) >= 100
    compressed = [draw_response(Random(seed), 2, WorldSettings(jpeg=0.4, blur=0.5)) for seed in range(300)]
    assert 0.3 < np.mean([drawn.quality[0] < 100 for drawn in compressed]) < 0.5
    assert max(max(drawn.blur) for drawn in compressed) <= 0.5
    assert draw_response(Random(1), 2, perfect) == draw_response(Random(1), 2, perfect)


def test_pictures_stay_in_range_and_do_not_depend_on_their_company() -> None:
    settings = WorldSettings(exposure=0.3, noise=0.05, blur=1.5, jpeg=0.6)
    random = Random(0)
    cameras: list[SceneResponse] = [draw_response(random, 3, settings) for _ in range(8)]
    generator = torch.Generator().manual_seed(0)
    linear, noise = 3 * torch.rand(8, 3, 3, 40, 50, generator=generator), torch.randn(8, 3, 3, 40, 50)
    together = develop(linear, stack_responses(cameras), noise)
    assert float(together.min()) >= 0
    assert float(together.max()) <= 1
    for scene in range(8):
        alone = develop(
            linear[scene : scene + 1], stack_responses(cameras[scene : scene + 1]), noise[scene : scene + 1]
        )
        torch.testing.assert_close(alone[0], together[scene], rtol=0, atol=0)
