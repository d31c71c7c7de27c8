"""Multiply-adds against counts by hand, and callables that take turns."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.evaluation import cost


def test_convolutions_by_hand():
    model = keras.Sequential(
        [
            keras.layers.Input((16, 16, 3)),
            keras.layers.Conv2D(8, 3, padding="same"),  # 16 x 16 positions, 3 x 3 x 3 -> 8
            keras.layers.LeakyReLU(0.2),
            keras.layers.Conv2DTranspose(4, 4, strides=2, padding="same"),  # each of 16 x 16: 4 x 4
            keras.layers.Conv2D(5, 3, dilation_rate=2),  # "valid": 32 - 4 = 28
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(7),
        ]
    )
    by_hand = 16 * 16 * 27 * 8 + 16 * 16 * 8 * 16 * 4 + 28 * 28 * 36 * 5 + 5 * 7
    assert cost.count_multiply_adds(model, np.zeros((1, 16, 16, 3), np.float32)) == by_hand
    assert cost.count_multiply_adds(model, np.zeros((2, 16, 16, 3), np.float32)) == 2 * by_hand


def test_a_window_counts_with_its_size_and_a_loop_with_its_turns():
    def window(matrix, rows):
        return tf.matmul(matrix[: rows[0]], matrix)

    def loop(matrix, turns):
        turn = tf.constant(0, tf.int64)
        return tf.while_loop(
            lambda turn, product: turn < turns[0],
            lambda turn, product: (turn + 1, tf.matmul(product, product) * 0.5),
            [turn, matrix],
        )[1]

    eye = np.eye(8, dtype=np.float32)
    assert cost.count_multiply_adds(window, eye, np.array([3])) == 3 * 8 * 8
    assert cost.count_multiply_adds(window, eye, np.array([8])) == 8 * 8 * 8
    assert cost.count_multiply_adds(loop, eye, np.array([5])) == 5 * 8 * 8 * 8


def test_what_cannot_be_counted_is_named():
    def contract(matrix):
        return tf.einsum("ij,jk->ik", matrix, matrix, name="contraction")

    with pytest.raises(RuntimeError, match=r"multiply-adds of .*contraction.* cannot be counted"):
        cost.count_multiply_adds(contract, np.eye(4, dtype=np.float32))


def test_callables_take_turns():
    calls = []
    names = ("a", "b")
    seconds = cost.take_turns({n: lambda n=n: calls.append(n) for n in names}, rounds=3, warm_up=1)
    assert calls == ["a", "b"] * 4
    for each in seconds.values():
        assert 0 < each["least"] <= each["median"]
