"""Run graphs in the editor, and keep screenshots of them: for the documentation, and as a start for thumbnails.

python tests/browser/screenshots.py OUT GRAPH.json ... writes OUT/GRAPH.png, and OUT/GRAPH.json as the editor saves it.
Graphs may be in the UI or the API format; `--locale zh` shows them in Chinese, `--as-is` does not run them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from browser.comfy_page import ComfyPage, launch, why_not
from host.comfy_host import Http, find_comfyui


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("graphs", type=Path, nargs="+")
    parser.add_argument("--locale", default="en")
    parser.add_argument("--as-is", action="store_true", help="do not run the graphs")
    options = parser.parse_args()
    if reason := why_not():
        sys.exit(reason)
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as base, sync_playwright() as playwright:
        server = Http(find_comfyui(), Path(base))
        try:
            browser = launch(playwright)
            page = ComfyPage(browser, server.url, options.locale)
            for path in options.graphs:
                page.load(json.loads(path.read_text()), path.stem)
                result = "opened" if options.as_is else page.queue()
                page.screenshot(options.out / f"{path.stem}.png")
                text = json.dumps(page.serialize(), indent=2, ensure_ascii=False)
                (options.out / f"{path.stem}.json").write_text(text + "\n")
                print(path.stem, result, *page.complaints)
                page.complaints.clear()
            browser.close()
        finally:
            server.close()


if __name__ == "__main__":
    main()
