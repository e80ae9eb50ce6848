"""Opens the demo page in headless Chromium, types a sentence, looks for its entities, and keeps a screenshot. Run by hand in the
repository: it needs a browser (Debian: apt install chromium) and a trained model.

    pip install playwright
    python tests/support/check_page.py \
        --model glode-demo --text "李静上周从成都飞到了柏林。" --expect 李静 --screenshot docs/app.png
"""

import argparse
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

PORT = 7861


def wait_for(address: str, seconds: int = 120) -> None:
    for _ in range(seconds):
        try:
            urllib.request.urlopen(address, timeout=2)
            return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(1)
    raise TimeoutError(f"{address} does not answer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--expect", required=True, help="an entity that has to be highlighted")
    parser.add_argument("--screenshot", type=Path, required=True)
    options = parser.parse_args()
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    server = subprocess.Popen([sys.executable, "-m", "glode", "app", "--model", options.model, "--port", str(PORT)])
    try:
        wait_for(f"http://127.0.0.1:{PORT}/")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1100, "height": 900})
            page.goto(f"http://127.0.0.1:{PORT}/")
            page.locator("#text textarea").fill(options.text)
            page.locator("#find").click()
            marked = page.locator("#entities .token.highlighted", has_text=options.expect).first
            marked.wait_for(timeout=60_000)
            print("highlighted:", marked.inner_text().replace("\n", " "))
            page.screenshot(path=options.screenshot, full_page=True)
            page.get_by_role("tab", name="Training report").click()
            page.get_by_text("Spans of each type in the pseudo labels").wait_for(timeout=30_000)
            report = options.screenshot.with_stem(options.screenshot.stem + "-report")
            page.wait_for_timeout(1500)
            page.screenshot(path=report, full_page=True)
            print("screenshots:", options.screenshot, report)
            browser.close()
    finally:
        server.terminate()


if __name__ == "__main__":
    main()
