// How a model's answers and rows are spread now, beside training, those furthest from it first.

import { ends, histogram, shares } from "./charts.js";
import { get, pathOf } from "./ask.js";
import { badge, make } from "./dom.js";
import { kindOf, Section, stateOf } from "./section.js";
import { percent, rounded, t, when } from "./words.js";

const SECONDS = 20;
const FIRST = 12; // columns that are shown before somebody asks for all

const load = async (model) => (model.drift ? get(pathOf(model.name, "/distribution")) : null); // null: it is not watched

export function answersSection() {
  return new Section("answers", SECONDS, load, (told) => {
    const outputs = told.columns.filter((column) => column.role === "output");
    return [since(told), ...(told.rows ? outputs.slice(0, FIRST).map(column) : [])];
  });
}

export function inputsSection() {
  return new Section("inputs", SECONDS, load, (told) => {
    const inputs = told.columns.filter((column) => column.role === "input");
    if (!told.rows) return since(told);
    const rest = inputs.slice(FIRST);
    const more = rest.length && make("details", make("summary", t("columns.more", { count: rest.length })), make("div.columns", rest.map(column)));
    const left = told.left_out > 0 && make("p.quiet", t("columns.left", { count: told.left_out }));
    return [make("div.columns", inputs.slice(0, FIRST).map(column)), more, left];
  });
}

function since(told) {
  if (!told.rows) return make("p.quiet", t("distribution.none"));
  const text = told.until ? t("distribution.window", { rows: told.rows, until: when(told.until) }) : t("distribution.start", { rows: told.rows });
  return make("p.quiet", `${text} ${t("distribution.key")}`);
}

function column(told) {
  const facts = [
    told.psi !== null && `PSI ${rounded(told.psi)}`,
    (told.missing > 0 || told.missing_in_training > 0) &&
      t("missing.share", { now: percent(told.missing), training: percent(told.missing_in_training) }),
  ].filter(Boolean);
  return make(
    "div.column",
    make("div.line", make("strong", told.column), told.state !== "too few rows" && badge(stateOf(told.state), kindOf(told.state))),
    told.labels.length && told.role === "output" ? shares(told) : [histogram(told), ends(told)],
    make("p.quiet.small", facts.join(" · ")),
    told.because.length > 0 && make("p.small", { lang: "en" }, told.because.join("; ")),
  );
}

export function driftInWords(drift) {
  if (!drift || !drift.columns.length) return "";
  return t("drift.columns", { state: stateOf(drift.state), columns: drift.columns.slice(0, 5).join(", ") });
}
