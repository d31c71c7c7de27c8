#!/usr/bin/env python3
"""GIMP 3 plug-in: fills the selection of an image by `musical-inpaint`, as a new layer."""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import gi

gi.require_version("Gimp", "3.0")
from gi.repository import Gimp, Gio, GLib  # noqa: E402, only after the version

NAME = "plug-in-musical-inpaint"
COMMAND = shlex.split(os.environ.get("MUSICAL_INPAINT", "musical-inpaint"))


class MusicalInpaint(Gimp.PlugIn):
    """Registers the menu entry Filters > Enhance > Erase selection."""

    def do_set_i18n(self, name):
        """Has no translations."""
        return False

    def do_query_procedures(self):
        """The one procedure."""
        return [NAME]

    def do_create_procedure(self, name):
        """Describes the procedure to GIMP."""
        procedure = Gimp.ImageProcedure.new(self, name, Gimp.PDBProcType.PLUGIN, run, None)
        procedure.set_image_types("RGB*, GRAY*")
        procedure.set_menu_label("_Erase selection")
        procedure.add_menu_path("<Image>/Filters/Enhance")
        procedure.set_documentation(
            "Fills the selection to match its surroundings", "Runs musical-inpaint.", name
        )
        procedure.set_attribution("The musical-tf authors", "Apache-2.0", "2026")
        return procedure


def run(procedure, run_mode, image, drawables, config, data):
    """What GIMP calls: success, or an error with a sentence for the user."""
    try:
        erase_selection(image)
    except (OSError, RuntimeError) as error:
        failure = GLib.Error(str(error))
        return procedure.new_return_values(Gimp.PDBStatusType.EXECUTION_ERROR, failure)
    Gimp.displays_flush()
    return procedure.new_return_values(Gimp.PDBStatusType.SUCCESS, GLib.Error())


def erase_selection(image):
    """Adds the filled selection as the top layer.

    Raises:
        OSError: If the command cannot be started.
        RuntimeError: If nothing is selected, or the command fails.
    """
    if Gimp.Selection.is_empty(image):
        raise RuntimeError("Nothing is selected. Select what should go.")
    with tempfile.TemporaryDirectory() as folder:
        photo, mask, filled = (Path(folder, f"{name}.png") for name in ("photo", "mask", "filled"))
        copy = image.duplicate()
        layer = copy.flatten()
        save(copy, photo)
        layer.fill(Gimp.FillType.WHITE)
        Gimp.Selection.invert(copy)
        layer.invert(False)  # black outside of the selection
        save(copy, mask)
        copy.delete()
        words = [*COMMAND, "--image", photo, "--mask", mask, "--output", filled]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        result = Gimp.file_load_layer(Gimp.RunMode.NONINTERACTIVE, image, file_of(filled))
    image.undo_group_start()
    result.set_name("erased")
    image.insert_layer(result, None, 0)
    result.add_mask(result.create_mask(Gimp.AddMaskType.SELECTION))
    image.undo_group_end()


def save(image, path):
    """Exports what is seen."""
    Gimp.file_save(Gimp.RunMode.NONINTERACTIVE, image, file_of(path), None)


def file_of(path):
    """GIMP's kind of path."""
    return Gio.File.new_for_path(str(path))


Gimp.main(MusicalInpaint.__gtype__, sys.argv)
