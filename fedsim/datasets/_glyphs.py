"""Skeletons of the ten digits, each in several styles, and how they are drawn.

A style is a tuple of strokes; a stroke is a tuple of control points `(x, y)` in the unit
square (y points down) that a Catmull-Rom curve passes through. A control point given
twice makes a corner. Points of the curve are linear in the control points, so that a
style is a matrix, and a thousand deformed digits are one matrix product.
"""

from __future__ import annotations

import math

import attrs
import numpy as np

SIZE = 28
_POINTS = 72

Stroke = tuple[tuple[float, float], ...]


def _arc(cx, cy, rx, ry, start, end, count=9) -> Stroke:
    """Points on an ellipse; angles in degrees, clockwise from the right."""
    angles = np.radians(np.linspace(start, end, count))
    return tuple(
        (float(cx + rx * math.cos(a)), float(cy + ry * math.sin(a))) for a in angles
    )


def _corner(*points) -> Stroke:
    """Straight lines through the points."""
    return tuple(point for point in points for _ in range(2))


_STYLES: tuple[tuple[tuple[Stroke, ...], ...], ...] = (
    (  # 0: oval; round; narrow with overlapping ends
        (_arc(0.5, 0.5, 0.33, 0.48, -90, 270, 8),),
        (_arc(0.5, 0.5, 0.42, 0.46, -60, 300, 9),),
        ((*_arc(0.5, 0.52, 0.28, 0.47, -70, 280, 8), (0.62, 0.0)),),
    ),
    (  # 1: bar; flag; flag and foot
        (((0.5, 0.0), (0.5, 0.5), (0.5, 1.0)),),
        (_corner((0.3, 0.22), (0.54, 0.0), (0.54, 1.0)),),
        (
            _corner((0.32, 0.2), (0.52, 0.0), (0.52, 1.0)),
            ((0.28, 1.0), (0.52, 1.0), (0.76, 1.0)),
        ),
    ),
    (  # 2: straight foot; loop at the foot; wavy foot
        (
            (
                *((0.18, 0.24), (0.3, 0.06), (0.52, 0.0), (0.75, 0.1), (0.78, 0.32)),
                *((0.6, 0.58), (0.36, 0.82), (0.15, 1.0), (0.15, 1.0)),
                *((0.5, 1.0), (0.86, 1.0)),
            ),
        ),
        (
            (
                *((0.2, 0.2), (0.42, 0.0), (0.7, 0.06), (0.76, 0.3), (0.62, 0.58)),
                *((0.4, 0.86), (0.2, 0.96), (0.12, 0.84), (0.26, 0.76)),
                *((0.5, 0.92), (0.72, 1.0), (0.9, 0.9)),
            ),
        ),
        (
            (
                *((0.15, 0.16), (0.45, 0.0), (0.78, 0.12), (0.7, 0.42), (0.4, 0.74)),
                *((0.14, 0.96), (0.14, 0.96), (0.4, 0.9), (0.64, 1.0), (0.88, 0.93)),
            ),
        ),
    ),
    (  # 3: two bowls; flat top; small upper bowl with a deep waist
        (
            (
                *((0.2, 0.12), (0.45, 0.0), (0.74, 0.1), (0.72, 0.34), (0.42, 0.47)),
                *((0.42, 0.47), (0.74, 0.55), (0.82, 0.78), (0.55, 1.0), (0.18, 0.9)),
            ),
        ),
        (
            (
                *((0.2, 0.02), (0.2, 0.02), (0.8, 0.02), (0.8, 0.02)),
                *((0.46, 0.4), (0.46, 0.4), (0.78, 0.5), (0.82, 0.78), (0.52, 1.0)),
                (0.16, 0.88),
            ),
        ),
        (
            (
                *((0.26, 0.1), (0.5, 0.0), (0.7, 0.14), (0.6, 0.36), (0.36, 0.42)),
                *((0.44, 0.38), (0.7, 0.46), (0.86, 0.72), (0.6, 0.98), (0.16, 0.96)),
            ),
        ),
    ),
    (  # 4: open, two strokes; closed; open with a curved bowl
        (
            _corner((0.28, 0.02), (0.16, 0.58), (0.88, 0.58)),
            ((0.68, 0.2), (0.67, 0.6), (0.66, 1.0)),
        ),
        (_corner((0.66, 1.0), (0.66, 0.0), (0.12, 0.66), (0.9, 0.66)),),
        (
            ((0.2, 0.0), (0.18, 0.34), (0.3, 0.52), (0.56, 0.5), (0.74, 0.42)),
            ((0.76, 0.0), (0.75, 0.5), (0.72, 1.0)),
        ),
    ),
    (  # 5: corner and bowl; curved, one stroke; separate bar
        (
            (
                *((0.8, 0.02), (0.8, 0.02), (0.28, 0.02), (0.28, 0.02)),
                *((0.24, 0.42), (0.24, 0.42), (0.54, 0.36), (0.82, 0.56)),
                *((0.74, 0.88), (0.44, 1.0), (0.14, 0.9)),
            ),
        ),
        (
            (
                *((0.84, 0.04), (0.56, 0.04), (0.34, 0.08), (0.26, 0.32), (0.4, 0.46)),
                *((0.68, 0.52), (0.78, 0.74), (0.58, 0.98), (0.18, 0.94)),
            ),
        ),
        (
            (
                *((0.32, 0.06), (0.27, 0.24), (0.25, 0.42), (0.25, 0.42)),
                *((0.58, 0.4), (0.8, 0.64), (0.66, 0.94), (0.36, 1.0), (0.14, 0.86)),
            ),
            ((0.32, 0.05), (0.6, 0.06), (0.9, 0.0)),
        ),
    ),
    (  # 6: curved stem; straight stem and round bowl; small low bowl
        (
            (
                *((0.7, 0.0), (0.42, 0.18), (0.22, 0.48), (0.2, 0.78), (0.44, 1.0)),
                *((0.74, 0.92), (0.8, 0.7), (0.6, 0.54), (0.36, 0.6), (0.22, 0.8)),
            ),
        ),
        (
            (
                *((0.46, 0.0), (0.3, 0.3), (0.2, 0.62), (0.28, 0.92), (0.56, 1.0)),
                *((0.82, 0.84), (0.8, 0.58), (0.54, 0.48), (0.28, 0.6)),
            ),
        ),
        (
            (
                *((0.36, 0.0), (0.26, 0.4), (0.24, 0.76), (0.4, 0.99), (0.66, 0.94)),
                *((0.72, 0.74), (0.54, 0.64), (0.32, 0.74), (0.26, 0.86)),
            ),
        ),
    ),
    (  # 7: plain; crossed; with a serif
        (_corner((0.14, 0.04), (0.84, 0.04), (0.42, 1.0)),),
        (
            _corner((0.16, 0.04), (0.84, 0.04), (0.4, 1.0)),
            ((0.32, 0.52), (0.56, 0.5), (0.8, 0.48)),
        ),
        (
            (
                *((0.14, 0.22), (0.16, 0.04), (0.16, 0.04), (0.5, 0.06), (0.86, 0.0)),
                *((0.86, 0.0), (0.6, 0.4), (0.5, 1.0)),
            ),
        ),
    ),
    (  # 8: one stroke; two rings; open at the top
        (
            (
                *((0.52, 0.46), (0.28, 0.32), (0.28, 0.1), (0.52, 0.0), (0.74, 0.12)),
                *((0.7, 0.34), (0.44, 0.52), (0.2, 0.72), (0.28, 0.94), (0.52, 1.0)),
                *((0.78, 0.92), (0.8, 0.7), (0.52, 0.46)),
            ),
        ),
        (
            _arc(0.5, 0.24, 0.25, 0.24, 90, 450, 7),
            _arc(0.5, 0.74, 0.32, 0.26, -90, 270, 7),
        ),
        (
            (
                *((0.74, 0.12), (0.52, 0.0), (0.26, 0.12), (0.32, 0.36), (0.6, 0.56)),
                *((0.78, 0.78), (0.56, 1.0), (0.26, 0.88), (0.32, 0.64), (0.58, 0.4)),
                (0.8, 0.06),
            ),
        ),
    ),
    (  # 9: straight stem; curved tail; stem and ring drawn apart
        (
            (
                *((0.76, 0.14), (0.52, 0.0), (0.24, 0.14), (0.26, 0.44), (0.52, 0.52)),
                *((0.74, 0.36), (0.76, 0.1), (0.76, 0.1), (0.74, 0.5), (0.7, 1.0)),
            ),
        ),
        (
            (
                *((0.76, 0.22), (0.56, 0.0), (0.26, 0.1), (0.22, 0.36), (0.46, 0.52)),
                *((0.74, 0.36), (0.78, 0.2), (0.8, 0.54), (0.68, 0.88), (0.44, 1.0)),
                (0.2, 0.9),
            ),
        ),
        (
            _arc(0.46, 0.26, 0.28, 0.26, -20, 340, 8),
            ((0.74, 0.06), (0.7, 0.5), (0.52, 1.0)),
        ),
    ),
)


@attrs.frozen(eq=False)
class Style:
    """A way to write a digit: `weights @ control` are points along the strokes."""

    weights: np.ndarray
    control: np.ndarray


def _curve_weights(count: int, positions: np.ndarray) -> np.ndarray:
    """Catmull-Rom weights of `count` control points at the given parameters."""
    span = np.clip(positions.astype(int), 0, count - 2)
    t = positions - span
    basis = 0.5 * np.stack(
        [
            -t + 2 * t**2 - t**3,
            2 - 5 * t**2 + 3 * t**3,
            t + 4 * t**2 - 3 * t**3,
            -(t**2) + t**3,
        ],
        axis=1,
    )
    weights = np.zeros((len(positions), count))
    for offset in range(4):
        column = np.clip(span + offset - 1, 0, count - 1)
        np.add.at(weights, (np.arange(len(positions)), column), basis[:, offset])
    return weights


def _style(strokes: tuple[Stroke, ...]) -> Style:
    dense, lengths = [], []
    for stroke in strokes:
        # Inside a corner, between its two equal points, the curve would leave it.
        spans = [k for k in range(len(stroke) - 1) if stroke[k] != stroke[k + 1]]
        positions = np.concatenate([k + np.linspace(0, 1, 17) for k in spans])
        points = _curve_weights(len(stroke), positions) @ np.array(stroke)
        steps = np.hypot(*np.diff(points, axis=0).T)
        dense.append((positions, np.concatenate([[0], np.cumsum(steps)])))
        lengths.append(steps.sum())
    control = np.concatenate([np.array(stroke) for stroke in strokes])
    rows, first = [], 0
    for stroke, (positions, travelled), length in zip(
        strokes, dense, lengths, strict=True
    ):
        number = max(4, round(_POINTS * length / sum(lengths)))
        even = np.interp(np.linspace(0, length, number), travelled, positions)
        weights = np.zeros((number, len(control)))
        weights[:, first : first + len(stroke)] = _curve_weights(len(stroke), even)
        rows.append(weights)
        first += len(stroke)
    return Style(np.concatenate(rows).astype(np.float32), control.astype(np.float32))


STYLES: tuple[tuple[Style, ...], ...] = tuple(
    tuple(_style(strokes) for strokes in styles) for styles in _STYLES
)


def draw(points: np.ndarray, radius: np.ndarray, softness: np.ndarray) -> np.ndarray:
    """Draws curves with a round pen.

    Args:
        points: `float32[n, points, 2]`, points along each curve, in pixels.
        radius: `float32[n]`, of the pen.
        softness: `float32[n]`, width of the edge over which the ink fades.

    Returns:
        `uint8[n, 28, 28]`; 255 is paper, 0 is ink.
    """
    grid = np.arange(SIZE, dtype=np.float32)
    dx = np.square(points[:, :, 0, None] - grid)
    dy = np.square(points[:, :, 1, None] - grid)
    nearest = np.full((len(points), SIZE, SIZE), np.inf, np.float32)
    for k in range(points.shape[1]):
        np.minimum(nearest, dx[:, k, None, :] + dy[:, k, :, None], out=nearest)
    inside = radius[:, None, None] - np.sqrt(nearest)
    ink = np.clip(inside / softness[:, None, None] + 0.5, 0, 1)
    return np.rint(255 * (1 - ink)).astype(np.uint8)
