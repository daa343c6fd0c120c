"""Writers who do not exist: each draws digits in a hand of their own."""

from __future__ import annotations

import attrs
import numpy as np

from fedsim.datasets._glyphs import SIZE, STYLES, draw

_SPREAD = 0.035  # of a control point, in digit heights


@attrs.frozen(eq=False)
class Writer:
    """What makes one hand differ from another."""

    style_of_digit: np.ndarray  # float64[10, styles], probabilities
    slant: float
    angle: float
    height: float
    aspect: float
    pen: float
    softness: float
    jitter: float
    habit: np.ndarray  # float32[10, styles, control points, 2]


def new_writer(rng: np.random.Generator) -> Writer:
    """Draws a writer at random."""
    styles = max(map(len, STYLES))
    control = max(len(style.control) for choice in STYLES for style in choice)
    favourite = rng.dirichlet(np.full(styles, 0.35), size=10)
    habit = rng.normal(0, 0.8 * _SPREAD, (10, styles, control, 2))
    return Writer(
        style_of_digit=favourite,
        slant=float(rng.normal(0.12, 0.2)),
        angle=float(rng.normal(0, 0.06)),
        height=float(np.clip(rng.normal(18.5, 1.4), 15, 22)),
        aspect=float(np.clip(rng.normal(0.78, 0.12), 0.6, 1.1)),
        pen=float(np.clip(rng.normal(1.25, 0.25), 0.8, 2.0)),
        softness=float(rng.uniform(1.0, 1.8)),
        jitter=float(rng.uniform(0.6, 1.3)),
        habit=habit.astype(np.float32),
    )


def write(writer: Writer, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The writer writes these digits: `uint8[n, 28, 28]`, 255 is paper."""
    choices = np.array(
        [
            rng.choice(writer.style_of_digit.shape[1], p=writer.style_of_digit[label])
            for label in labels
        ],
        dtype=int,
    )
    pictures = np.empty((len(labels), SIZE, SIZE), np.uint8)
    for label in range(10):
        for choice in range(len(STYLES[label])):
            where = np.flatnonzero((labels == label) & (choices == choice))
            if len(where):
                pictures[where] = _write_alike(writer, label, choice, len(where), rng)
    return pictures


def _write_alike(writer: Writer, label: int, choice: int, count: int, rng):
    """One digit in one style, `count` times."""
    style = STYLES[label][choice]
    shape = style.control.shape
    control = style.control + writer.habit[label, choice, : shape[0]]
    shake = rng.normal(0, _SPREAD * writer.jitter, (count, *shape))
    # A corner is a control point given twice: both copies move together.
    twin = np.flatnonzero((style.control[1:] == style.control[:-1]).all(axis=1)) + 1
    control[twin] = control[twin - 1]
    shake[:, twin] = shake[:, twin - 1]
    points = style.weights @ (control + shake - 0.5)

    def about(mean, spread):
        return rng.normal(mean, spread * writer.jitter, count)[:, None]

    height = about(writer.height, 1.0)
    x = points[..., 0] * height * about(writer.aspect, 0.06)
    y = points[..., 1] * height
    x = x - y * about(writer.slant, 0.06)
    angle = about(writer.angle, 0.06)
    x, y = (
        x * np.cos(angle) - y * np.sin(angle),
        x * np.sin(angle) + y * np.cos(angle),
    )
    middle = (SIZE - 1) / 2
    # EMNIST digits are centred by their extent, not quite exactly.
    x = x - (x.max(1, keepdims=True) + x.min(1, keepdims=True)) / 2
    y = y - (y.max(1, keepdims=True) + y.min(1, keepdims=True)) / 2
    points = np.stack([x + middle + about(0, 0.7), y + middle + about(0, 0.7)], axis=-1)
    pen = np.clip(about(writer.pen, 0.12)[:, 0], 0.7, 2.2)
    softness = np.full(count, writer.softness)
    return draw(
        points.astype(np.float32), pen.astype(np.float32), softness.astype(np.float32)
    )
