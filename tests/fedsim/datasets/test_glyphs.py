"""Skeletons of digits, and the pen."""

import numpy as np
import pytest

from fedsim.datasets._glyphs import STYLES, draw


def test_each_digit_has_several_styles_inside_the_unit_square():
    assert len(STYLES) == 10
    for styles in STYLES:
        assert len(styles) >= 3
        for style in styles:
            points = style.weights @ style.control
            assert points.shape[1] == 2
            assert points.min() > -0.06
            assert points.max() < 1.06


def test_curves_are_affine_in_their_control_points():
    for styles in STYLES:
        for style in styles:
            np.testing.assert_allclose(style.weights.sum(axis=1), 1, atol=1e-5)


def test_points_leave_no_gap_in_the_line():
    for styles in STYLES:
        for style in styles:
            points = 20 * (style.weights @ style.control)
            distance = np.hypot(*(points[:, None] - points).transpose(2, 0, 1))
            np.fill_diagonal(distance, np.inf)
            assert distance.min(axis=1).max() < 1.2


@pytest.mark.parametrize("radius", [1.0, 2.0])
def test_pen_draws_a_disc(radius):
    point = np.array([[[10.0, 14.0]]], np.float32)
    picture = draw(point, np.float32([radius]), np.float32([1.0]))[0]
    assert picture.dtype == np.uint8
    assert picture[14, 10] == 0
    assert picture[14, 14] == 255
    around = picture[9:20, 5:16]
    np.testing.assert_array_equal(around, around[::-1])
    np.testing.assert_array_equal(around, around.T)
    ink = (255 - picture.astype(float)).sum() / 255
    assert ink == pytest.approx(np.pi * radius**2, rel=0.15)
