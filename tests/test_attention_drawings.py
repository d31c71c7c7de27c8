"""Drawings of attention maps: which color, from where to where, and what the page is told."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from musical_tf.layers.attention_maps import AttentionMap, map_of_rows
from training.evaluation import attention_maps, source_maps
from training.evaluation.attention_maps import (
    choose_positions,
    describe,
    draw_arrows,
    draw_flow,
    draw_usage,
    draw_wheel,
    flow_colors,
    summarize,
)
from training.evaluation.explanations import Item, write_section
from training.evaluation.page import render

SIZE = 12
"""Side of the map; its hole is 4 x 4 in the middle."""


def copying(down, right, stride=8) -> AttentionMap:
    """Every position of the hole is a copy of the one that lies this far away."""
    missing = np.zeros((1, SIZE, SIZE), bool)
    missing[0, 4:8, 4:8] = True

    def rows_of(sample):
        places = np.argwhere(missing[sample])
        weights = np.zeros((len(places), SIZE, SIZE), "float32")
        for number, (row, column) in enumerate(places):
            weights[number, row + down, column + right] = 1.0
        return weights

    return map_of_rows(rows_of, missing, stride, patch_size=1)


def photograph(grey=128):
    return np.full((96, 96, 3), grey, np.uint8)


def test_colors_tell_direction_and_distance_like_the_papers():
    up_right, down_left, up_left = flow_colors(np.array([[-6, 6], [6, -6], [-6, -6]]), 8.0).astype(
        int
    )
    assert up_right[1] > max(up_right[0], up_right[2])  # green
    assert down_left[0] > down_left[1] < down_left[2]  # pink
    assert np.abs(up_left - up_right).max() > 40
    assert flow_colors(np.zeros((1, 2)), 8.0).tolist() == [[255, 255, 255]]
    near, far, farther = flow_colors(np.array([[0, 2], [0, 8], [0, 80]]), 8.0).astype(int)
    assert np.ptp(near) < np.ptp(far)
    assert far.tolist() == farther.tolist()
    # Equally light in all directions, which plain hues are not.
    angles = np.linspace(0, 2 * np.pi, 24)
    colors = flow_colors(8 * np.stack([np.sin(angles), np.cos(angles)], axis=-1), 8.0)
    luminance = (colors / 255.0) ** 2.2 @ [0.2126, 0.7152, 0.0722]
    assert luminance.max() / luminance.min() < 1.35


def test_the_flow_has_the_color_of_the_way_in_the_hole_and_the_photograph_around_it():
    scale = copying(0, 4)
    picture = np.asarray(draw_flow(scale, photograph(), side=96))
    assert picture.shape == (96, 96, 3)
    reach = attention_maps.REACH * np.hypot(SIZE, SIZE)
    color = flow_colors(np.array([0, 4]), reach).tolist()
    assert (picture[32:64, 32:64] == color).all()
    around = picture.astype(int)
    around[32:64, 32:64] = around[0, 0]
    assert np.ptp(around) < 8  # faint and without color
    wheel = np.asarray(draw_wheel(101))
    # The legend: a source on the right has the color of the right half.
    share = 4 / reach
    shown = wheel[50, 50 + round(share * 50), :3].astype(int)
    assert np.abs(shown - color).max() <= 6
    assert wheel[0, 0, 3] == 0
    assert wheel[50, 95, 3] == 255


def test_arrows_lead_from_the_source_into_the_hole_and_light_lies_on_it():
    for way in (-4, 4):
        drawn = draw_arrows(copying(0, way), photograph(), side=192, arrows=4)
        drawn = np.asarray(drawn).astype(int)
        touched = np.abs(drawn - drawn[0, 0]).max(axis=-1) > 30
        assert touched[:, :60].any() == (way < 0)
        assert touched[:, 132:].any() == (way > 0)
    usage = copying(0, 4).strongest(1).usage[0]
    assert usage[4:8, 8:12] == pytest.approx(np.full((4, 4), 1 / 16))
    assert usage.sum() == pytest.approx(1.0)
    lit = np.asarray(draw_usage(copying(0, 4), photograph(), side=96)).astype(int)
    assert lit[40:56, 70:90, 0].min() > 200
    assert lit[40:56, 4:24].max() < 80


def test_positions_are_spread_over_the_hole():
    filled = np.zeros((40, 40), bool)
    filled[8:32, 8:32] = True
    chosen = choose_positions(filled, 36)
    assert len(chosen) == 36
    assert chosen.mean(axis=0).tolist() == pytest.approx([19.5, 19.5], abs=1)
    odd = np.zeros((9, 9), bool)
    odd[2, 7] = odd[6, 1] = True
    for positions in (choose_positions(odd, 1), choose_positions(odd, 9)):
        assert len(positions)
        assert odd[tuple(positions.T)].all()
    assert len(choose_positions(np.zeros((4, 4), bool), 9)) == 0


def test_words_say_how_concentrated_and_how_known():
    assert summarize(copying(0, 4)) == {"strongest": 1.0, "spread": 1.0, "known": 1.0}
    words = describe(copying(0, 4))
    assert words == (
        "strongest source 100 % of the weight, spread as over 1 equal ones, 100 % known (medians)"
    )
    nothing = map_of_rows(None, np.ones((1, 3, 3), bool), 8, 1)
    assert summarize(nothing) is None
    assert describe(nothing).startswith("nothing is filled")


def test_the_section_holds_every_position_with_its_weights(tmp_path):
    name = "a</script><b>.png"
    items = [
        Item(name, "00003", photograph(), photograph(90), {"1x1": copying(4, 0)}),
        Item("b.png", "00004", photograph(), photograph(90), {"3x3": copying(0, -4)}, copies()),
    ]
    attention = write_section(tmp_path, items)
    section = render("attention.html.j2", attention=attention)
    (text,) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', section, re.S)
    data = json.loads(text)
    assert [item["title"] for item in data] == [name, "b.png"]
    assert "http" not in section.replace("http-equiv", "")
    (scale,) = data[0]["scales"]
    assert scale["label"] == "1 × 1 patches"
    assert len(scale["positions"]) == 16
    atlas = np.asarray(Image.open(tmp_path / scale["atlas"]))[..., 1]
    for number, (row, column, sources, spread, known) in enumerate(scale["positions"]):
        assert sources == [[row + 4, column, 1.0]]
        assert (spread, known) == (1.0, 1.0)
        top, left = number // scale["columns"] * SIZE, number % scale["columns"] * SIZE
        tile = atlas[top : top + SIZE, left : left + SIZE]
        assert np.argwhere(tile).tolist() == [[row + 4, column]]
        assert tile.max() == 255
    copied, _ = data[1]["scales"]
    assert (copied["atlas"], copied["map"]) == (None, [96, 96])
    assert all(sources == [[row, column + 30, 1]] for row, column, sources in copied["positions"])
    for item in data:
        background = np.asarray(Image.open(tmp_path / item["background"]))
        assert (background == 90).all()
    named = {picture["file"] for card in attention["cards"] for picture in card["pictures"]}
    assert len(named) == 3 + 5
    assert named <= set(re.findall(r'images/[^"]+', text))
    assert all((tmp_path / file).is_file() for file in re.findall(r'images/[^"]+', text))
    with pytest.raises(ValueError, match="at least one item"):
        write_section(tmp_path, [])


def copies(right=30) -> np.ndarray:
    """A source map: the left of a square is copied from this far right, its right is painted."""
    source = np.stack(np.indices((96, 96)), axis=-1).astype("int32")
    source[32:64, 32:56, 1] += right
    source[32:64, 56:60] = -1
    return source


def test_copied_pixels_have_the_color_of_their_place():
    picture = np.asarray(source_maps.draw_places(copies(), photograph(), side=96)).astype(int)
    for row, column in ((40, 36), (60, 50)):
        place = np.array([row, column + 30])
        color = source_maps.place_colors(place, (96, 96))
        assert picture[row, column].tolist() == color.tolist()
        # The place itself has the same color, lighter where the photograph shows through.
        assert np.abs(picture[row, column + 30] - color).max() < 40
        assert np.ptp(picture[row, column + 30]) > 10
    assert np.ptp(picture[10, 10]) < 8  # not used: gray
    painted = picture[32:64, 56:60].reshape(-1, 3)
    assert {tuple(color) for color in painted} == {(150,) * 3, (225,) * 3}


def test_arrows_lead_from_the_place_of_a_known_pixel_to_its_copy():
    for way in (30, -30):
        drawn = source_maps.draw_copies(copies(way), photograph(), side=96, lines=4)
        drawn = np.asarray(drawn).astype(int)
        touched = np.abs(drawn - drawn[0, 0]).max(axis=-1) > 30
        assert touched[:, 62:].any() == (way > 0)
        assert touched[:, :28].any() == (way < 0)


def test_words_say_how_much_was_copied():
    assert source_maps.summarize(copies()) == {"copied": 24 / 28, "offsets": 1}
    assert source_maps.describe(copies()).startswith("86% of the hole is copied, 90% of it by 1 ")
    own = np.stack(np.indices((8, 8)), axis=-1)
    assert source_maps.summarize(own) is None
    assert source_maps.summarize(np.where((own > 3).any(-1, keepdims=True), -1, own)) == {
        "copied": 0.0,
        "offsets": 0,
    }
