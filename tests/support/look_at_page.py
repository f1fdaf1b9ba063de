"""Open a page in headless Chromium as several readers would.

`look_at_page.py CHROMIUM PAGE FOLDER NOW [ACCOUNT]`, run by the Python of the venv `browser`. NOW
is what the readers' clocks show, ISO 8601 in UTC. With ACCOUNT, they also come later and use the
page, and open the history of that account. It prints what they saw as JSON, and leaves screenshots
and the printed page.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, "timezone_id": "UTC"}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True}
A4: dict[str, Any] = {"viewport": {"width": 703, "height": 1032}, "timezone_id": "UTC"}
"""Without the margins."""

CHARTS = ".history canvas"

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
  const all = (selector) => [...document.querySelectorAll(selector)];
  const seen = all('body *').filter((e) => e.checkVisibility()
    && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())
    && parseFloat(getComputedStyle(e).fontSize) > 0);
  const bottom = (selector) => document.querySelector(selector).getBoundingClientRect().bottom;
  return {
    width: document.documentElement.scrollWidth,
    paper,
    least_contrast: Math.min(...seen.map((e) => contrast(e, 'color'))),
    least_contrast_of_lines: Math.min(...all('#table svg').map((e) => contrast(e, 'stroke'))),
    smallest_letters: Math.min(...seen.map((e) => parseFloat(getComputedStyle(e).fontSize))),
    first_screen: Object.fromEntries(
      ['.counts', '.totals', '.first li', '.sum', '.top-ups tbody tr'].map((s) => [s, bottom(s)])),
  };
}
"""
# The page moves to a day in the next frame.
FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
TEXTS = "(selector) => [...document.querySelectorAll(selector)].map((e) => e.textContent)"


def main() -> None:
    """Look, and print what there is to see."""
    chromium, page_path, folder, now, *account = sys.argv[1:]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        reader = Reader(browser, Path(page_path).resolve(), Path(folder), now)
        seen = reader.look()
        for name in account:
            seen |= {"opened": reader.opened_later(), "used": reader.use(name)}
        browser.close()
    json.dump(seen | reader.noticed, sys.stdout)


class Reader:
    """Whoever opens the page.

    Args:
        browser: The browser.
        path: The page.
        folder: Where to leave screenshots.
        now: What the reader's clock shows.
    """

    def __init__(self, browser: Browser, path: Path, folder: Path, now: str) -> None:
        self._browser = browser
        self._path = path
        self._folder = folder
        self._now = now
        self._requests: list[str] = []
        self._complaints: list[str] = []

    @contextmanager
    def _opened(self, *, now: str | None = None, **options: Any) -> Iterator[Page]:  # noqa: ANN401
        context = self._browser.new_context(offline=True, **options)
        page = context.new_page()
        page.clock.set_fixed_time(now or self._now)
        page.on("request", lambda request: self._requests.append(request.url))
        page.on("console", lambda message: self._complaints.append(message.text))
        page.on("pageerror", lambda error: self._complaints.append(str(error)))
        page.goto(self._path.as_uri())
        if options.get("java_script_enabled", True):
            page.wait_for_selector("#table button")
        yield page
        context.close()

    @property
    def noticed(self) -> dict[str, Any]:
        """What was requested and complained of until now."""
        return {"requests": len(self._requests), "complaints": self._complaints}

    def look(self) -> dict[str, Any]:
        """The first screen and the printed sheet."""
        return {
            "readers": {
                name: self._screenshot(name, **options)
                for name, options in {
                    "desk": DESK,
                    "phone": {**PHONE, "timezone_id": "UTC"},
                    "dark": {**DESK, "color_scheme": "dark"},
                }.items()
            },
            "print": self._print(),
            "without_scripts": self._without_scripts(),
        }

    def _screenshot(self, name: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401
        with self._opened(**options) as page:
            measured: dict[str, Any] = page.evaluate(MEASURE)
            page.screenshot(path=self._folder / f"{name}.png")
        return measured

    def _print(self) -> dict[str, Any]:
        with self._opened(**A4) as page:
            pdf = page.pdf(path=self._folder / "print.pdf", prefer_css_page_size=True)
            page.emulate_media(media="print")
            page.screenshot(path=self._folder / "print.png")
            seen = page.evaluate(TEXTS, ".top-ups tbody tr")
            shown = page.evaluate("document.getElementById('accounts').checkVisibility()")
        sheets = pdf.count(b"/Type /Page\n") or pdf.count(b"/Type /Page ")
        return {"sheets": sheets, "rows": len(seen), "table": shown}

    def _without_scripts(self) -> dict[str, Any]:
        with self._opened(**DESK, java_script_enabled=False) as page:
            return {
                "times": page.evaluate(TEXTS, ".age, time"),
                "rows": page.evaluate(
                    "[...document.querySelectorAll('#table tbody tr')]"
                    ".filter((e) => e.checkVisibility()).length"
                ),
                "warning": page.locator(".warning:visible").all_inner_texts(),
            }

    def opened_later(self) -> dict[str, Any]:
        """At once, two days later, and in another zone."""
        opened = {}
        later = (datetime.fromisoformat(self._now) + timedelta(days=2)).isoformat()
        for name, options in {
            "at_once": {"timezone_id": "UTC"},
            "later": {"timezone_id": "UTC", "now": later},
            "in_tokyo": {"timezone_id": "Asia/Tokyo"},
        }.items():
            with self._opened(**{**DESK, **options}) as page:
                page.select_option("select", "-1")
                opened[name] = {
                    "times": page.evaluate(TEXTS, ".age, time"),
                    "warning": page.locator(".warning:visible").all_inner_texts(),
                    "title": page.title(),
                    "heading": page.evaluate(
                        "getComputedStyle(document.querySelector('h1'), '::after').content"
                    ),
                }
        return opened

    def use(self, account: str) -> dict[str, Any]:
        """Filter, search, sort and open a history, by keyboard only, and take the list home."""
        used: dict[str, Any] = {}
        with self._opened(**DESK) as page:
            rows = "#table > tbody > tr"
            used["order"] = page.evaluate(
                "[...document.querySelectorAll('h1, h2, nav, th[scope=col], [role=status]')]"
                ".filter((e) => e.checkVisibility())"
                ".map((e) => [e.tagName, e.id || e.textContent.trim()])"
            )
            page.locator(".counts a.critical").first.press("Enter")
            page.wait_for_selector("#filter", state="visible")
            used["filtered"] = page.evaluate(TEXTS, f"{rows} > td:nth-child(2)")
            used["info"] = page.inner_text(".dt-info")
            used["live"] = page.get_attribute(".dt-info", "aria-live")
            page.locator("#filter a").press("Enter")
            page.wait_for_selector("#filter", state="hidden")
            page.locator("input[type=search]").press_sequentially(account[:2])
            used["found"] = page.evaluate(TEXTS, f"{rows} > th button")
            page.locator("input[type=search]").fill("")
            page.locator("#table th [role=button]").nth(2).press("Enter")
            page.wait_for_selector("#table thead th:nth-child(3)[aria-sort=ascending]")
            page.select_option("select", "-1")
            used["amounts"] = page.evaluate(TEXTS, f"{rows} > td:nth-child(3)")
            used["order_of_names"] = page.evaluate(TEXTS, f"{rows} > th button")
            button = page.get_by_role("button", name=account, exact=True)
            button.press("Enter")
            page.wait_for_selector(CHARTS)
            used["expanded"] = button.get_attribute("aria-expanded")
            page.locator(".history").screenshot(path=self._folder / "history.png")
            used["history"] = [self._legend(page)]
            for _ in range(2):
                page.locator(".history").press("ArrowLeft")
                used["history"].append(self._legend(page))
            button.press("Enter")
            used["closed"] = page.locator(CHARTS).count() == 0
            with page.expect_download() as download:
                page.locator(".download").press("Enter")
            used["csv_name"] = download.value.suggested_filename
            used["csv"] = download.value.path().read_text(encoding="utf-8-sig")
        return used

    def _legend(self, page: Page) -> list[str]:
        page.evaluate(FRAMES)
        values: list[str] = page.evaluate(TEXTS, ".history .u-value")
        return values


if __name__ == "__main__":
    main()
