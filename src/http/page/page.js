// The status page: asks /status and /history, listens to /events, and shows what they say. All text
// from the service goes through textContent: nothing of it can become markup.

import { renderBackups, renderAges } from "/backups.js";
import { drawChart } from "/chart.js";
import { by, foldable, make, moment, put, show } from "/dom.js";
import * as say from "/words.js";

const TOKEN = "simplebackup.token";
const ASK_EVERY = 10_000;
const LISTEN_AGAIN = 60_000;
const LOST_AFTER = 5_000;
// The service says something every 30 s at least.
const SILENT_AFTER = 45_000;

let status = null;
let history = null;
let revision = null;
// How far the clock of the service is ahead of ours, in milliseconds.
let ahead = 0;
let heardAt = Date.now();
let openAt = 0;
let isLost = false;
let stream = null;
let asking = null;

const now = () => Date.now() + ahead;

// --- hearing -----------------------------------------------------------------------------------

function hear(news) {
  heardAt = Date.now();
  ahead = Date.parse(news.now) - heardAt;
  status = news;
  isLost = false;
  render();
  if (news.revision !== revision) readHistory();
}

async function read(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

let isReading = false;
async function readHistory() {
  if (isReading) return;
  isReading = true;
  try {
    history = await read("/history");
    revision = history.revision;
    renderHistory();
  } catch {
    // The next event, or the next time it is asked, tries again.
  } finally {
    isReading = false;
  }
  if (status !== null && history !== null && status.revision > revision) setTimeout(readHistory, 300);
}

function listen() {
  stream?.close();
  stream = new EventSource("/events");
  stream.addEventListener("status", (event) => {
    clearInterval(asking);
    asking = null;
    connection("live");
    hear(JSON.parse(event.data));
  });
  stream.addEventListener("alive", () => { heardAt = Date.now(); });
  stream.addEventListener("error", () => {
    // While it reconnects by itself there is nothing to do. Where it was refused, we ask instead.
    if (stream.readyState !== EventSource.CLOSED) return;
    setTimeout(listen, LISTEN_AGAIN);
    if (asking !== null) return;
    asking = setInterval(ask, ASK_EVERY);
    ask();
  });
}

async function ask() {
  try {
    hear(await read("/status"));
    connection("asking");
  } catch {
    // What is lost is noticed by the clock.
  }
}

function connection(state) {
  const chip = by("connection");
  chip.dataset.state = state;
  put(chip, { live: "Live", asking: `Every ${ASK_EVERY / 1000} s`, lost: "No answer" }[state]);
}

// Decides when an answer is missing. A connection that died without a word looks open: that nothing
// comes any more is all that tells.
function watchConnection() {
  const silence = Date.now() - heardAt;
  if (stream.readyState === EventSource.OPEN) {
    openAt = Date.now();
    if (silence > SILENT_AFTER) listen();
    if (silence > SILENT_AFTER + 2 * LOST_AFTER) lose();
    return;
  }
  const patience = asking === null ? LOST_AFTER : ASK_EVERY + LOST_AFTER;
  if (Date.now() - Math.max(heardAt, openAt) > patience) lose();
}

function lose() {
  if (isLost) return;
  isLost = true;
  connection("lost");
  render();
}

// --- showing -----------------------------------------------------------------------------------

function render() {
  renderVerdict();
  if (status === null) return;
  put(by("database"), status.database);
  renderWarnings();
  renderRuns();
  renderFacts();
  renderAsk();
  put(by("about"), say.about(status));
}

function renderVerdict() {
  const verdict = isLost ? "unknown" : status?.verdict ?? "starting";
  const section = by("verdict");
  if (section.dataset.verdict !== verdict) {
    section.dataset.verdict = verdict;
    by("shape").setAttribute("href", `#shape-${verdict}`);
    by("icon").setAttribute("href", say.icon(verdict));
  }
  put(by("word"), say.verdict(verdict));
  put(by("sentence"), say.sentence(verdict, status, now(), heardAt));
  const name = status?.database.split("/").pop();
  const title = [say.verdict(verdict), name, "simplebackup"].filter(Boolean).join(" – ");
  if (document.title !== title) document.title = title;
}

function renderWarnings() {
  const list = by("warnings");
  const text = JSON.stringify(status.warnings);
  if (list.dataset.shown === text) return;
  list.dataset.shown = text;
  const isUrgent = (warning) => say.URGENT.includes(warning.kind);
  list.replaceChildren(...status.warnings.map((warning) => {
    const mark = make("span", { className: "mark", textContent: isUrgent(warning) ? "✕" : "!", ariaHidden: "true" });
    const next = make("p", { className: "next" }, make("b", { textContent: "What to do: " }), warning.next);
    const item = make("li", {}, mark, make("p", { className: "what", textContent: warning.what }), next);
    item.dataset.urgent = String(isUrgent(warning));
    return item;
  }));
  by("attention").dataset.urgent = String(status.warnings.some(isUrgent));
  show(by("attention"), status.warnings.length > 0);
}

function renderRuns() {
  const running = [["backup", status.current], ["restore drill", status.drill]].filter(([, run]) => run);
  show(by("running"), running.length > 0);
  const list = by("runs");
  const names = running.map(([what]) => what).join();
  if (list.dataset.shown !== names) {
    list.dataset.shown = names;
    list.replaceChildren(...running.map(([what]) => {
      const bar = make("progress", { max: 1, ariaLabel: `Progress of the ${what}` });
      return make("li", {}, make("p", {}, make("b"), make("span", { className: "muted number" })), bar);
    }));
  }
  running.forEach(([what, run], i) => {
    const [title, amount, bar] = list.children[i].querySelectorAll("b, span, progress");
    put(title, say.running(what, run));
    put(amount, say.amount(run, now()));
    if (run.total_bytes > 0) bar.value = Math.min(1, run.done_bytes / run.total_bytes);
    else bar.removeAttribute("value");
  });
}

function renderFacts() {
  const at = now();
  for (const [id, [fact, more]] of Object.entries(say.facts(status, at))) {
    put(by(id), fact);
    put(by(`${id}-more`), more);
  }
}

function renderAsk() {
  const reason = say.whyNot(status);
  show(by("ask-not"), reason !== null);
  show(by("ask"), status.enabled && status.token_configured);
  if (reason !== null) put(by("ask-not"), reason);
  by("back-up").disabled = isAsking.has("/backup") || reason !== null;
  by("verify").disabled = isAsking.has("/verify") || reason !== null;
}

// --- what is stored, what happened -------------------------------------------------------------

function renderHistory() {
  put(by("location"), history.location ?? "");
  show(by("no-backups"), history.backups.length === 0);
  show(by("backups"), history.backups.length > 0);
  show(by("unlisted"), history.unlisted > 0);
  put(by("unlisted"), `${history.unlisted} older ones are stored besides.`);
  renderBackups(history, now());
  renderEvents();
  renderChart();
}

const foldEvents = foldable(by("events"), by("more-events"), 12);
function renderEvents() {
  show(by("no-events"), history.events.length === 0);
  const marks = { good: "✓", bad: "✕", note: "•" };
  by("events").replaceChildren(...history.events.map((event) => {
    const mark = make("span", { className: `mark tone-${event.tone}`, textContent: marks[event.tone], ariaHidden: "true" });
    const times = event.times > 1 ? ` (${event.times} times)` : "";
    const what = make("span", { className: "what", textContent: event.what + times });
    const detail = make("span", { className: "under", textContent: event.detail });
    return make("li", {}, mark, moment(event.at), make("div", { className: "story" }, what, detail));
  }));
  foldEvents();
}

let drawn = null;
function renderChart() {
  const points = say.points(history);
  show(by("numbers"), points.length > 0);
  if (points.length === 0) return;
  drawn = () => drawChart(by("chart"), points, { size: say.size, took: say.took, moment: say.short });
  drawn();
  put(by("chart-words"), say.summary(points));
  const known = (text) => text ?? "–";
  by("number-rows").replaceChildren(...[...points].reverse().map((point) => {
    const cell = (text) => make("td", { role: "cell", className: "number", textContent: text });
    const took = point.failed ? `failed after ${say.took(point.took)}` : known(point.took !== null ? say.took(point.took) : null);
    return make("tr", { role: "row" },
      make("td", { role: "cell" }, moment(point.at.toISOString(), say.short)),
      cell(known(point.size !== null ? say.size(point.size) : null)),
      cell(known(point.database !== null ? say.size(point.database) : null)),
      cell(took));
  }));
}

// --- asking ------------------------------------------------------------------------------------

const isAsking = new Set();

async function post(path, words) {
  const token = by("token").value.trim();
  if (token === "") {
    answer("bad", "Type the token first.");
    by("token").focus();
    return;
  }
  isAsking.add(path);
  renderAsk();
  answer("note", words.begun);
  try {
    const response = await fetch(path, { method: "POST", headers: { Authorization: `Bearer ${token}` } });
    const body = await response.json().catch(() => ({}));
    if (response.ok) {
      sessionStorage.setItem(TOKEN, token);
      answer("good", words.done(body));
    } else {
      if (response.status === 401) {
        sessionStorage.removeItem(TOKEN);
        by("token").select();
        by("token").focus();
      }
      answer("bad", response.status === 401 ? "Wrong token." : `${words.failed}: ${body.error ?? response.status}`);
    }
  } catch {
    answer("bad", "The service did not answer.");
  } finally {
    isAsking.delete(path);
    if (status !== null) renderAsk();
  }
}

function answer(tone, text) {
  by("answer").dataset.tone = tone;
  put(by("answer"), text);
}

by("token").value = sessionStorage.getItem(TOKEN) ?? "";
by("ask").addEventListener("submit", (event) => event.preventDefault());
by("back-up").addEventListener("click", () => post("/backup", say.BACKUP));
by("verify").addEventListener("click", () => post("/verify", say.VERIFY));
new ResizeObserver(() => drawn?.()).observe(by("chart").parentElement);
by("icon").setAttribute("href", say.icon("starting"));

listen();
setInterval(() => {
  watchConnection();
  if (status === null || document.hidden) return;
  renderVerdict();
  renderRuns();
  renderFacts();
}, 1000);
// Ages in the table are told in minutes.
setInterval(() => { if (!document.hidden) renderAges(now()); }, 30_000);
