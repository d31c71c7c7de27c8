"""Several photographs in the page: their list, one area in all of them, the server's folder."""

import numpy as np
import pytest

from serving.server import output_folder

from ..pictures import encoded as encode
from .screen import photograph

pytestmark = pytest.mark.browser


def open_several(screen, sizes):
    with screen.page.expect_file_chooser() as chooser:
        screen.page.click("#pick")
    assert chooser.value.is_multiple()
    chooser.value.set_files(
        [
            {
                "name": f"{seed}.png",
                "mimeType": "image/png",
                "buffer": encode(photograph(*size, seed=seed)),
            }
            for seed, size in enumerate(sizes)
        ]
    )
    screen.expect_status(f"{len(sizes)} photographs are open")


def test_one_area_is_filled_in_all_photographs_of_its_size(visit, server):
    screen = visit()
    page = screen.page
    open_several(screen, [(120, 80), (60, 60), (120, 80)])
    screen.expect("#file-name").to_have_text("0.png")
    screen.drag((30, 40), (60, 40))
    page.click("#album")
    screen.check_accessibility()
    assert page.locator(".thumb").all_inner_texts() == [
        f"{name}.png\nnot filled yet" for name in range(3)
    ]
    page.click("#album-fill")
    screen.expect_status("Filled 2 of 3 photographs")
    masks = [server.recorder.mask(index) for index in (-1, -2)]
    assert np.array_equal(*masks)
    screen.expect("#file-name").to_have_text("2.png")

    page.click("#album")
    screen.expect(".thumb small").to_have_text(["filled", "not filled yet", "filled"])
    page.click(".thumb >> nth=1")
    screen.expect("#file-name").to_have_text("1.png")
    assert np.array_equal(screen.pixels()[..., :3], photograph(60, 60, seed=1))

    names = []

    def is_last(download):
        names.append(download.suggested_filename)
        return len(names) == 2

    page.click("#album")
    with page.expect_download(is_last):
        page.click("#album-download")
    assert sorted(names) == ["0-inpainted.png", "2-inpainted.png"]
    # To undo the fill of one photograph, and to paint on another one, loses none of the list.
    for _ in range(3):
        page.keyboard.press("Control+z")
    screen.expect("#file-name").to_have_text("0.png")
    screen.drag((30, 20), (60, 20))
    page.click("#album")
    screen.expect(".thumb small").to_have_text(["filled", "not filled yet", "not filled yet"])


def test_the_page_says_where_the_server_saves(visit, serve, tmp_path):
    folder = output_folder.open_folder(tmp_path / "results")
    saving = serve(output_dir=folder)
    screen = visit(saving.url)
    screen.expect("#privacy").to_contain_text(str(folder))
    screen.open(encode(photograph())).wait_open()
    for name in ("photo-inpainted.png", "photo-inpainted-2.png"):
        screen.drag((30, 40), (60, 40))
        screen.page.click("#run")
        screen.expect_status(f"saved as {name}")
        assert (folder / name).exists()
    folder.rename(tmp_path / "gone")
    screen.drag((30, 40), (60, 40))
    screen.page.click("#run")
    screen.expect("#message-text").to_contain_text("could not save")
