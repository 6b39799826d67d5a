"""The notebooks with all that they need of this project, for a machine without a network.

`make zip` writes _build/gmmedu-notebooks.zip: the chapters, the pages that they link to, the
wheel, which holds their data, and how to run them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "gmmedu-notebooks"
README = """\
Gaussian mixture models from the ground up: the notebooks

These notebooks need Python 3.10 or newer, JupyterLab or another program for notebooks, and the
packages that the wheel beside this text asks for; their data and studies are in the wheel.

On the machine without a network, where those packages are installed:

    python -m pip install --no-index --no-deps {wheel}
    jupyter lab

Where they are not, fetch them on a machine that has a network, the same system and the same
Python, and take the folder along:

    python -m pip download -d packages -c constraints.txt "./{wheel}[notebooks]" jupyterlab
    python -m pip install --no-index --find-links packages "./{wheel}[notebooks]" jupyterlab

Begin with 00-first-look.ipynb.
"""


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout, in the folder. Raises CalledProcessError where it fails."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def pictures(pages: list[Path]) -> list[str]:
    """The files of `_static` that the pages show, from the folder of the book."""
    texts = (page.read_text("utf-8") for page in pages)
    named = {name for text in texts for name in re.findall(r"_static/[\w-]+\.\w+", text)}
    return sorted(name for name in named if (ROOT / "book" / name).is_file())


def write_zip(path: Path) -> None:
    """Writes the zip to ``path``, or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        wheel = build_wheel(Path(folder))
        archive.write(wheel, f"{FOLDER}/{wheel.name}")
        archive.writestr(f"{FOLDER}/README.txt", README.format(wheel=wheel.name))
        pages = [*(ROOT / "book").glob("*.ipynb"), *(ROOT / "book").glob("*.md")]
        others = [ROOT / name for name in ("constraints.txt", "LICENSE", "LICENSE-text")]
        for file in sorted(pages) + others:
            archive.write(file, f"{FOLDER}/{file.name}")
        for name in pictures(pages):
            archive.write(ROOT / "book" / name, f"{FOLDER}/{name}")
    unfinished.replace(path)


if __name__ == "__main__":
    write_zip(ROOT / "_build" / f"{FOLDER}.zip")
    print(f"The notebooks are at _build/{FOLDER}.zip")
