#!/usr/bin/env bash
# The status page in a real browser: a headless Chromium on the real binary. Each line "ok: …" is a
# claim that was checked; the first that does not hold ends the script with 1. What the page looks
# like is kept in target/screenshots.
#
#   scripts/test-page.sh      needs Chromium and Playwright: installs them, or skips where it cannot
set -euo pipefail
cd "$(dirname "$0")/.."

skip() { printf 'SKIPPED: nothing of scripts/test-page.sh was shown: %s\n' "$*" >&2; exit 0; }

find_chromium() { command -v chromium || command -v chromium-browser || command -v google-chrome; }
if ! find_chromium >/dev/null; then
    [ "$(id -u)" = 0 ] || skip "no Chromium, and not root to install it"
    { apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || skip "Chromium cannot be installed"
    find_chromium >/dev/null || skip "no Chromium in spite of its package"
fi

# Playwright only drives the browser that is there: it downloads none.
python=python3
if ! python3 -c 'import playwright.sync_api' 2>/dev/null; then
    python=target/browser/bin/python
    if ! "$python" -c 'import playwright.sync_api' 2>/dev/null; then
        { python3 -m venv target/browser \
            && "$python" -m pip install --quiet --disable-pip-version-check playwright==1.65.2; } \
            || skip "Playwright cannot be installed from PyPI"
    fi
fi

cargo build --locked --bins
exec "$python" tests/browser/test_page.py "$(find_chromium)" target/debug/simplebackup target/screenshots
