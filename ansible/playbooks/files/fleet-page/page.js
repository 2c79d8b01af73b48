
"use strict";
// One row for each host and model. What hosts say is written as text alone, never as markup.

const { made, hosts } = JSON.parse(document.getElementById("data").textContent);
const MEBIBYTE = 1024 * 1024;
const DRIFT = { fine: "good", watch: "warn", drift: "bad" };

// Texts of hosts are shown without characters that turn or hide what stands beside them.
const plain = (value) => String(value ?? "").replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);
const number = (value) => (typeof value === "number" && isFinite(value) ? Number(value.toPrecision(4)).toString() : "");
const day = (value) => plain(value).replace("T", " ").replace(/(\.\d+)?(\+00:00|Z)$/, "");
const list = (value) => (Array.isArray(value) ? value : []);

function experimentOf(running) {
  if (!running) return "";
  const arms = list(running.arms).map((arm) => `${plain(arm.version)} ${number(100 * arm.share)} %`);
  if (running.shadow) arms.push(`${plain(running.shadow.version)} beside`);
  const step = running.steps ? ` step ${number(running.step)}/${number(running.steps)}` : "";
  return `${plain(running.kind)}${step}: ${arms.join(", ")}${running.verdict ? `; ${plain(running.verdict)}` : ""}`;
}

function qualityOf(quality) {
  const names = Object.keys(quality ?? {}).filter((name) => name !== "coverage").slice(0, 2);
  const coverage = quality && "coverage" in quality ? [`coverage ${number(quality.coverage)}`] : [];
  return [...coverage, ...names.map((name) => `${plain(name)} ${number(quality[name])}`)].join(", ");
}

function headsOf(host, model) {
  const heads = list(host.log).filter((head) => head.model === model.name);
  return heads.map((head) => `${plain(head.version)}/${plain(head.slot)}: ${plain(head.chain).slice(0, 16)}`).join(" ");
}

function rowOf(host, model) {
  const away = host.reachable === false;
  const receipt = host.reachable === "receipt";
  const drift = model.drift?.state ?? "";
  const columns = list(model.drift?.columns).map(plain).join(", ");
  const verdict = plain(model.probation?.verdict);
  const problem = plain(model.problem);
  const experiment = experimentOf(model.experiment);
  const cells = [
    { text: plain(host.host) },
    { text: away ? "no" : receipt ? "receipt" : "yes", tone: away ? "bad" : receipt ? "warn" : "good" },
    { text: day(host.seen) },
    { text: away ? "" : host.ready ? "yes" : "no", tone: away ? "" : host.ready ? "good" : "bad" },
    { text: plain(host.program) },
    { text: plain(model.name) },
    { text: plain(model.active) },
    { text: plain(model.state), tone: { good: "good", probation: "warn" }[model.state] },
    { text: day(model.since) },
    { text: drift ? `${plain(drift)}${columns ? `: ${columns}` : ""}` : "", tone: DRIFT[drift] },
    { text: qualityOf(model.quality) },
    { text: [experiment, verdict].filter(Boolean).join("; ") },
    { text: problem, tone: problem ? "bad" : "" },
    { text: day(model.self_test?.when) },
    { text: typeof host.disk_free_bytes === "number" ? `${Math.floor(host.disk_free_bytes / MEBIBYTE)} MiB` : "", key: host.disk_free_bytes ?? -1 },
    { text: headsOf(host, model), code: true },
  ];
  const attention = away || !host.ready || drift === "drift" || Boolean(problem) || !model.active;
  const groups = { all: true, attention, away: host.reachable !== true, drift: drift === "drift" || drift === "watch",
    experiment: Boolean(experiment) || model.state === "probation" };
  return { cells, groups, search: cells.map((cell) => cell.text).join(" ").toLowerCase(), element: null };
}

const COLUMNS = ["host", "answers", "last seen", "ready", "program", "model", "version", "state", "since", "drift", "quality", "experiment, probation", "problem", "self-test", "disk free", "log heads"];
const WIDE = new Set(["drift", "experiment, probation", "problem", "log heads"]);
const rows = hosts.flatMap((host) => (list(host.models).length ? host.models : [{}]).map((model) => rowOf(host, model)));
const compare = new Intl.Collator("en", { numeric: true, sensitivity: "base" }).compare;
let sorted = { column: 0, down: false };

function elementOf(row) {
  if (row.element) return row.element;
  const line = document.createElement("tr");
  row.cells.forEach((cell, index) => {
    const element = document.createElement(index ? "td" : "th");
    if (!index) {
      element.scope = "row";
      element.title = cell.text;
    }
    if (cell.tone) element.classList.add(cell.tone);
    if (WIDE.has(COLUMNS[index]) && cell.text) element.classList.add("text");
    if (cell.key !== undefined) element.classList.add("number");
    const inner = cell.code && cell.text ? element.appendChild(document.createElement("code")) : element;
    inner.textContent = cell.text || "–";
    line.append(element);
  });
  row.element = line;
  return line;
}

function sortRows() {
  const { column, down } = sorted;
  const key = (row) => row.cells[column].key;
  rows.sort((a, b) => (key(a) !== undefined ? key(a) - key(b) : compare(a.cells[column].text, b.cells[column].text)) * (down ? -1 : 1));
  document.querySelectorAll("thead th").forEach((head, index) => {
    if (index === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
}

function show() {
  const words = document.getElementById("text").value.toLowerCase().split(/\s+/).filter(Boolean);
  const which = document.getElementById("which").value;
  const shown = rows.filter((row) => row.groups[which] && words.every((word) => row.search.includes(word)));
  document.querySelector("tbody").replaceChildren(...shown.map(elementOf));
  document.getElementById("count").textContent = `${shown.length} of ${rows.length} rows`;
}

function summarise() {
  const count = (matches) => hosts.filter(matches).length;
  const models = hosts.flatMap((host) => list(host.models));
  const told = [
    ["hosts", hosts.length],
    ["ready", count((host) => host.reachable !== false && host.ready), "good"],
    ["not ready", count((host) => host.reachable !== false && !host.ready), "bad"],
    ["known by receipt", count((host) => host.reachable === "receipt"), "warn"],
    ["no answer", count((host) => host.reachable === false), "bad"],
    ["models in drift", models.filter((model) => model.drift?.state === "drift").length, "bad"],
    ["on probation", models.filter((model) => model.state === "probation").length, "warn"],
  ];
  for (const [text, value, tone] of told) {
    const item = document.createElement("li");
    item.textContent = `${text}: ${value}`;
    if (tone && value) item.classList.add(tone);
    document.getElementById("summary").append(item);
  }
  document.getElementById("made").textContent = `as of ${day(made)} UTC`;
}

COLUMNS.forEach((name, index) => {
  const head = document.createElement("th");
  head.scope = "col";
  if (name === "disk free") head.classList.add("number");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = name;
  button.addEventListener("click", () => {
    sorted = { column: index, down: sorted.column === index && !sorted.down };
    sortRows();
    show();
  });
  head.append(button);
  document.querySelector("thead tr").append(head);
});
let waiting = 0;
document.getElementById("text").addEventListener("input", () => {
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(show);
});
document.getElementById("which").addEventListener("change", show);
document.getElementById("filter").addEventListener("submit", (event) => event.preventDefault());
summarise();
sortRows();
show();
