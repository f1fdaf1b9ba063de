"""Open a page in headless Chromium as several readers would.

`look_at_page.py CHROMIUM PAGE FOLDER`, run by the Python of the venv `browser`. It prints what it
saw as JSON, and leaves screenshots.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True}
READERS: dict[str, dict[str, Any]] = {
    "desk": {"viewport": {"width": 1100, "height": 800}, "color_scheme": "light"},
    "phone": {**PHONE, "color_scheme": "light"},
    "dark": {**PHONE, "color_scheme": "dark"},
}
MEASURE = """
() => {
  const luminance = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).map(Number).slice(0, 3).map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = luminance(getComputedStyle(document.body).backgroundColor);
  const contrast = (element, property) => {
    const ink = luminance(getComputedStyle(element)[property]);
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  };
  const symbols = (card) => [...card.querySelectorAll('svg .mark-symbol path')].map(
    (path) => path.getAttribute('d'),
  );
  const all = (selector) => [...document.querySelectorAll(selector)];
  return {
    width: document.documentElement.scrollWidth,
    paper,
    least_contrast: Math.min(...all('h1, h2, p, li, span').map((e) => contrast(e, 'color'))),
    least_contrast_of_charts: Math.min(
      ...all('svg .mark-line path').map((e) => contrast(e, 'stroke')),
      ...all('svg text').map((e) => contrast(e, 'fill')),
    ),
    smallest_letters: Math.min(...all('svg text').map((e) => e.getBoundingClientRect().height)),
    statuses: all('article').map((e) => [
      e.querySelector('h2').firstChild.textContent.trim(), e.querySelector('.status').textContent,
    ]),
    text: document.body.innerText,
    charts: Object.fromEntries(all('article').filter((e) => e.querySelector('svg')).map((e) => [
      e.querySelector('h2').firstChild.textContent.trim(), {
        label: e.querySelector('svg').getAttribute('aria-label'),
        lines: all('svg .mark-line path').filter((p) => e.contains(p)).map((p) => [
          p.getAttribute('d').split('M').length - 1, p.getAttribute('stroke-dasharray'),
        ]),
        triangles: symbols(e).filter((d) => !d.includes('A')).length,
        dots: symbols(e).filter((d) => d.includes('A')).length,
      },
    ])),
  };
}
"""


def main() -> None:
    """Look, and tell."""
    chromium, page_path, folder = sys.argv[1:]
    seen = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        for reader, options in READERS.items():
            context = browser.new_context(offline=True, **options)
            page = context.new_page()
            requests: list[str] = []
            complaints: list[str] = []
            page.on("request", lambda request, to=requests: to.append(request.url))
            page.on("console", lambda message, to=complaints: to.append(message.text))
            page.goto(Path(page_path).resolve().as_uri())
            seen[reader] = {
                **page.evaluate(MEASURE),
                "requests": len(requests),
                "complaints": complaints,
            }
            page.screenshot(path=Path(folder) / f"{reader}.png")
            context.close()
        browser.close()
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
