# /// script
# requires-python = ">=3.10"
# dependencies = [
#   "fonttools==4.68.0",
#   "brotli==1.2.1",
#   "fontpkg-literata==3.103",
#   "fontpkg-jetbrains-mono==2.211",
# ]
# ///
"""Make the faces of the site from the packages above: ``make faces``, or ``uv run`` this file.

Each is cut to the characters that the pages use, to the weights 400 to 700, and to the features
that prose needs: no ligatures in code, where two characters must look like two.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont
from fontTools.varLib.instancer import instantiateVariableFont

FONTS = Path(__file__).resolve().parents[1] / "_static" / "fonts"
CHARACTERS = [
    # Latin, Greek, dashes, quotation marks and spaces
    *range(0x20, 0x7F),
    *range(0xA0, 0x100),
    *map(ord, "ŒœŠšŽžŁłČčĆćĞğŞş"),
    *range(0x391, 0x3CA),
    *map(ord, "\u2009\u2010\u202f–—‘’‚“”„†•…′″€™"),
    # superscripts, subscripts, arrows and operators
    *range(0x2070, 0x2090),
    *map(ord, "←↑→↓∂∏∑−√∞∫≈≠≤≥"),
]
CODE = ["ccmp", "mark", "mkmk", "locl"]
PROSE = [*CODE, "kern", "liga", "lnum", "tnum", "rvrn"]
# Of Literata the cut for text of 14 px and more. Bold italics are so rare that a browser may
# thicken the italic.
FACES = (
    (
        "literata",
        "Literata[opsz,wght]",
        {"opsz": 14, "wght": (400, 700)},
        PROSE,
    ),
    (
        "literata",
        "Literata-Italic[opsz,wght]",
        {"opsz": 14, "wght": 400},
        PROSE,
    ),
    ("jetbrains_mono", "JetBrainsMono[wght]", {"wght": (400, 700)}, CODE),
)


def main() -> None:
    # fontTools dates what it writes; the same source shall give the same file.
    os.environ["SOURCE_DATE_EPOCH"] = "0"
    for package, name, axes, features in FACES:
        source = files(f"fontpkg_{package}")
        with (source / "files" / f"{name}.ttf").open("rb") as file:
            font = TTFont(file)
            options = Options(layout_features=features, hinting=False)
            subsetter = Subsetter(options)
            subsetter.populate(unicodes=CHARACTERS)
            subsetter.subset(font)
            font = instantiateVariableFont(font, axes)
            font.flavor = "woff2"
            path = FONTS / f"{name.split('[')[0]}.woff2"
            font.save(path)
        license = FONTS / f"LICENSE-{name.split('[')[0].split('-')[0]}"
        license.write_bytes((source / "LICENSE").read_bytes())
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
