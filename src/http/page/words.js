// How the page says things. Pure: numbers and times in, words out.

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

// What keeps data from being safe; everything else that deserves a look can wait until the morning.
export const URGENT = ["restore_failed", "backup_failed", "drill_failed", "late"];

const WORDS = { safe: "Safe", late: "Late", failing: "Failing", off: "Switched off", starting: "Starting", unknown: "No answer" };

export const verdict = (state) => WORDS[state] ?? state;

// Of 24 hours: "3:00" at night is no riddle.
const hours = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const day = { month: "short", day: "numeric" };
const long = new Intl.DateTimeFormat(undefined, { ...day, ...hours, second: "2-digit" });
const brief = new Intl.DateTimeFormat(undefined, { ...day, ...hours });
const clock = new Intl.DateTimeFormat(undefined, { ...hours, second: "2-digit" });
const ofAnotherYear = new Intl.DateTimeFormat(undefined, { year: "numeric", ...day, ...hours });
const whole = new Intl.NumberFormat("en");

export const moment = (at) => (at.getFullYear() === new Date().getFullYear() ? long : ofAnotherYear).format(at);
export const short = (at) => brief.format(at);
export const count = (number) => whole.format(number);
const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

export function size(bytes) {
  let [value, unit] = [bytes, "B"];
  for (const larger of ["KB", "MB", "GB", "TB"]) {
    if (value < 999.95) break;
    [value, unit] = [value / 1000, larger];
  }
  return unit === "B" ? `${Math.round(value)} B` : `${value.toFixed(value < 99.95 ? 1 : 0)} ${unit}`;
}

export function took(milliseconds) {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  if (milliseconds < MINUTE) return `${(milliseconds / SECOND).toFixed(1)} s`;
  return `${Math.floor(milliseconds / MINUTE)} min ${Math.round((milliseconds % MINUTE) / SECOND)} s`;
}

export function span(milliseconds) {
  const age = Math.max(0, milliseconds);
  if (age < MINUTE) return plural(Math.floor(age / SECOND), "second");
  if (age < HOUR) return plural(Math.floor(age / MINUTE), "minute");
  if (age < 2 * DAY) return plural(Math.floor(age / HOUR), "hour");
  return plural(Math.floor(age / DAY), "day");
}

export function ago(at, now) {
  const age = now - Date.parse(at);
  return age < 2 * SECOND ? "just now" : `${span(age)} ago`;
}

export function countdown(milliseconds) {
  if (milliseconds <= 0) return "due now";
  if (milliseconds >= 2 * DAY) return `in ${span(milliseconds)}`;
  const seconds = Math.ceil(milliseconds / SECOND);
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return hours > 0 ? `in ${hours}:${two(minutes)}:${two(seconds % 60)}` : `in ${minutes}:${two(seconds % 60)}`;
}

// The line below the verdict: why it is so.
export function sentence(state, status, now, heardAt) {
  if (status === null) return state === "unknown" ? "The service does not answer." : "Asking the service how it is.";
  const last = status.last_backup;
  const made = last ? `The last backup was made ${ago(last.at, now)}` : "No backup is known yet";
  const next = status.next_tick ? `the next is due at ${clock.format(new Date(status.next_tick))}` : "no further one is due";
  const said = {
    safe: `${made}; ${next}.`,
    late: `${made}, and it is time for newer ones; ${next}.`,
    failing: `${made}. What was tried since has failed.`,
    off: "Nothing is restored and nothing is backed up: start with --simple-backup.",
    starting: status.phase === "restoring" ? "The database is being restored; the app starts after that." : `${made}; ${next}.`,
    unknown: `Nothing was heard of the service since ${clock.format(new Date(heardAt))}. What follows is from then; the verdict was "${verdict(status.verdict)}".`,
  }[state];
  return status.phase === "stopping" && state !== "unknown" ? `The service is stopping. ${made}.` : said;
}

const HINTS = {
  waiting: "waiting for its turn", snapshot: "making the snapshot", list: "listing what is stored", download: "downloading",
  check: "checking", upload: "packing and sending", prune: "deleting old backups", place: "putting it in place",
};

const capital = (word) => word.charAt(0).toUpperCase() + word.slice(1);

export const running = (what, run) => `${capital(run.trigger)} ${what}: ${HINTS[run.stage] ?? run.stage}`;

export function amount(run, now) {
  const since = `since ${span(now - Date.parse(run.since))}`;
  if (run.total_bytes > 0) return `${size(run.done_bytes)} of ${size(run.total_bytes)}, ${since}`;
  return run.done_bytes > 0 ? `${size(run.done_bytes)}, ${since}` : since;
}

// The four facts: a short one, and what belongs to it.
export function facts(status, now) {
  const last = status.last_backup;
  const report = status.last_report?.key === last?.key ? status.last_report : null;
  const lastMore = last && [size(last.archive_bytes), report && `took ${took(report.took_ms)}`, report && plural(report.rows, "row")];
  const next = status.next_tick;
  const drill = status.last_verified;
  const isDrillNews = status.last_verify_error && !(drill && drill.at > status.last_verify_error.at);
  return {
    last: last ? [ago(last.at, now), lastMore.filter(Boolean).join(", ")] : ["none known", ""],
    next: next ? [countdown(Date.parse(next) - now), `at ${clock.format(new Date(next))}`]
      : [status.current ? "running" : "none due", ""],
    stored: !status.stored ? ["not known", "the store was not read yet"]
      : status.stored.count === 0 ? ["none", "no backup is stored"]
        : [plural(status.stored.count, "backup"), size(status.stored.bytes)],
    drill: isDrillNews ? ["failed", `${ago(status.last_verify_error.at, now)}; the newest backup may not be sound`]
      : drill ? ["passed", `${ago(drill.at, now)}, with ${plural(drill.rows, "row")}`]
        : ["none yet", "since the service started"],
  };
}

// How sure it is that a backup can be restored: tone and words.
export function checked(backup, now) {
  if (backup.damaged_at) return ["bad", `✕ Damaged, seen ${ago(backup.damaged_at, now)}`];
  if (backup.verified_at) return ["good", `✓ Restored and checked ${ago(backup.verified_at, now)}`];
  if (backup.rows !== null) return ["note", "✓ When it was made"];
  return ["note", "Not known"];
}

export function whyNot(status) {
  if (!status.enabled) return "Backups are switched off; start the service with --simple-backup.";
  if (!status.token_configured) return "No token is configured, so nothing can be asked for from here. Set http.token (SIMPLE_BACKUP_HTTP_TOKEN).";
  if (status.phase === "stopping") return "The service is stopping.";
  if (status.phase === "restoring") return "The database is being restored first.";
  return null;
}

export function about(status) {
  const app = { "not started": "App not started yet", running: "App running", ended: "App ended" }[status.app.state] ?? status.app.state;
  const process = status.app.pid ? ` (process ${status.app.pid})` : "";
  const restarts = status.restarts > 0 ? `; workers replaced ${plural(status.restarts, "time")}` : "";
  return `${app}${process}; service since ${moment(new Date(status.started_at))}${restarts}; simplebackup ${status.version}, SQLite ${status.sqlite}`;
}

// The points of the chart, oldest first: every run since the start, and what is stored from before.
export function points(history) {
  const runs = history.runs.map((run) => ({
    at: new Date(run.at), size: run.archive_bytes, database: run.database_bytes, took: run.took_ms, failed: run.name === null,
  }));
  const ran = new Set(history.runs.map((run) => run.name));
  const older = history.backups.filter((backup) => !ran.has(backup.name));
  const stored = older.map((backup) => ({
    at: new Date(backup.made_at), size: backup.archive_bytes, database: backup.database_bytes, took: null, failed: false,
  }));
  return [...stored, ...runs].sort((one, other) => one.at - other.at);
}

// What the chart shows, in words.
export function summary(all) {
  const range = (numbers, words) => {
    const [least, most] = [words(Math.min(...numbers)), words(Math.max(...numbers))];
    return least === most ? most : `${least} to ${most}`;
  };
  const sizes = all.map((point) => point.size).filter((bytes) => bytes !== null);
  const times = all.filter((point) => !point.failed && point.took !== null).map((point) => point.took);
  const failed = all.filter((point) => point.failed).length;
  const parts = [plural(sizes.length, "backup")];
  if (sizes.length > 0) parts.push(`stored size ${range(sizes, size)}`);
  if (times.length > 0) parts.push(`duration ${range(times, took)}`);
  if (failed > 0) parts.push(`${failed} failed (marked ✕)`);
  return `${parts.join(", ")}.`;
}

const ICONS = {
  safe: ["#1a7f37", "<circle cx='8' cy='8' r='8'/>", "M4 8.5l3 3 5-6"],
  late: ["#9a6700", "<path d='M8 0l8 15H0z'/>", "M8 6v4M8 12.4v.2"],
  failing: ["#cf222e", "<path d='M5 0h6l5 5v6l-5 5H5l-5-5V5z'/>", "M5 5l6 6M11 5l-6 6"],
  unknown: ["#cf222e", "<path d='M8 0l8 8-8 8-8-8z'/>", "M8 4v5M8 11.6v.2"],
};

// The icon of the tab: the same shapes, small.
export function icon(state) {
  const [colour, body, sign] = ICONS[state] ?? ["#57606a", "<rect width='16' height='16' rx='3'/>", "M4 8h.1M8 8h.1M12 8h.1"];
  const drawn = `<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><g fill='${colour}'>${body}</g>`
    + `<path d='${sign}' fill='none' stroke='#fff' stroke-width='2' stroke-linecap='round'/></svg>`;
  return `data:image/svg+xml,${encodeURIComponent(drawn)}`;
}

export const BACKUP = {
  begun: "Backing up…",
  done: (report) => (report.unchanged ? `Nothing has changed since ${report.key}.` : `Backup made: ${report.key}, ${size(report.archive_bytes)}, in ${took(report.took_ms)}.`),
  failed: "No backup was made",
};

export const VERIFY = {
  begun: "Restoring the newest backup to a private folder, to check it…",
  done: (drill) => `Sound: ${drill.key}, ${plural(drill.tables, "table")}, ${plural(drill.rows, "row")}, in ${took(drill.took_ms)}.`,
  failed: "The newest backup was not found sound",
};
