#!/usr/bin/env bash
# The files of deploy/, each held to the tool that it is for, as far as that can be had here.
#
#   scripts/test-deploy.sh        needs python3; what is missing is skipped, and said
#
# promtool from Debian's package prometheus, systemd-analyze from this machine, docker compose where
# it is installed, and from PyPI the schemas of Kubernetes and a parser of HCL. No server is started;
# scripts/test-compose.sh runs the Compose file for real.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { printf '== %s\n' "$*"; }
skip() { printf 'SKIPPED: %s\n' "$*" >&2; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

# --- Prometheus: the alerts and the expressions of the dashboard -------------------------------
# Only unpacked: an installed package would start a server.
promtool=$(command -v promtool || true)
if [ -z "$promtool" ]; then
    if (cd "$work" && { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } \
            && dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool) >"$work/apt.log" 2>&1; then
        promtool="$work/usr/bin/promtool"
    fi
fi
if [ -n "$promtool" ]; then
    say "promtool: the alerts, and each of them firing and not firing"
    "$promtool" check rules deploy/prometheus/alerts.yml
    "$promtool" test rules deploy/prometheus/alerts_test.yml
    # Each alert has to be in a test that it fires in: promtool does not count them.
    python3 - <<'PYTHON'
import re, sys
alerts = set(re.findall(r"- alert: (\w+)", open("deploy/prometheus/alerts.yml").read()))
tests = open("deploy/prometheus/alerts_test.yml").read()
fires = set(re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n", tests))
rests = set(re.findall(r"alertname: (\w+)\n\s+exp_alerts: \[\]", tests))
for name, tested in (("fires", fires), ("does not fire", rests)):
    if alerts != tested:
        sys.exit(f"no test in which it {name}: {sorted(alerts ^ tested)}")
PYTHON
    say "promtool: the expressions of the dashboard"
    python3 - "$work/dashboard.yml" <<'PYTHON'
import json, sys
panels = json.load(open("deploy/grafana/simplebackup.json"))["panels"]
rules = []
for panel in panels:
    for target in panel.get("targets", []):
        expression = target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
        assert "$" not in expression, expression
        rules.append({"record": f"panel:{panel['id']}:{target['refId']}", "expr": expression})
# JSON is YAML too.
json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, open(sys.argv[1], "w"))
PYTHON
    "$promtool" check rules "$work/dashboard.yml"
else
    skip "promtool: Debian's package prometheus cannot be had"
fi

# --- systemd -----------------------------------------------------------------------------------
if command -v systemd-analyze >/dev/null && systemd-analyze --help | grep -- --offline >/dev/null; then
    say "systemd-analyze: the unit, and what is left open to it"
    # A root of its own, where the program of ExecStart exists.
    mkdir -p "$work/root/usr/bin" "$work/root/etc/systemd/system" "$work/root/usr/lib/systemd"
    cp deploy/simplebackup.service "$work/root/etc/systemd/system/"
    cp /bin/true "$work/root/usr/bin/simplebackup"
    cp -r /usr/lib/systemd/system "$work/root/usr/lib/systemd/"
    SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no --recursive-errors=no --root="$work/root" \
        simplebackup.service 2>"$work/verify.log" || { cat "$work/verify.log" >&2; fail "the unit"; }
    if grep simplebackup "$work/verify.log" >&2; then fail "the unit has warnings"; fi
    # Of 10 (unsafe): what is left is mostly that an app may use the network.
    systemd-analyze security --offline=yes --threshold=14 --no-pager \
        "$work/root/etc/systemd/system/simplebackup.service" >"$work/security.log" 2>&1 ||
        { cat "$work/security.log" >&2; fail "the unit is open to more than 1.4"; }
    tail -n 1 "$work/security.log"
else
    skip "systemd-analyze: not installed, or older than 250"
fi

# --- Docker Compose ----------------------------------------------------------------------------
if docker compose version >/dev/null 2>&1; then compose=(docker compose)
elif command -v docker-compose >/dev/null; then compose=(docker-compose)
else compose=(); fi
if [ ${#compose[@]} -gt 0 ]; then
    say "${compose[*]} config"
    "${compose[@]}" -f docker-compose.yml config -q
else
    skip "docker compose: not installed"
fi

# --- Kubernetes, Nomad, Fly.io: their schemas or their names, from PyPI and by hand ------------------
python3 -m venv "$work/venv"
if "$work/venv/bin/pip" install --quiet --disable-pip-version-check \
        kubernetes-validate==1.37.0 python-hcl2==8.1.4 PyYAML >"$work/pip.log" 2>&1; then
    say "the schemas of Kubernetes, the grammar of HCL, the keys of fly.toml"
    "$work/venv/bin/python" scripts/check_deploy.py
else
    skip "Kubernetes, Nomad and Fly.io: kubernetes-validate and python-hcl2 cannot be installed from PyPI"
fi
say "passed"
