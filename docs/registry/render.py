"""Render icon.svg and banner.svg to the PNG files that pyproject.toml names: python docs/registry/render.py"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from browser.comfy_page import launch
from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).resolve().parent

with sync_playwright() as playwright:
    browser = launch(playwright)
    for name in ("icon", "banner"):
        drawing = (FOLDER / f"{name}.svg").read_text()
        width, height = map(int, re.search(r'width="(\d+)" height="(\d+)"', drawing).groups())
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_content(f"<style>body {{margin: 0}}</style>{drawing}")
        page.screenshot(path=FOLDER / f"{name}.png", omit_background=True)
    browser.close()
