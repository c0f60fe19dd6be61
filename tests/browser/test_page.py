"""The status page in headless Chromium; run by scripts/test-page.sh.

Every claim prints "ok: ..."; the first that does not hold ends it with a traceback and exit code 1.
"""

import pathlib
import re
import socket
import sys
import time

from playwright.sync_api import sync_playwright

from service import PATIENCE, TOKEN, Service, eventually

CHROMIUM, BINARY, SCREENSHOTS = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])

# Text of less contrast with what lies behind it than WCAG AA wants.
FAINT = """() => {
  const channel = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || element.disabled || !element.checkVisibility() || element.closest("svg, script, noscript, .quiet")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(parse(style.color)), light(behind(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faint.push(`${element.textContent.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
  }
  return faint;
}"""


def ok(claim):
    print(f"ok: {claim}", flush=True)


class Tab:
    """A page that notes what it must not do: errors, and requests to others."""

    def __init__(self, browser, service, state="live", **options):
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(PATIENCE * 1000)
        self.page = self.context.new_page()
        self.errors, self.strangers, self.loads = [], [], 0
        self.page.on("console", self.heard)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.asked(request, service))
        self.page.goto(service.url)
        self.page.wait_for_selector(f'#connection[data-state="{state}"]')

    def heard(self, message):
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def asked(self, request, service):
        if request.is_navigation_request():
            self.loads += 1
        if not request.url.startswith((service.url, "data:")):
            self.strangers.append(request.url)

    def text(self, selector):
        return self.page.inner_text(selector)

    def shoot(self, name):
        # A moment after which nothing moves any more.
        self.page.evaluate("() => document.fonts.ready")
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    def close(self, expected=()):
        """Ends the tab, which must have been silent but for what was expected."""
        errors = [e for e in self.errors if not any(re.search(pattern, e) for pattern in expected)]
        assert not errors, errors
        assert not self.strangers, self.strangers
        assert self.loads == 1, f"loaded {self.loads} times"
        self.context.close()


def updates_by_itself(browser):
    with Service(BINARY, schedule="*/2 * * * * *") as service:
        tab = Tab(browser, service)
        page = tab.page
        page.wait_for_selector('#verdict[data-verdict="safe"]')
        assert tab.text("#word") == "Safe"
        ok("the page loads, is live, and says that the data is safe")
        before = page.inner_text("#backups td .mono")
        page.wait_for_function(
            "before => document.querySelector('#backups td .mono').textContent !== before", arg=before)
        events = page.locator("#events li").count()
        page.wait_for_function("count => document.querySelectorAll('#events li').length > count", arg=events)
        page.wait_for_selector("#chart .dot")
        ok("a tick shows by itself: list, events and chart change without a reload")
        shown = page.locator("#backups td .mono").all_inner_texts()
        assert len(set(shown)) == len(shown) <= 4 and shown == sorted(shown, reverse=True), shown
        ok("what is deleted leaves the list, the newest stays on top")

        service.store.rename(service.root / "away")
        page.wait_for_selector('#verdict[data-verdict="failing"]')
        assert tab.text("#word") == "Failing"
        warning = tab.text("#warnings")
        assert "The last hourly backup failed" in warning and "What to do:" in warning, warning
        assert page.title().startswith("Failing"), page.title()
        page.wait_for_selector("#chart .failed")
        tab.shoot("failing")
        phone = Tab(browser, service, viewport={"width": 390, "height": 844}, color_scheme="dark")
        phone.page.wait_for_selector("#warnings li")
        phone.shoot("failing-phone-dark")
        phone.close()
        ok("a store that dies shows as failing without a reload, with what to do")
        (service.root / "away").rename(service.store)
        page.wait_for_selector('#verdict[data-verdict="safe"]')
        ok("once it is back, the next backup shows as safe again")

        service.stop()
        page.wait_for_selector('#verdict[data-verdict="unknown"]')
        assert tab.text("#word") == "No answer" and "Nothing was heard" in tab.text("#sentence")
        tab.shoot("no-answer")
        tab.close(expected=["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET"])
        ok("a service that is gone is not called safe")


def does_as_asked(browser):
    # The name of the database is text, whatever it looks like.
    name = "<img src=x onerror=alert(1)>.db"
    with Service(BINARY, name=name) as service:
        tab = Tab(browser, service)
        page = tab.page
        assert tab.text("#database").endswith(name)
        assert page.locator("#database img").count() == 0
        ok("text from the service is text")

        page.click("#back-up")
        page.wait_for_function("() => document.getElementById('answer').textContent.includes('token first')")
        page.fill("#token", "wrong")
        page.click("#back-up")
        page.wait_for_function("() => document.getElementById('answer').textContent === 'Wrong token.'")
        assert not list(service.store.iterdir())
        assert page.evaluate("() => sessionStorage.length") == 0
        assert page.evaluate("() => document.activeElement.id") == "token"
        ok("a wrong token is told, kept nowhere, and asked for again")

        page.fill("#token", TOKEN)
        page.click("#back-up")
        page.wait_for_function("() => document.getElementById('answer').textContent.startsWith('Backup made: db-backup-')")
        page.wait_for_selector("#backups tbody tr")
        [stored] = [path.name for path in service.store.iterdir()]
        assert stored in tab.text("#backups"), tab.text("#backups")
        assert page.url == service.url and TOKEN not in page.url
        ok("Back up now makes a backup, and the list shows it")

        page.click("#verify")
        page.wait_for_function("() => document.getElementById('answer').textContent.startsWith('Sound: db-backup-')")
        page.wait_for_function("() => document.getElementById('backups').textContent.includes('Restored and checked')")
        assert "passed" in tab.text("#drill"), tab.text("#drill")
        ok("Verify now restores it to check it, and the list says so")

        offers_commands(tab, service, stored)
        keyboard(tab)
        listens(tab)
        tab.close(expected=[r"401.*/backup\)$"])


def offers_commands(tab, service, stored):
    page = tab.page
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=service.url)
    button = page.get_by_role("button", name=f"Restore {stored}")
    button.click()
    assert button.get_attribute("aria-expanded") == "true"
    commands = page.locator(".recipe pre").all_inner_texts()
    assert len(commands) == 3 and all(stored in text for text in commands), commands
    page.locator(".recipe button").last.click()
    page.wait_for_function("() => [...document.querySelectorAll('.recipe button')].at(-1).textContent === 'Copied'")
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied == commands[-1] and "gunzip" in copied and "sqlite3" in copied, copied
    ok("the commands that restore a backup are there, and the copy button copies them")
    # Open rows stay open when the list changes.
    service.write(10)
    service.post("backup")
    page.wait_for_function("() => document.querySelectorAll('#backups td .mono').length === 2")
    assert page.locator(".recipe pre").count() == 3
    ok("an open row stays open when another backup comes")


def keyboard(tab):
    page = tab.page
    wanted = page.evaluate("""() => [...document.querySelectorAll('button, input, summary, a')]
        .filter(e => e.checkVisibility() && !e.disabled).length""")
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    seen = set()
    for _ in range(wanted + 12):
        page.keyboard.press("Tab")
        focus = page.evaluate("""() => {
            const e = document.activeElement;
            if (e === document.body) return null;
            if (!e.dataset.seen) e.dataset.seen = String(Math.random());
            return [e.dataset.seen, e.tagName, getComputedStyle(e).outlineStyle, getComputedStyle(e).outlineWidth];
        }""")
        if focus is None:
            continue
        assert focus[2] != "none" and focus[3] != "0px", f"no visible focus: {focus}"
        if focus[1] in ("BUTTON", "INPUT", "SUMMARY", "A"):
            seen.add(focus[0])
    assert len(seen) == wanted, f"{len(seen)} of {wanted} reached"
    page.focus("#numbers summary")
    page.keyboard.press("Enter")
    page.wait_for_selector("#number-rows tr")
    ok(f"all {wanted} controls are reached by keyboard, each with a visible focus")


def listens(tab):
    page = tab.page
    for role, count in (("banner", 1), ("main", 1), ("contentinfo", 1)):
        assert page.get_by_role(role).count() == count, role
    assert page.get_by_role("heading", level=1).count() == 1
    live = page.locator("[aria-live=polite]").evaluate_all("all => all.map(e => e.id)")
    assert live == ["word", "answer"], live
    heads = page.get_by_role("columnheader").all_inner_texts()
    assert {"Backup", "Size", "Rows", "Checked", "When"} <= set(heads), heads
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, input, summary, a, section')]
        .filter(e => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).length""")
    assert nameless == 0
    assert page.get_by_role("img", name=re.compile("backup")).count() == 1
    ok("landmarks, headings, column headers and names are there for those who listen")


def looks_well(browser):
    """Eight backups of as many hours, then some of now: what a person sees on an ordinary day."""
    service = Service(BINARY, schedule="0 0 * * * *", BACKUP_KEEP="12")
    for hours in range(8, 0, -1):
        service.run("backup")
        service.age(hours)
        service.write(60)
    for older in service.root.glob("db-backup-*"):
        older.rename(service.store / older.name)
    with service:
        for _ in range(4):
            service.write(40)
            service.post("backup")
        service.post("verify")
        for name, options in {
            "desktop-light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
            "desktop-dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
            "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
            "phone-narrow-dark": {"viewport": {"width": 320, "height": 640}, "color_scheme": "dark"},
        }.items():
            tab = Tab(browser, service, reduced_motion="reduce", **options)
            page = tab.page
            page.wait_for_selector('#verdict[data-verdict="safe"]')
            # Rows of the backups of before come from their headers.
            page.wait_for_function("""() => document.querySelectorAll('#backups tbody').length === 12
                && ![...document.querySelectorAll('#backups td[data-label=Rows]')].some(e => e.textContent === '–')""")
            page.wait_for_selector("#chart svg")
            tab.shoot(name)
            page.click("#backups tbody button")
            page.click("#numbers summary")
            faint = page.evaluate(FAINT)
            assert not faint, f"{name}: {faint}"
            wide = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, f"{name}: {wide} px too wide"
            small = page.evaluate("""() => [...document.querySelectorAll('button')]
                .filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 30).length""")
            assert small == 0
            if name == "phone":
                tab.shoot("phone-commands")
            tab.close()
    ok("light and dark have contrast, a phone of 320 px has no sideways scrolling")
    ok("rows of backups of an earlier process are shown")


def countdown_runs(browser):
    with Service(BINARY, schedule="0 0 * * * *", HTTP_TOKEN="") as service:
        tab = Tab(browser, service)
        page = tab.page
        # At the turn of the hour it reads otherwise for a moment.
        seen = eventually("a countdown", lambda: re.fullmatch(r"in (\d+):(\d\d)", tab.text("#next")))
        page.wait_for_function("before => document.getElementById('next').textContent !== before", arg=seen[0])
        assert page.locator("#ask").is_hidden() and "No token is configured" in tab.text("#ask-not")
        assert tab.text("#word") == "Starting"
        tab.shoot("first-start")
        tab.close()
    ok("the countdown runs; without a token the page says which setting to make")


def asks_where_it_cannot_listen(browser):
    with Service(BINARY) as service:
        listeners = [socket.create_connection(service.address.split(":")) for _ in range(16)]
        for listener in listeners:
            listener.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
            assert listener.recv(12).endswith(b"200")
        tab = Tab(browser, service, state="asking")
        assert tab.text("#word") == "Starting"
        service.post("backup")
        tab.page.wait_for_selector('#verdict[data-verdict="safe"]')
        for listener in listeners:
            listener.close()
        tab.close(expected=[r"503.*/events\)$"])
    ok("where sixteen listen already, the page asks now and then, and still shows what happens")


def main():
    began = time.monotonic()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for test in (updates_by_itself, does_as_asked, looks_well, countdown_runs,
                     asks_where_it_cannot_listen):
            test(browser)
        browser.close()
    shots = ", ".join(sorted(path.name for path in SCREENSHOTS.glob("*.png")))
    print(f"screenshots in {SCREENSHOTS}: {shots}")
    print(f"all in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
