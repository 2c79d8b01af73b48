// Shows what GET /status and GET /models tell, every two seconds, and asks for a prediction when told to.

const REFRESH_MS = 2000;
const TOKEN = "appliance-token";

const find = (id) => document.getElementById(id);
const cards = new Map(); // model name -> its card
let models = [];
let before = null; // counts of the last look, for rates

// --- asking ---------------------------------------------------------------

class Problem extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  const body = await answer.json();
  if (!answer.ok) throw new Problem(answer.status, body.detail ?? body.error ?? answer.statusText);
  return body;
}

async function refresh() {
  try {
    const [status, listed] = await Promise.all([ask("status"), ask("models")]);
    show(status, listed.models);
  } catch (problem) {
    showProblem(problem);
  }
  setTimeout(refresh, REFRESH_MS);
}

// --- showing --------------------------------------------------------------

function show(status, listed) {
  models = listed;
  document.body.classList.remove("away");
  find("token-form").hidden = true;
  badge(find("ready"), status.ready ? "ready" : "not ready", status.ready ? "good" : "bad");
  setText(find("host"), `${status.host} · ${status.platform} · version ${status.program} · up ${duration(status.uptime_seconds)}`);
  showReasons(status.reasons);
  showModels(status.counts);
  showForm();
}

function showProblem(problem) {
  if (problem instanceof Problem && (problem.status === 401 || problem.status === 403)) {
    const form = find("token-form");
    const hint = find("token-problem");
    hint.hidden = !sessionStorage.getItem(TOKEN);
    setText(hint, problem.message);
    if (form.hidden) {
      form.hidden = false;
      find("token").focus();
    }
    badge(find("ready"), "token needed", "wait");
    return;
  }
  document.body.classList.add("away");
  badge(find("ready"), problem instanceof Problem ? problem.message : "not reachable", "bad");
}

function showReasons(reasons) {
  const list = find("reasons");
  list.hidden = reasons.length === 0;
  if (list.dataset.shown === JSON.stringify(reasons)) return; // a live region must not repeat itself
  list.dataset.shown = JSON.stringify(reasons);
  list.replaceChildren(...reasons.map((reason) => make("li", reason)));
}

function showModels(counts) {
  find("no-models").hidden = models.length > 0;
  for (const [name, card] of cards) {
    if (!models.some((model) => model.name === name)) {
      card.remove();
      cards.delete(name);
    }
  }
  const now = { at: performance.now(), counts };
  for (const model of models) showModel(model, now);
  before = now;
}

function showModel(model, now) {
  if (!cards.has(model.name)) {
    const made = find("model-card").content.firstElementChild.cloneNode(true);
    setText(made.querySelector("h3"), model.name);
    cards.set(model.name, made);
    find("models").append(made);
  }
  const card = cards.get(model.name);
  setText(card.querySelector(".version"), model.serving ?? "—");
  const [text, kind] = state(model);
  badge(card.querySelector(".state"), text, kind);
  const since = model.active ? `since ${when(model.since)}` : "no version is active";
  setText(card.querySelector(".since"), since + (model.why ? ` · ${model.why}` : ""));
  const experiment = card.querySelector(".experiment");
  experiment.hidden = !model.experiment;
  setText(experiment, model.experiment ? trying(model.experiment) : "");
  const drift = card.querySelector(".drift");
  drift.hidden = !model.drift?.columns.length;
  setText(drift, model.drift ? `${model.drift.state} since ${when(model.drift.since)}: ${model.drift.columns.join(", ")}` : "");
  const problem = card.querySelector(".problem[role=alert]");
  problem.hidden = !model.problem;
  setText(problem, model.problem);
  showNumbers(card, total(now.counts, model.name), before && total(before.counts, model.name), now.at - before?.at);
  showVersions(card, model, now.counts);
}

function state(model) {
  if (model.problem) return ["problem", "bad"];
  if (!model.active) return ["inactive", ""];
  if (model.serving !== model.active) return [`loading ${model.active}`, "wait"];
  return model.state === "good" ? ["good", "good"] : ["on probation", "wait"];
}

// The experiment in one sentence: who answers which share of the requests, and who is asked beside.
function trying(experiment) {
  const step = experiment.steps ? `, step ${experiment.step} of ${experiment.steps}` : "";
  const shares = experiment.arms.map((arm) => `${arm.version} answers ${percent(arm.share)}`);
  const beside = experiment.shadow ? [`${experiment.shadow.version} is asked beside`] : [];
  return `${experiment.kind}${step}: ${[...shares, ...beside].join(", ")}`;
}

function percent(share) {
  return `${Number((100 * share).toFixed(3))} %`;
}

function roleOf(model, version) {
  if (version.problem || version.active) return version.problem || "active";
  const arm = model.experiment?.arms.find((one) => one.version === version.version);
  if (arm?.share) return `${model.experiment.kind} ${percent(arm.share)}`;
  if (model.experiment?.shadow?.version === version.version) return "shadow";
  return version.version === model.previous ? "previous" : "installed";
}

function showNumbers(card, sum, earlier, milliseconds) {
  const put = (name, text) => setText(card.querySelector(`[data-number=${name}]`), text);
  const answered = sum.requests - sum.failures;
  // A restarted service counts from zero, so a difference below zero means nothing.
  const recent = earlier && sum.requests >= earlier.requests ? answered - (earlier.requests - earlier.failures) : 0;
  const seconds = recent > 0 ? sum.request_seconds - earlier.request_seconds : sum.request_seconds;
  const mean = seconds / (recent > 0 ? recent : answered);
  put("requests", sum.requests.toLocaleString());
  put("rate", earlier && sum.requests >= earlier.requests ? rate(((sum.requests - earlier.requests) / milliseconds) * 1000) : "—");
  put("failures", sum.failures.toLocaleString());
  put("rows", sum.rows.toLocaleString());
  put("time", answered > 0 ? milli(mean) : "—");
  put("last", sum.last ? `${duration(Math.max(0, Date.now() / 1000 - sum.last))} ago` : "never");
}

function showVersions(card, model, counts) {
  const number = model.versions.length;
  setText(card.querySelector("summary"), `${number} installed version${number === 1 ? "" : "s"}`);
  const rows = [...model.versions].reverse().map((version) => {
    const own = counts.find((one) => one.model === model.name && one.version === version.version);
    return [version.version, roleOf(model, version), tolerance(version.tolerance), (own?.requests ?? 0).toLocaleString()];
  });
  const body = card.querySelector("tbody");
  if (body.dataset.shown === JSON.stringify(rows)) return;
  body.dataset.shown = JSON.stringify(rows);
  body.replaceChildren(...rows.map((cells) => make("tr", ...cells.map((cell) => make("td", cell)))));
}

function tolerance(proved) {
  if (!proved) return "—";
  return proved.absolute === proved.relative ? `± ${proved.absolute}` : `± ${proved.absolute} + ${proved.relative} × value`;
}

// --- predicting -----------------------------------------------------------

function showForm() {
  const able = models.filter((model) => model.serving);
  find("predict").hidden = able.length === 0;
  const pick = find("model");
  const names = able.map((model) => model.name);
  if (pick.dataset.shown !== JSON.stringify(names)) {
    const chosen = pick.value;
    pick.dataset.shown = JSON.stringify(names);
    pick.replaceChildren(...names.map((name) => Object.assign(make("option", name), { value: name })));
    if (names.includes(chosen)) pick.value = chosen;
  }
  showFields();
}

function inputs() {
  const model = models.find((one) => one.name === find("model").value);
  return model?.versions.find((version) => version.version === model.serving)?.inputs ?? [];
}

// One field a column, in the order in which a row given as a list has them.
function columns() {
  return inputs().flatMap((tensor) => tensor.columns.map((name) => ({ name, tensor })));
}

function showFields() {
  const holder = find("fields");
  const wanted = JSON.stringify([find("model").value, inputs()]);
  if (holder.dataset.shown === wanted) return; // what was typed stays
  holder.dataset.shown = wanted;
  find("answer").replaceChildren();
  holder.replaceChildren(...columns().map(({ name, tensor }, index) => labelled(name, tensor, `column-${index}`)));
}

function labelled(name, tensor, id) {
  const input = Object.assign(field(name, tensor), { id });
  input.setAttribute("aria-describedby", `${id}-kind`);
  return make(
    "div",
    Object.assign(make("label", name), { htmlFor: id }),
    input,
    Object.assign(make("small", kind(tensor)), { id: `${id}-kind` }),
  );
}

function field(name, tensor) {
  const choices = tensor.type === "bool" ? [true, false] : tensor.categories;
  const made = document.createElement(choices ? "select" : "input");
  made.name = name;
  made.required = !tensor.missing && tensor.type !== "string";
  if (choices) {
    const options = choices.map((choice) => Object.assign(make("option", String(choice)), { value: JSON.stringify(choice) }));
    if (tensor.missing) options.unshift(Object.assign(make("option", "(missing)"), { value: "" }));
    made.replaceChildren(...options);
  } else if (tensor.type !== "string") {
    made.type = "number";
    made.step = tensor.type.startsWith("float") ? "any" : "1";
    made.inputMode = "decimal";
  }
  return made;
}

function kind(tensor) {
  return tensor.type + (tensor.missing ? ", may be empty" : "");
}

// Written as JSON text, not as a JavaScript number: an int64 may have more digits than a double keeps.
function literal(element, tensor) {
  if (element.value === "" && tensor.missing) return "null";
  if (element instanceof HTMLSelectElement) return element.value;
  if (tensor.type === "string") return JSON.stringify(element.value);
  return /^-?(0|[1-9]\d*)$/.test(element.value) ? element.value : JSON.stringify(Number(element.value));
}

async function predict(event) {
  event.preventDefault();
  const elements = find("fields").querySelectorAll("input, select");
  const row = columns().map(({ tensor }, index) => literal(elements[index], tensor));
  const path = `models/${encodeURIComponent(find("model").value)}/predict`;
  const started = performance.now();
  try {
    const headers = { "Content-Type": "application/json" };
    const answer = await ask(path, { method: "POST", headers, body: `{"features": [${row.join(", ")}]}` });
    showAnswer(answer, performance.now() - started);
  } catch (problem) {
    find("answer").replaceChildren(styled("p", "problem", problem.message));
  }
}

function showAnswer(answer, milliseconds) {
  const shown = [styled("p", "prediction", text(answer.prediction[0]))];
  if (answer.probability) {
    const labels = Object.entries(answer.probability[0]).sort((one, other) => other[1] - one[1]);
    const bars = labels.flatMap(([label, share]) => {
      const bar = Object.assign(document.createElement("meter"), { min: 0, max: 1, value: share ?? 0 });
      bar.setAttribute("aria-label", label);
      return [make("span", label), bar, make("span", share === null ? "—" : share.toFixed(4))];
    });
    const list = styled("div", "labels");
    list.append(...bars);
    shown.push(list);
  }
  shown.push(styled("p", "quiet", `${answer.model} ${answer.version} · ${milliseconds.toFixed(1)} ms including the round trip`));
  find("answer").replaceChildren(...shown);
}

// --- small things ---------------------------------------------------------

function total(counts, model) {
  const sum = { requests: 0, failures: 0, rows: 0, request_seconds: 0, last: 0 };
  for (const one of counts.filter((count) => count.model === model)) {
    for (const key of ["requests", "failures", "rows", "request_seconds"]) sum[key] += one[key];
    sum.last = Math.max(sum.last, one.last);
  }
  return sum;
}

function make(tag, ...children) {
  const element = document.createElement(tag);
  element.append(...children);
  return element;
}

function styled(tag, className, ...children) {
  return Object.assign(make(tag, ...children), { className });
}

function setText(element, value) {
  if (element.textContent !== value) element.textContent = value; // a live region must not repeat itself
}

function badge(element, value, kindOf) {
  setText(element, value);
  element.className = `badge ${element.classList.contains("state") ? "state " : ""}${kindOf}`;
}

function text(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function rate(value) {
  return value >= 100 ? Math.round(value).toLocaleString() : value.toFixed(1);
}

function milli(seconds) {
  return seconds < 0.001 ? `${(seconds * 1e6).toFixed(0)} µs` : `${(seconds * 1e3).toFixed(1)} ms`;
}

function duration(seconds) {
  const steps = [[86400, "d"], [3600, "h"], [60, "min"]];
  for (const [size, unit] of steps) if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  return `${Math.floor(seconds)} s`;
}

function when(iso) {
  const date = new Date(iso);
  return Number.isNaN(date.getTime()) ? iso : date.toLocaleString();
}

find("predict").addEventListener("submit", predict);
find("model").addEventListener("change", showFields);
find("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, find("token").value.trim());
  find("token").value = "";
  find("token-form").hidden = true;
});
refresh();
