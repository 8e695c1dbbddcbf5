"""Pictures of the page for its documentation: python -m docs.tools.app_images docs/pictures

Starts the page on the quickstart's models, uses its four tabs in headless Chromium, and writes
app_draw.png, app_caption.png, app_classify.png and app_search.png. With --upscaler=FOLDER, that
`docs.tools.upscaling_images` trained say, the drawings are enlarged. Needs the extra `browser`.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from clip_jax.atomic_file import replace_file
from clip_jax.cli import Parser
from clip_jax.model_folder import read_config
from docs.tools.browser import Page, browser, served
from experiments.cli.exit_status import exit_status
from experiments.data.digits_ru import NAMES, digits
from experiments.train import MODEL

PROMPT = "рукописная цифра семь"
RUNS = {"model": "rudolph", "vqgan": "vqgan", "ruclip": "ruclip"}  # option -> quickstart's run
PHOTOS = 200
UPLOADED = 7  # which of them
SIDE = 128  # pixels, magnified from 8
COLOURS = 256  # of an image of the page, for a small file


def take_pictures(models: Path, out: Path, upscaler: Path | None = None) -> list[Path]:
    """One of each tab, something done there. models: what the quickstart left.

    upscaler: the folder of a network that enlarges the drawings.
    """
    folders = {option: models / name / MODEL for option, name in RUNS.items()}
    if upscaler is not None:
        folders["upscaler"] = upscaler
    for folder in folders.values():
        read_config(folder)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        photo = write_photos(home / "digits")[UPLOADED]
        options = [f"--{option}={folder}" for option, folder in folders.items()]
        with (
            served([*options, f"--images={photo.parent}"]) as server,
            browser(home) as driver,
        ):
            page = Page(driver, server.url)
            page.write("prompt", PROMPT)
            if upscaler is not None:
                page.find("upscale", "input")[0].click()
            page.press("draw")
            page.wait_for("drawn", "best first")
            files = [save(page, out / "app_draw.png")]
            page.turn_to("Caption")
            page.upload("caption-image", photo)
            page.press("caption")
            page.wait_for("captions", "score")
            files.append(save(page, out / "app_caption.png"))
            page.turn_to("Classify")
            page.upload("classify-image", photo)
            page.write("labels", ", ".join(NAMES))
            page.write("template", "рукописная цифра {}")
            page.press("classify")
            page.wait_for("by-rudolph", "%")
            files.append(save(page, out / "app_classify.png"))
            page.turn_to("Search")
            page.write("sought", PROMPT)
            page.press("search")
            page.wait_for("searched", "images in the folder")
            page.wait(lambda: page.find("found", "img"))
            return [*files, save(page, out / "app_search.png")]


def write_photos(folder: Path) -> list[Path]:
    folder.mkdir()
    files = []
    for number, pixels in enumerate(digits()[0][:PHOTOS]):
        files.append(folder / f"{number:03}.png")
        Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST).save(files[-1])
    return files


def save(page: Page, file: Path) -> Path:
    """What is seen, to the last part of the tab, in few colours."""
    page.leave_alone()
    page.wait(lambda: all(page.driver.execute_script(LOADED)))
    with Image.open(io.BytesIO(page.driver.get_screenshot_as_png())) as picture:
        few = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    few.save(buffer, "PNG", optimize=True)
    replace_file(file, buffer.getvalue())
    return file


LOADED = "return [...document.images].map(image => image.complete)"


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: _run(argv), argv)


def _run(argv: Sequence[str]) -> None:
    parser = Parser(prog="python -m docs.tools.app_images", description=__doc__)
    parser.add_argument("out", type=Path, help="a folder for the pictures")
    parser.add_argument(
        "--models", type=Path, default=Path("runs/quickstart"), help="what the quickstart left"
    )
    parser.add_argument("--upscaler", type=Path, help="folder of a network that enlarges")
    args = parser.parse_args(argv)
    for file in take_pictures(args.models, args.out, args.upscaler):
        print(file)


if __name__ == "__main__":
    sys.exit(main())
