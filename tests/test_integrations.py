"""The model where people already work: ComfyUI, Gradio, GIMP, Docker, the Hugging Face Hub."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

import musical_tf
from serving import predict
from serving.server import command_line

from .examples import (
    EXAMPLES,
    MASK,
    PHOTO,
    free_port,
    import_file,
    pixels,
    virtual_environment,
)
from .processes import ROOT, run, succeed


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """What the package makes of the sample picture."""
    return musical_tf.inpaint(pixels(PHOTO), pixels(MASK, "L") > 127)


# ---- ComfyUI


class Tensor:
    """As much of a `torch.Tensor` as the node needs."""

    def __init__(self, values):
        self.values = values
        self.shape = values.shape

    def cpu(self):
        return self

    def numpy(self):
        return self.values


@pytest.fixture
def comfyui(monkeypatch):
    """The node, with a stand-in for PyTorch unless it is installed."""
    torch = ModuleType("torch")
    torch.from_numpy = Tensor
    monkeypatch.setitem(sys.modules, "torch", torch)
    module = import_file(EXAMPLES / "comfyui" / "__init__.py")
    return module.NODE_CLASS_MAPPINGS["MusicalInpaint"]


def run_node(node, image, mask, model="photo", fill="auto"):
    (result,) = getattr(node(), node.FUNCTION)(Tensor(image), Tensor(mask), model, fill)
    return result.numpy()


def test_comfyui_node_fills_a_batch(comfyui, expected):
    declared = comfyui.INPUT_TYPES()["required"]
    assert list(declared) == ["image", "mask", "model", "fill"]
    assert "photo" in declared["model"][0]
    assert comfyui.RETURN_TYPES == ("IMAGE",)
    hole = pixels(MASK, "L") > 127
    image = (pixels(PHOTO) / np.float32(255)).astype(np.float32)
    image[~hole] += np.float32(1e-4)  # no level of eight bits
    alpha = np.full((2, *hole.shape, 1), 0.5, np.float32)
    batch = np.concatenate([np.stack([image, image[:, ::-1]]), alpha], axis=-1)
    result = run_node(comfyui, batch, np.stack([hole, hole[:, ::-1]]).astype(np.float32))
    assert result.dtype == np.float32
    np.testing.assert_array_equal(np.rint(result[0][hole][:, :3] * 255), expected[hole])
    known = ~np.stack([hole, hole[:, ::-1]])
    np.testing.assert_array_equal(result[known], batch[known])
    np.testing.assert_array_equal(result[..., 3], batch[..., 3])
    single = run_node(comfyui, batch[:1, ..., :3], hole[None].astype(np.float32))
    np.testing.assert_array_equal(single[0], result[0, ..., :3])


def test_comfyui_node_checks_its_mask(comfyui):
    image = np.zeros((2, 32, 48, 3), np.float32)
    none = np.zeros((1, 64, 64), np.float32)  # what ComfyUI makes of an opaque image
    assert run_node(comfyui, image, none) is image
    for shape in ((1, 64, 64), (3, 32, 48)):
        with pytest.raises(ValueError, match=r"48 x 32.* got"):
            run_node(comfyui, image, np.ones(shape, np.float32))


# ---- Gradio

CALL = """
import sys
import sysconfig
from gradio_client import Client, handle_file
url, photo, mask, output = sys.argv[1:]
client = Client(url, verbose=False)
editor = {"background": handle_file(photo), "layers": [handle_file(mask)], "composite": None}
path = client.predict(editor, "photo", "auto", api_name="/erase")
open(output, "wb").write(open(path, "rb").read())
try:
    client.predict({**editor, "background": None}, "photo", "auto", api_name="/erase")
except Exception as error:
    print(error)
"""


@pytest.mark.examples
def test_gradio_app_answers_its_client(expected, tmp_path):
    folder = EXAMPLES / "gradio"
    python = virtual_environment(folder, "onnxruntime", "scipy")
    painted = Image.new("RGBA", Image.open(MASK).size, (255, 0, 0, 255))
    painted.putalpha(Image.open(MASK).convert("L"))
    painted.save(tmp_path / "painted.png")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
        "GRADIO_SERVER_PORT": str(free_port()),
        "PYTHONUNBUFFERED": "1",
    }
    app = subprocess.Popen(
        [python, folder / "app.py"], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        line = next(line for line in app.stdout if "http://" in line)
        files = [str(path) for path in (PHOTO, tmp_path / "painted.png", tmp_path / "filled.png")]
        url = re.search(r"http://[\w.:]+", line)[0]
        said = succeed(python, "-c", CALL, url, *files, env=environment)
    finally:
        app.terminate()
        app.wait(timeout=30)
    assert "Open a photograph" in said
    np.testing.assert_array_equal(pixels(tmp_path / "filled.png"), expected)


def test_gradio_folder_is_a_space():
    from huggingface_hub import metadata_load

    head = metadata_load(EXAMPLES / "gradio" / "README.md")
    assert head["sdk"] == "gradio"
    assert (EXAMPLES / "gradio" / head["app_file"]).is_file()
    wanted = (EXAMPLES / "gradio" / "requirements.txt").read_text("utf-8")
    assert f"gradio>={head['sdk_version'].rsplit('.', 1)[0]}" in wanted


# ---- Docker


def test_dockerfile_passes_hadolint():
    folder = EXAMPLES / "docker"
    succeed(Path(sysconfig.get_path("scripts"), "hadolint"), folder / "Dockerfile")
    ignored = (folder / "Dockerfile.dockerignore").read_text("utf-8")
    taken = re.findall(r"^!(.+)$", ignored, re.M)
    assert {"setup.cfg", "pyproject.toml", "musical_tf", "serving", "README.md"} <= set(taken)
    assert [name for name in taken if not (ROOT / name).exists()] == []


def test_compose_file_gives_commands_that_their_programs_take():
    compose = yaml.safe_load((EXAMPLES / "docker" / "compose.yaml").read_text("utf-8"))
    services = compose["services"]
    assert set(services) == {"server", "folder"}
    for service in services.values():
        dockerfile = Path(service["build"]["context"], service["build"]["dockerfile"])
        assert (EXAMPLES / "docker" / dockerfile).is_file()
    program, *words = services["server"]["command"]
    assert program == "musical-serve"
    options = command_line._parser().parse_args(words)
    assert f"127.0.0.1:{options.port}:{options.port}" in services["server"]["ports"]
    assert f":{options.port}/readyz" in services["server"]["healthcheck"]["test"][-1]
    program, *words = services["folder"]["command"]
    assert program == "musical-inpaint"
    options = predict._parser().parse_args(words)
    mounted = [volume.split(":")[1] for volume in services["folder"]["volumes"]]
    assert mounted == [str(options.image), str(options.mask), str(options.output)]


# ---- Hugging Face


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "repository"
    script = EXAMPLES / "huggingface" / "make_repository.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    succeed(sys.executable, script, "photo", folder, env=environment)
    return folder


def test_hub_repository_has_a_valid_card(repository):
    from huggingface_hub import ModelCard, metadata_load

    card = ModelCard.load(repository / "README.md")
    data = card.data.to_dict()
    assert data == metadata_load(repository / "README.md")
    assert data["library_name"] == "keras"
    assert data["license"] == "apache-2.0"
    assert "from_pretrained" in card.text
    names = {"config.json", "metadata.json", "model.weights.h5", "model.onnx", "from_pretrained.py"}
    names |= {"README.md", "CREDITS.tsv"}
    assert names == {path.name for path in repository.iterdir()}


def test_hub_repository_runs_from_its_folder(repository, expected):
    module = import_file(repository / "from_pretrained.py")
    inpainter = module.Inpainter.from_pretrained(repository)
    np.testing.assert_array_equal(inpainter(pixels(PHOTO), pixels(MASK, "L")), expected)


def test_hub_repository_is_a_keras_preset(repository, tmp_path):
    """The layout of KerasHub's presets; Keras itself reads it too."""
    import keras

    metadata = json.loads((repository / "metadata.json").read_text("utf-8"))
    assert metadata["keras_version"].startswith("3.")
    shipped = musical_tf.load("photo").get_weights()
    for generator in (musical_tf.load(repository), keras.saving.load_model(repository)):
        weights = generator.get_weights()
        assert all(map(np.array_equal, weights, shipped))
    (repository / "model.weights.h5").rename(tmp_path / "weights")
    try:
        with pytest.raises(ValueError, match="not a readable generator"):
            musical_tf.load(repository)
    finally:
        (tmp_path / "weights").rename(repository / "model.weights.h5")


# ---- GIMP

PLUG_IN = EXAMPLES / "gimp" / "musical_inpaint" / "musical_inpaint.py"
INPAINT = shlex.join(["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "serving.predict"])
BOX = (40, 50, 30, 40)
"""The selection: left, top, width and height."""


class StubImage:
    """As much of a `Gimp.Image` as the plug-in needs; also its only layer, and a layer's mask."""

    def __init__(self, values, selection):
        self.values, self.selection, self.layers = values.copy(), selection.copy(), []

    def duplicate(self):
        return StubImage(self.values, self.selection)

    def flatten(self):
        return self

    def fill(self, white):
        self.values[:] = white

    def invert(self, is_linear):
        self.values[self.selection] = 255 - self.values[self.selection]

    def insert_layer(self, layer, parent, position):
        self.layers.insert(position, layer)

    def create_mask(self, kind):
        return kind

    def add_mask(self, mask):
        self.mask = mask

    def set_name(self, name):
        self.name = name

    def undo_group_start(self):
        self.is_grouped = not getattr(self, "is_grouped", False)

    undo_group_end = undo_group_start

    def delete(self):
        del self.values


def stub_of_gimp() -> ModuleType:
    """As much of GIMP 3's Python interface as the plug-in needs."""

    def invert(image):
        image.selection = ~image.selection

    def load(run_mode, image, path):
        return StubImage(pixels(path), image.selection)

    gimp = SimpleNamespace(
        PlugIn=type("PlugIn", (), {"__gtype__": None}),
        Selection=SimpleNamespace(is_empty=lambda image: not image.selection.any(), invert=invert),
        FillType=SimpleNamespace(WHITE=255),
        AddMaskType=SimpleNamespace(SELECTION="selection"),
        RunMode=SimpleNamespace(NONINTERACTIVE=1),
        PDBStatusType=SimpleNamespace(SUCCESS="success", EXECUTION_ERROR="error"),
        file_save=lambda run_mode, image, path, options: Image.fromarray(image.values).save(path),
        file_load_layer=load,
        displays_flush=lambda: None,
        main=lambda kind, arguments: None,
    )
    gi, gi.repository = ModuleType("gi"), ModuleType("gi.repository")
    gi.require_version = lambda name, version: None
    gi.repository.Gimp = gimp
    gi.repository.Gio = SimpleNamespace(File=SimpleNamespace(new_for_path=Path))
    gi.repository.GLib = SimpleNamespace(Error=lambda text="": text)
    return gi


def erased() -> np.ndarray:
    left, top, width, height = BOX
    hole = np.zeros(pixels(PHOTO).shape[:2], bool)
    hole[top : top + height, left : left + width] = True
    return musical_tf.inpaint(pixels(PHOTO), hole)


def test_gimp_plug_in_against_a_stub(monkeypatch):
    gi = stub_of_gimp()
    monkeypatch.setitem(sys.modules, "gi", gi)
    monkeypatch.setitem(sys.modules, "gi.repository", gi.repository)
    monkeypatch.setenv("MUSICAL_INPAINT", INPAINT)
    plug_in = import_file(PLUG_IN)
    procedure = SimpleNamespace(new_return_values=lambda status, error: (status, error))
    image = StubImage(pixels(PHOTO), np.zeros(pixels(PHOTO).shape[:2], bool))

    def run():
        return plug_in.run(procedure, None, image, [], None, None)

    assert run() == ("error", "Nothing is selected. Select what should go.")
    left, top, width, height = BOX
    image.selection[top : top + height, left : left + width] = True
    assert run() == ("success", "")
    (layer,) = image.layers
    np.testing.assert_array_equal(layer.values, erased())
    assert (layer.mask, image.is_grouped) == ("selection", False)
    np.testing.assert_array_equal(image.values, pixels(PHOTO))
    monkeypatch.setattr(plug_in, "COMMAND", [*plug_in.COMMAND, "--model", "none.onnx"])
    status, message = run()
    assert status == "error"
    assert "none.onnx" in message


GIMP_SESSION = f"""
import gi
gi.require_version("Gimp", "3.0")
from gi.repository import Gimp, Gio
file = Gio.File.new_for_path
image = Gimp.file_load(Gimp.RunMode.NONINTERACTIVE, file({str(PHOTO)!r}))
procedure = Gimp.get_pdb().lookup_procedure("plug-in-musical-inpaint")
config = procedure.create_config()
config.set_property("run-mode", Gimp.RunMode.NONINTERACTIVE)
config.set_property("image", image)
config.set_core_object_array("drawables", image.get_layers())
assert procedure.run(config).index(0) == Gimp.PDBStatusType.EXECUTION_ERROR
image.select_rectangle(Gimp.ChannelOps.REPLACE, *{BOX})
assert procedure.run(config).index(0) == Gimp.PDBStatusType.SUCCESS
assert [layer.get_mask() is not None for layer in image.get_layers()] == [True, False]
image.flatten()
Gimp.file_save(Gimp.RunMode.NONINTERACTIVE, image, file("OUTPUT"), None)
"""
REAL = [path for name in ("gimp-console-3.0", "gimp-console-3") if (path := shutil.which(name))]


@pytest.mark.parametrize("gimp", REAL[:1])
def test_gimp_plug_in_in_gimp(gimp, tmp_path):
    """Where GIMP 3 is installed: Debian 13 has it, Debian 12 does not."""
    profile = tmp_path / "profile"
    shutil.copytree(PLUG_IN.parent, profile / "plug-ins" / PLUG_IN.parent.name)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    environment |= {"GIMP3_DIRECTORY": str(profile), "MUSICAL_INPAINT": INPAINT}
    batch = GIMP_SESSION.replace("OUTPUT", str(tmp_path / "filled.png"))
    words = ("-i", "--quit", "--batch-interpreter", "python-fu-eval", "-b", f"exec({batch!r})")
    done = run(gimp, *words, env=environment)
    assert (tmp_path / "filled.png").exists(), done.stdout + done.stderr
    np.testing.assert_array_equal(pixels(tmp_path / "filled.png"), erased())
