"""New data sets from old ones: mixtures, single labels, IID clients."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from fedsim.datasets.client_data import ClientData, spec_text


def build_dataset_mixture(
    a: tf.data.Dataset,
    b: tf.data.Dataset,
    a_probability: float,
    seed: int | None = None,
) -> tf.data.Dataset:
    """Takes each example from `a` with a given probability, else from `b`.

    The k-th example is the k-th of `a` or the k-th of `b`, so the mixture is as long
    as the shorter of them.

    Args:
        a: The first data set, `T*`.
        b: The second data set, `T*`.
        a_probability: The probability of `a`, from 0 to 1.
        seed: Of the choices; each pass over the result has the same. New choices on
            each pass if None.

    Returns:
        A `tf.data.Dataset`, `T*`.

    Raises:
        TypeError: If the element types differ.
        ValueError: If `a_probability` is not from 0 to 1.
    """
    if not 0 <= a_probability <= 1:
        raise ValueError(
            "`build_dataset_mixture` needs `a_probability` from 0 to 1, found "
            f"{a_probability}."
        )
    try:
        tf.nest.assert_same_structure(a.element_spec, b.element_spec)
        alike = all(
            x.is_compatible_with(y)
            for x, y in zip(
                tf.nest.flatten(a.element_spec),
                tf.nest.flatten(b.element_spec),
                strict=True,
            )
        )
    except (ValueError, TypeError):
        alike = False
    if not alike:
        raise TypeError(
            "`build_dataset_mixture` needs two data sets of one element type, found\n"
            f"  {spec_text(a.element_spec)} and\n  {spec_text(b.element_spec)}."
        )
    # rerandomize_each_iteration is what None means; a seed asks for the same again.
    draws = tf.data.Dataset.random(
        seed=seed, rerandomize_each_iteration=True if seed is None else None
    )

    def choose(draw, from_a, from_b):
        # 24 bits are exact in float32, and the draw is below 1.
        uniform = tf.cast(draw % (1 << 24), tf.float32) / float(1 << 24)
        return tf.cond(uniform < a_probability, lambda: from_a, lambda: from_b)

    return tf.data.Dataset.zip((draws, a, b)).map(choose)


def build_single_label_dataset(
    dataset: tf.data.Dataset, label_key: Any, desired_label: Any
) -> tf.data.Dataset:
    """Keeps the examples that have a given label.

    Args:
        dataset: A data set whose elements are a mapping or a tuple.
        label_key: The key, or position, of the label in an element.
        desired_label: The label to keep.

    Returns:
        A `tf.data.Dataset` of the same element type.

    Raises:
        KeyError: If elements have no `label_key`.
    """
    try:
        label_spec = dataset.element_spec[label_key]
    except (KeyError, IndexError, TypeError) as error:
        raise KeyError(
            f"`build_single_label_dataset` needs a label at {label_key!r}, found "
            f"elements of type `{spec_text(dataset.element_spec)}`."
        ) from error
    label = tf.convert_to_tensor(desired_label, label_spec.dtype).numpy()
    is_tuple = isinstance(dataset.element_spec, tuple)

    def has_label(*example):
        labels = (example if is_tuple else example[0])[label_key]
        return tf.reduce_all(tf.equal(labels, label))

    return dataset.filter(has_label)


def build_synthethic_iid_datasets(
    client_data: ClientData, client_dataset_size: int, shuffle_buffer_size: int = 10000
) -> tf.data.Dataset:
    """Yields endless IID clients drawn from all clients' data together.

    The data of all clients are joined, shuffled anew on each pass and cut into
    pieces of one size, so that any example may come up at any of the new clients.

    Args:
        client_data: Where examples of type `T` come from.
        client_dataset_size: The number of examples of each new client.
        shuffle_buffer_size: The number of examples that are shuffled together.

    Returns:
        An endless `tf.data.Dataset` whose elements are data sets, `T*`.

    Raises:
        ValueError: If a size is not positive.
    """
    for name, size in (
        ("client_dataset_size", client_dataset_size),
        ("shuffle_buffer_size", shuffle_buffer_size),
    ):
        if size < 1:
            raise ValueError(
                f"`build_synthethic_iid_datasets` needs `{name}` >= 1, found {size}."
            )
    examples = client_data.create_tf_dataset_from_all_clients()
    examples = examples.shuffle(shuffle_buffer_size).repeat()
    windows = examples.window(client_dataset_size, drop_remainder=True)
    is_tuple = isinstance(examples.element_spec, tuple)
    return windows.map(
        lambda *window: tf.data.Dataset.zip(window if is_tuple else window[0])
    )
