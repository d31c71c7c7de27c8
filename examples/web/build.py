"""Builds the app, a folder of static files: build.py [--model MODEL] [--output FOLDER].

The page is the server's own. Only `api.js`, the one module that talks to a server, is another: the
one of this folder runs the model in the browser.
"""

import argparse
import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGE = ROOT / "serving" / "page"
MODEL = ROOT / "serving" / "models" / "photo.onnx"
OWN = (
    *(HERE / f"{name}.js" for name in ("api", "seed", "small", "worker", "offline")),
    HERE.parent / "node" / "full_size.mjs",
)
CHANGES = {
    '<meta charset="utf-8" />': """<meta charset="utf-8" />
    <meta http-equiv="Content-Security-Policy"
      content="default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:;
        img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'self'" />
    <link rel="manifest" href="manifest.webmanifest" />
    <script type="module" src="page/offline.js"></script>""",
    "Your photograph is sent to this server only, and the server does not store it.": (
        "Your photograph stays on this device."
    ),
    "PNG keeps every pixel that was not filled exactly. “As it came” has the format and the "
    "quality of your file. Metadata is what the camera wrote: place, time, settings. The color "
    "profile always stays.": (
        "PNG keeps every pixel that was not filled exactly. No format keeps the metadata."
    ),
}
"""Passages of the server's `index.html`, and what the app has in their place."""
REMOVED = (
    '<p class="small"><a href="docs" target="_blank">Use it from a program</a></p>',
    '<button class="button" type="button" data-tool="select" aria-pressed="false" '
    'data-icon="select" data-tip="Select an object: drag a box around it" data-key="S"></button>',
    "<dt><kbd>S</kbd></dt> <dd>select an object by a box around it</dd>",
    "<dt><kbd>O</kbd></dt> <dd>fit what is painted to the object under it</dd>",
    '<button class="button" type="submit" value="mask-outline">Fit the mask to the object</button>',
    '<option value="avif" translate="no">AVIF</option>',
    '<label class="field" ><span>Metadata</span ><select name="metadata" id="metadata"> '
    '<option value="keep">Keep</option> <option value="strip">Remove</option> </select></label >',
)
"""Passages that the app lacks: a server finds outlines, and browsers write no AVIF or metadata."""
MANIFEST = {
    "name": "musical: erase from photographs",
    "short_name": "musical",
    "start_url": "./",
    "scope": "./",
    "display": "standalone",
    "background_color": "#ebe8e1",
    "theme_color": "#ebe8e1",
    "icons": [{"src": "page/icon.svg", "sizes": "any", "type": "image/svg+xml"}],
}


def page_of(html: str) -> str:
    """The server's `index.html` with `CHANGES` made and without `REMOVED`.

    Raises:
        ValueError: If a passage is not there exactly once.
    """
    for before, after in (CHANGES | dict.fromkeys(REMOVED, "")).items():
        pattern = r"\s+".join(map(re.escape, before.split()))
        parts = re.split(pattern, html)
        if len(parts) != 2:
            raise ValueError(f"index.html must have once, got {len(parts) - 1}: {before}")
        html = after.join(parts)
    return html


def build(model: Path, output: Path) -> None:
    """Writes the app; whatever is in `output` is replaced.

    Raises:
        FileNotFoundError: If the model or the files of onnxruntime-web are missing.
    """
    runtime = HERE / "node_modules" / "onnxruntime-web" / "dist"
    for path in (model, runtime):
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing; the runtime comes with: npm ci")
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(PAGE, output / "page")
    html = page_of((output / "page" / "index.html").read_text("utf-8"))
    (output / "page" / "index.html").unlink()
    for path in OWN:
        shutil.copy(path, output / "page")
    for code, words in json.loads((HERE / "words.json").read_text("utf-8")).items():
        path = output / "page" / "languages" / f"{code}.json"
        words = json.loads(path.read_text("utf-8")) | words
        path.write_text(json.dumps(words, ensure_ascii=False), "utf-8")
    access = output / "page" / "access.js"
    text = access.read_text("utf-8")
    access.write_text(text.replace('"This server runs {name}', '"This app runs {name}'), "utf-8")
    (output / "ort").mkdir()
    for name in ("wasm", "webgpu"):
        shutil.copy(runtime / f"ort.{name}.min.mjs", output / "ort")
    for path in runtime.glob("ort-wasm-simd-threaded.*"):
        if path.stem in ("ort-wasm-simd-threaded", "ort-wasm-simd-threaded.asyncify"):
            shutil.copy(path, output / "ort")
    shutil.copy(model, output / "model.onnx")
    (output / "index.html").write_text(html, "utf-8")
    (output / "manifest.webmanifest").write_text(json.dumps(MANIFEST, indent=2), "utf-8")

    files = sorted(path for path in output.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    names = ["./", *(path.relative_to(output).as_posix() for path in files)]
    script = (HERE / "service_worker.js").read_text("utf-8")
    script += f"\nserve({json.dumps(digest.hexdigest()[:16])}, {json.dumps(names, indent=2)});\n"
    (output / "service_worker.js").write_text(script, "utf-8")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0] + ".")
    parser.add_argument("--model", type=Path, default=MODEL, help="default: the package's photo")
    parser.add_argument("--output", type=Path, default=HERE / "site", help="default: %(default)s")
    options = parser.parse_args()
    try:
        build(options.model, options.output)
    except (OSError, ValueError) as error:
        sys.exit(f"build.py: error: {error}")
    print(f"python -m http.server --directory {options.output}")


if __name__ == "__main__":
    main()
