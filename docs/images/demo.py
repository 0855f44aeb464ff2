"""Takes the pictures of the page: in Chromium, wide and narrow, light and dark.

python docs/images/demo.py                       # the model of `make demo`; writes demo*.png beside this file
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.append(str(ROOT / "tests" / "examples" / "demo"))
from browser import Page, browser, served  # noqa: E402

PICTURES = {
    "demo.png": (1280, 900, "light"),
    "demo-dark.png": (1280, 900, "dark"),
    "demo-phone.png": (390, 844, "light"),
    "demo-phone-dark.png": (390, 844, "dark"),
}
"""Width and height in pixels, and the theme, by name of the file."""
COLOURS = 128


def main() -> None:
    """Take them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "outputs" / "quickstart" / "model")
    parser.add_argument("--output", type=Path, default=HERE, help="folder for the pictures")
    arguments = parser.parse_args()
    driver = browser()
    driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
    try:
        with served(arguments.model) as address:
            page = Page(driver, address)
            for name, (width, height, theme) in PICTURES.items():
                page.open(f"?__theme={theme}", width, height)
                time.sleep(1)  # transitions of the theme
                picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
                picture.quantize(COLOURS).save(arguments.output / name, optimize=True)
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
