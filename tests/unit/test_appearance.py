"""Measures of how images look, on images whose numbers are known; and contact sheets."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from clipstudy.probes.appearance import (
    HIGH,
    MEASURES,
    colour_entropy,
    edge_density,
    high_frequency,
    spectral_slope,
    total_variation,
)
from clipstudy.tasks.parts.sheet import contact_sheet

SIDE = 64


def grey(luminance: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(luminance, float)[..., None], 3, axis=-1)


def noise(slope: float, seed: int = 0, side: int = SIDE) -> np.ndarray:
    """Gaussian noise of power 1 / f^slope."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))[..., None]
    frequency[0, 0] = 1
    spectrum = np.fft.fft2(rng.standard_normal((side, side, 3)), axes=(0, 1)) * frequency ** (-slope / 2)
    image = np.fft.ifft2(spectrum, axes=(0, 1)).real
    return np.clip(0.5 + 0.15 * (image - image.mean()) / image.std(), 0, 1)


def stripes(period: int) -> np.ndarray:
    return grey(np.tile(0.5 + 0.4 * np.cos(2 * np.pi * np.arange(SIDE) / period), (SIDE, 1)))


@pytest.mark.parametrize("slope", [0, 1, 2, 3])
def test_the_slope_of_noise_is_its_exponent(slope: int) -> None:
    found = [spectral_slope(noise(slope, seed)) for seed in range(8)]
    assert np.mean(found) == pytest.approx(slope, abs=0.12)


@pytest.mark.parametrize("colour", [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.3, 0.61, 0.17)])
def test_one_colour_has_nothing(colour: tuple[float, ...]) -> None:
    flat = np.broadcast_to(colour, (SIDE, SIDE, 3))
    assert {name: round(look(flat), 6) for name, look in MEASURES.items()} == dict.fromkeys(MEASURES, 0.0)


def test_stripes_are_high_or_low() -> None:
    assert high_frequency(stripes(2)) > 0.99 and high_frequency(stripes(3)) > 0.99
    assert high_frequency(stripes(8)) < 0.01 and high_frequency(stripes(16)) < 0.01
    beyond = 1 - np.pi * HIGH**2  # the share of the spectrum's square outside the circle
    assert np.mean([high_frequency(noise(0, seed)) for seed in range(4)]) == pytest.approx(beyond, abs=0.02)


def test_total_variation_by_hand() -> None:
    ramp = np.arange(SIDE) / SIDE
    assert total_variation(grey(np.tile(ramp, (SIDE, 1)))) == pytest.approx(1 / SIDE)
    assert total_variation(grey(ramp[:, None] * 0.6 + ramp * 0.8)) == pytest.approx(1 / SIDE)
    step = grey(np.arange(SIDE) >= SIDE // 2) * np.ones((SIDE, 1, 1))
    assert total_variation(step) == pytest.approx(1 / (SIDE - 1))


def test_a_step_has_one_line_of_edge() -> None:
    for axis in (0, 1):
        for height in (0.2, 1.0):
            step = np.moveaxis(grey(np.tile(height * (np.arange(SIDE) >= 20), (SIDE, 1))), 1, axis)
            assert edge_density(step) == pytest.approx(1 / SIDE)
    across = np.add.outer(np.arange(SIDE), np.arange(SIDE)) - SIDE
    assert edge_density(grey(np.clip(0.5 + across / 2, 0, 1))) == pytest.approx(1 / SIDE, rel=0.05)


def test_no_edges_in_gradients_and_faint_steps() -> None:
    assert edge_density(grey(np.tile(np.arange(SIDE) / SIDE, (SIDE, 1)))) == 0
    assert edge_density(grey(np.tile(0.05 * (np.arange(SIDE) >= 20), (SIDE, 1)))) == 0


def test_a_weak_edge_goes_on_where_a_strong_one_began() -> None:
    fading = grey(np.outer(np.linspace(0.3, 0.06, SIDE), np.arange(SIDE) >= 20))
    assert edge_density(fading) > 0.9 / SIDE  # the lower rows alone would have none
    assert edge_density(fading[SIDE * 7 // 8 :]) == 0


def test_entropy_by_hand() -> None:
    halves, quarters = np.zeros((2, SIDE, SIDE, 3))
    halves[: SIDE // 2] = quarters[: SIDE // 2] = (1, 0, 0)
    quarters[:, : SIDE // 2, 2] = 1
    assert colour_entropy(halves) == pytest.approx(1) and colour_entropy(quarters) == pytest.approx(2)
    assert 8.5 < colour_entropy(np.random.default_rng(0).uniform(size=(128, 128, 3))) <= 9


@pytest.mark.parametrize("name", MEASURES)
def test_turned_or_mirrored_it_looks_the_same(name: str) -> None:
    image = noise(2, seed=3)
    for other in (np.rot90(image), image[::-1], image[:, ::-1], np.swapaxes(image, 0, 1)):
        assert MEASURES[name](other) == pytest.approx(MEASURES[name](image), rel=0.01)


def test_a_contact_sheet_holds_every_image() -> None:
    images = np.stack([np.broadcast_to((v / 10, 0, 0), (40, 40, 3)) for v in range(5)])
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(images, ["a caption that is far too long"] * 5, "t", 3))))
    reds = {round(v * 25.5) for v in range(1, 5)}
    assert reds <= set(sheet[(sheet[..., 1] == 0) & (sheet[..., 2] == 0)][:, 0].tolist())
    for red in reds:  # each 40 × 40 is drawn three times as wide
        assert ((sheet == (red, 0, 0)).all(-1)).sum() == 120 * 120
    assert sheet.shape[1] < 3 * 120 + 40, "no caption widens it"
