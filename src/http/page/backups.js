// The table of stored backups, and the commands that restore each of them.

import { by, foldable, make, moment, put } from "/dom.js";
import * as say from "/words.js";

// By name; each backup is a body of the table, with its commands when they are open.
const rows = new Map();
let recipes = [];
let encryptedRecipes = [];
const fold = foldable({ get children() { return by("backups").tBodies; } }, by("more-backups"), 10);

// Rows stay as they are while their backup does: a focus in them, or an open one, is not lost.
export function renderBackups(history, now) {
  recipes = history.recipes;
  encryptedRecipes = history.encrypted_recipes;
  const names = new Set(history.backups.map((backup) => backup.name));
  for (const [name, row] of rows) {
    if (names.has(name)) continue;
    row.body.remove();
    rows.delete(name);
  }
  const table = by("backups");
  let before = table.tBodies[0] ?? null;
  for (const backup of history.backups) {
    if (!rows.has(backup.name)) {
      const row = makeRow(backup);
      rows.set(backup.name, row);
      table.insertBefore(row.body, before);
    }
    const row = rows.get(backup.name);
    row.backup = backup;
    fillRow(row, now);
    before = row.body.nextElementSibling;
  }
  fold();
}

// Ages go on while nothing happens.
export function renderAges(now) {
  rows.forEach((row) => fillRow(row, now));
}

function makeRow(backup) {
  const cell = (label, className = "") => make("td", { role: "cell", label, className });
  const cells = [cell("Backup"), cell("Made"), cell("Size", "number"), cell("Rows", "number"), cell("Checked")];
  const button = make("button", { type: "button", className: "small", textContent: "Restore…", ariaExpanded: "false" });
  button.setAttribute("aria-label", `Restore ${backup.name}`);
  const main = make("tr", { role: "row" }, ...cells, make("td", { role: "cell" }, button));
  const body = make("tbody", { role: "rowgroup" }, main);
  const row = { body, cells, backup, recipes: null };
  button.addEventListener("click", () => toggleRecipes(row, button));
  return row;
}

function fillRow({ cells: [name, made, size, counted, checked], backup }, now) {
  if (!name.firstChild) name.append(make("span", { className: "mono", textContent: backup.name }));
  const age = make("span", { textContent: say.ago(backup.made_at, now) });
  const full = make("span", { className: "under" }, moment(backup.made_at));
  made.replaceChildren(make("span", {}, age, full));
  put(size, say.size(backup.archive_bytes));
  put(counted, backup.rows === null ? "–" : say.count(backup.rows));
  const [tone, text] = say.checked(backup, now);
  checked.replaceChildren(make("span", { className: `tone-${tone}`, textContent: text }));
}

function toggleRecipes(row, button) {
  const isOpen = row.recipes !== null;
  button.ariaExpanded = String(!isOpen);
  if (isOpen) {
    row.recipes.remove();
    row.recipes = null;
    return;
  }
  const ways = row.backup.name.endsWith(".age") ? encryptedRecipes : recipes;
  const shown = ways.map(({ title, commands }) => {
    const text = commands.replaceAll("{name}", row.backup.name);
    const copy = make("button", { type: "button", className: "small", textContent: "Copy" });
    copy.setAttribute("aria-label", `Copy: ${title}`);
    copy.addEventListener("click", () => copyText(text, copy));
    const box = make("div", {}, make("pre", { textContent: text, tabIndex: 0 }), copy);
    return make("div", { className: "recipe" }, make("p", { textContent: title }), box);
  });
  const where = "Where the service runs, with its variables: they have the keys of the store.";
  const cell = make("td", { role: "cell", colSpan: 6 }, ...shown, make("p", { className: "under", textContent: where }));
  row.recipes = make("tr", { role: "row", className: "recipes" }, cell);
  row.body.append(row.recipes);
}

async function copyText(text, button) {
  let isCopied = false;
  try {
    await navigator.clipboard.writeText(text);
    isCopied = true;
  } catch {
    // Without TLS a browser has no clipboard for us, except from a field.
    const field = make("textarea", { value: text, className: "quiet" });
    document.body.append(field);
    field.select();
    isCopied = document.execCommand("copy");
    field.remove();
    button.focus();
  }
  button.textContent = isCopied ? "Copied" : "Select it";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}
