"""Draw the guide's own pictures into guides/images/. Those named ex_0N_... come from the exercises' runs instead.

    python guides/draw_pictures.py              all of them
    python guides/draw_pictures.py NAME         only draw_NAME, into images/NAME.png

Every function `draw_NAME() -> Figure` here makes the picture NAME.png: a solid white background, so that it can be read
in light and dark mode, and text that can be read at a width of 800 pixels.
"""

from __future__ import annotations

import sys
from pathlib import Path

IMAGES = Path(__file__).resolve().parent / "images"


def pictures() -> dict:
    """{NAME: function} of every draw_NAME above or below."""
    return {name.removeprefix("draw_"): function for name, function in globals().items() if name.startswith("draw_")}


def main(argv: list[str] | None = None) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    wanted = (sys.argv[1:] if argv is None else argv) or list(pictures())
    IMAGES.mkdir(exist_ok=True)
    for name in wanted:
        if name not in pictures():
            sys.exit(f"error: there is no picture {name!r}; there are {', '.join(pictures()) or 'none'}")
        figure = pictures()[name]()
        fresh = IMAGES / f"{name}.png.new"
        figure.savefig(fresh, format="png", dpi=120, bbox_inches="tight", facecolor="white")
        fresh.replace(IMAGES / f"{name}.png")
        plt.close(figure)


if __name__ == "__main__":
    main()
