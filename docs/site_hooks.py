"""Pages of the site that are made from files outside `docs/`, and links between both.

`make docs` builds the site. The README is its home page; the model card, the changelog,
CONTRIBUTING and the examples' READMEs are pages; each package gets a reference page.
"""

import os
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
OWN = re.compile(
    r"https://(?:raw\.githubusercontent\.com/[\w-]+/musical-tf/main"
    r"|github\.com/[\w-]+/musical-tf/(?:blob|tree)/main)/"
)
"""The README's absolute links to files of the checkout."""

DOCUMENTS = {
    "index.md": "README.md",
    "model_card.md": "MODEL_CARD.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "examples/index.md": "examples/README.md",
} | {
    f"examples/{file.parent.name}.md": f"examples/{file.parent.name}/README.md"
    for file in ROOT.glob("examples/*/README.md")
}
"""Page -> file of the checkout."""

REFERENCE = {
    "musical_tf": ("musical_tf", "Library"),
    "layers": ("musical_tf/layers", "Layers"),
    "losses": ("musical_tf/losses", "Losses"),
    "methods": ("musical_tf/methods", "Methods"),
    "images": ("musical_tf/images", "Photographs and masks"),
    "serving": ("serving", "Serving"),
    "export": ("export", "Export"),
    "training": ("training", "Training"),
}
"""Page -> folder of modules, heading."""


def reference(folder: str, heading: str) -> str:
    """A page with the docstrings of a folder's modules; subfolders may have other pages."""
    parts = [f"# {heading}", f"Modules of `{folder}`, from their docstrings."]
    for file in sorted((ROOT / folder).rglob("*.py")):
        path = file.relative_to(ROOT)
        pages = [other for other, _ in REFERENCE.values() if path.is_relative_to(other)]
        module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        if max(pages, key=len) == folder and "._" not in module:
            parts.append(f"## `{module}`")
            exports = re.findall(r'^    "(\w+)",$', file.read_text("utf-8"), re.M)
            members = ""
            if file.name == "__init__.py" and exports and folder != "musical_tf":
                members = ", members: false"  # each is shown under the module that defines it
                parts.append(f"Exports {', '.join(f'`{name}`' for name in exports)}.")
            parts.append(f"::: {module}\n    options: {{show_root_heading: false{members}}}")
    return "\n\n".join(parts)


def on_config(config):
    """Lists every example under "How-to"; their titles are those of their pages."""
    (pages,) = (entry["How-to"] for entry in config.nav if "How-to" in entry)
    names = sorted(name for name in DOCUMENTS if name.startswith("examples/"))
    names.remove("examples/index.md")
    pages.append({"Other applications": ["examples/index.md", *names]})


def on_files(files, config):
    """Adds the generated pages."""
    for page, source in DOCUMENTS.items():
        # A Space of the Hugging Face Hub has its settings above the text.
        text = re.sub(r"\A---\n.*?\n---\n", "", (ROOT / source).read_text("utf-8"), flags=re.S)
        files.append(File.generated(config, page, content=text))
    for page, arguments in REFERENCE.items():
        files.append(File.generated(config, f"reference/{page}.md", content=reference(*arguments)))
    return files


def on_page_markdown(markdown, page, config, files, **_):
    """Leads links to pages of the site if there is one, else to the repository."""
    uri = page.file.src_uri
    folder = os.path.dirname(DOCUMENTS.get(uri, f"docs/{uri}"))
    pages = {source: name for name, source in DOCUMENTS.items()}
    pages |= {source: f"reference/{name}.md" for name, (source, _) in REFERENCE.items()}

    def lead(match):
        target, hash_sign, anchor = OWN.sub("/", match[1]).partition("#")
        if not target or re.match(r"\w+:", target):
            return match[0]
        path = target[1:] if target.startswith("/") else os.path.join(folder, target)
        path = os.path.normpath(path)
        name = pages.get(path) or pages.get(f"{path}/README.md") or path.removeprefix("docs/")
        if files.get_file_from_path(name):
            return f"]({os.path.relpath(name, os.path.dirname(uri) or '.')}{hash_sign}{anchor})"
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"]({config.extra['repository']}/{kind}/main/{path})"

    parts = re.split(r"(^```.*?^```|`[^`\n]+`)", markdown, flags=re.M | re.S)
    parts[::2] = [re.sub(r"\]\(([^)\s]+)\)", lead, text) for text in parts[::2]]
    return "".join(parts)
