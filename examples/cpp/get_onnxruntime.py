"""Lays out ONNX Runtime for C++ from what Debian and PyPI have: FOLDER/include and FOLDER/lib.

    python get_onnxruntime.py [FOLDER]

No package of PyPI or npm carries the C++ headers, so they come from Debian's libonnxruntime-dev
(version 1.21). The library is the one inside the installed Python package `onnxruntime`, so that
the C++ program and Python run the same kernels; a newer library serves older headers. Whoever
reaches GitHub takes a release archive instead, which holds both:
https://github.com/microsoft/onnxruntime/releases
"""

import argparse
import hashlib
import importlib.util
import io
import lzma
import shutil
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

HEADERS = (
    "http://deb.debian.org/debian/pool/main/o/onnxruntime/"
    "libonnxruntime-dev_1.21.0+dfsg-1_amd64.deb"
)
HEADERS_SHA256 = "14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08"
HEADERS_FOLDER = "./usr/include/onnxruntime/"


def main() -> int:
    """Runs the command line; returns 0 or 1."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path(__file__).resolve().parent / "onnxruntime",
        help="where to; replaced if it is there (default: %(default)s)",
    )
    folder = parser.parse_args().folder
    try:
        library = installed_library()
        headers = unpack_headers(download(HEADERS, HEADERS_SHA256))
        lay_out(folder, headers, library)
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    print(f"{folder}: {len(headers)} headers, {library.name}")
    return 0


def installed_library() -> Path:
    """The shared library inside the installed Python package."""
    package = importlib.util.find_spec("onnxruntime")
    found = sorted(Path(package.origin).parent.glob("capi/libonnxruntime.so.*")) if package else []
    if not found:
        raise FileNotFoundError(
            "the Python package onnxruntime for Linux is not installed, or holds no shared library"
        )
    return found[0]


def download(url: str, sha256: str) -> bytes:
    """The bytes at `url`, which must have this hash."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            content = answer.read()
    except urllib.error.URLError as error:
        raise OSError(
            f"cannot download {url}: {error.reason}; take the headers from a release archive of "
            "ONNX Runtime and give its folder to CMake as ONNXRUNTIME_ROOT"
        ) from error
    if (received := hashlib.sha256(content).hexdigest()) != sha256:
        raise ValueError(f"{url}: expected sha256 {sha256}, got {received}")
    return content


def unpack_headers(package: bytes) -> dict[str, bytes]:
    """The headers, by their path below `HEADERS_FOLDER`, of a Debian package: an ar archive."""
    position = len(b"!<arch>\n")
    while position < len(package):  # each member: a header of 60 bytes, then its content, padded
        name = package[position : position + 16].decode().strip().rstrip("/")
        size = int(package[position + 48 : position + 58])
        start = position + 60
        if name == "data.tar.xz":
            data = lzma.decompress(package[start : start + size])
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                return {
                    member.name.removeprefix(HEADERS_FOLDER): archive.extractfile(member).read()
                    for member in archive
                    if member.isfile() and member.name.startswith(HEADERS_FOLDER)
                }
        position = start + size + size % 2
    raise ValueError("the Debian package holds no data.tar.xz")


def lay_out(folder: Path, headers: dict[str, bytes], library: Path) -> None:
    """Writes `folder`, whole or not at all."""
    if folder.exists() and not (folder / "include").is_dir():
        raise FileExistsError(f"{folder} is there and was not made by this program")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        made = Path(name) / "made"
        for path, content in headers.items():
            target = made / "include" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        (made / "lib").mkdir()
        for link in ("libonnxruntime.so", "libonnxruntime.so.1"):  # for the linker, for the loader
            (made / "lib" / link).symlink_to(library)
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)


if __name__ == "__main__":
    sys.exit(main())
