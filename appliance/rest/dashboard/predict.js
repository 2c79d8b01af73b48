// "Try a prediction": a form of a model's columns, filled with an example, and the same request as curl and Python.

import { adminToken, get, pathOf, post } from "./ask.js";
import { make } from "./dom.js";
import { Section } from "./section.js";
import { percent, rounded, t, time } from "./words.js";

// Rows of the bundle may hold people's data: where the token does not reach that far, a typical row stands in.
async function examples(model, status, columns) {
  const typical = columns.map((column) => column.typical);
  if (status.tokens && !adminToken.get()) return [typical];
  try {
    const told = await get(pathOf(model.name, "/examples"), true);
    return told.rows.length && told.version === model.serving ? told.rows : [typical];
  } catch {
    return [typical];
  }
}

export function predictSection() {
  let chosen = null; // what is shown, so that what was typed stays while the version does
  const load = async (model, status) => {
    if (!model.serving) return null;
    const key = `${model.name} ${model.serving}`;
    if (chosen?.key !== key) {
      const told = await get(pathOf(model.name, "/columns"));
      chosen = { key, model: model.name, tokens: status.tokens, columns: told.columns, rows: await examples(model, status, told.columns) };
    }
    return chosen;
  };
  return new Section("predict", 5, load, form);
}

function form({ model, tokens, columns, rows }) {
  const id = `try-${model}`;
  const fields = columns.map((column, at) => field(column, `${id}-${at}`));
  let shown = 0;
  const fill = (row) => fields.forEach((one, at) => one.set(row[at]));
  const next = () => fill(rows[(shown = (shown + 1) % rows.length)]);
  const answer = make("div.answer", { "aria-live": "polite" });
  const snippet = make("div.snippet");
  const body = () => `{"features": [{${columns.map((column, at) => `${JSON.stringify(column.name)}: ${fields[at].get()}`).join(", ")}}]}`;
  const submit = async (event) => {
    event.preventDefault();
    const started = performance.now();
    try {
      const told = await post(pathOf(model, "/predict"), body());
      answer.replaceChildren(...answered(told, performance.now() - started));
    } catch (problem) {
      answer.replaceChildren(make("p.problem", { lang: "en" }, problem.message));
    }
  };
  const url = new URL(pathOf(model, "/predict"), document.baseURI).href;
  const copy = (text, name) => show(snippet, text(url, body(), tokens), name);
  fill(rows[0]);
  return make(
    "form.try",
    { onsubmit: submit },
    make("div.fields", fields.map((one) => one.element)),
    make(
      "div.line",
      make("button", t("predict.do")),
      rows.length > 1 && make("button.plain", { type: "button", onclick: next }, t("predict.next")),
      make("button.plain", { type: "button", onclick: () => copy(curl, "curl") }, t("copy.as", { name: "curl" })),
      make("button.plain", { type: "button", onclick: () => copy(python, "Python") }, t("copy.as", { name: "Python" })),
    ),
    answer,
    snippet,
  );
}

// A column's field: `get` and `set` take JSON texts, since an int64 may have more digits than a JavaScript number.
function field(column, id) {
  const choices = column.type === "bool" ? [true, false] : column.closed ? column.categories : null;
  const control = make(choices ? "select" : "input", { id, required: !column.missing && column.type !== "string" });
  control.setAttribute("aria-describedby", `${id}-hint`);
  let list = null;
  if (choices) {
    const options = choices.map((choice) => make("option", { value: JSON.stringify(choice) }, String(choice)));
    control.append(...(column.missing ? [make("option", { value: "" }, t("missing"))] : []), ...options);
  } else {
    control.autocomplete = "off";
    if (column.type !== "string") control.inputMode = "decimal";
    if (column.categories.length) {
      list = make("datalist", { id: `${id}-list` }, column.categories.map((one) => make("option", { value: String(one) })));
      control.setAttribute("list", `${id}-list`);
    }
  }
  const text = column.type === "string" && !choices;
  return {
    element: make("div", make("label", { htmlFor: id }, column.name), control, list, make("small.quiet", { id: `${id}-hint` }, hint(column))),
    get: () => {
      if (control.value === "" && column.missing) return "null";
      if (choices) return control.value || "null";
      return text ? JSON.stringify(control.value) : literal(control.value.trim());
    },
    set: (json) => {
      if (json === undefined || json === "null") control.value = "";
      else control.value = text ? JSON.parse(json) : json;
    },
  };
}

// Written as it was typed where that is a JSON number; what is none is sent as text, and the service says so.
const literal = (typed) => (/^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(typed) ? typed : JSON.stringify(typed));

function hint(column) {
  const parts = [column.type];
  if (column.low !== null && column.high !== null) parts.push(t("hint.range", { low: rounded(column.low), high: rounded(column.high) }));
  if (column.missing) parts.push(t("hint.missing"));
  return parts.join(", ");
}

function answered(told, milliseconds) {
  const [prediction] = told.prediction;
  const labels = Object.entries(told.probability?.[0] ?? {}).sort((one, other) => other[1] - one[1]);
  const bars = labels.flatMap(([label, share]) => [
    make("span", label),
    make("meter", { min: 0, max: 1, value: share ?? 0, "aria-label": label }),
    make("span", share === null ? "–" : percent(share)),
  ]);
  return [
    make("p.prediction", typeof prediction === "string" ? prediction : JSON.stringify(prediction)),
    bars.length ? make("div.labels", bars) : null,
    make("p.quiet", t("predict.by", { model: told.model, version: told.version, time: time(milliseconds / 1000) })),
  ].filter(Boolean);
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curl(url, body, tokens) {
  const token = tokens ? " -H 'Authorization: Bearer TOKEN'" : "";
  return `curl ${quoted(url)} -H 'Content-Type: application/json'${token} -d ${quoted(body)}`;
}

function python(url, body, tokens) {
  const headers = { "Content-Type": "application/json", ...(tokens ? { Authorization: "Bearer TOKEN" } : {}) };
  return [
    "import json",
    "from urllib.request import Request, urlopen",
    "",
    `body = ${JSON.stringify(body)}`,
    `request = Request(${JSON.stringify(url)}, body.encode(), ${JSON.stringify(headers)})`,
    "with urlopen(request) as answer:",
    "    print(json.load(answer))",
  ].join("\n");
}

// A page that came over plain HTTP from another host may not write the clipboard: then the text is selected.
async function show(place, text, name) {
  const code = make("pre", { tabIndex: 0, role: "region", "aria-label": name }, text);
  const said = make("p.quiet.small", { role: "status" });
  place.replaceChildren(said, code);
  getSelection().selectAllChildren(code);
  try {
    await navigator.clipboard.writeText(text);
    said.textContent = t("copy.done");
  } catch {
    said.textContent = t("copy.selected");
  }
}
