// What labels say of a model, coverage first; and its last answers, as the log keeps them.

import { adminToken, get, pathOf, Problem } from "./ask.js";
import { needAdmin } from "./admin.js";
import { make, table } from "./dom.js";
import { Section } from "./section.js";
import { duration, either, percent, rounded, t, time, when } from "./words.js";

const FIGURES = ["accuracy", "f1_macro", "log_loss", "brier", "auc", "mae", "rmse", "bias", "r2"];
const SHARES = ["accuracy", "f1_macro", "auc"];

export function qualitySection() {
  const load = async (model, status) => {
    if (!status.logged) return null;
    const told = await get(pathOf(model.name, "/quality"));
    const own = told.windows.filter((one) => one.version === model.serving && one.arm === null);
    // A window that holds the very same rows as one before says nothing new.
    const windows = own.filter((one, at) => own.findIndex((other) => other.coverage.rows === one.coverage.rows) === at);
    return { labels: told.labels, windows };
  };
  return new Section("quality", 30, load, ({ labels, windows }) => {
    const known = windows.filter((one) => one.coverage.labelled > 0);
    if (!known.length) return make("p.quiet", t("quality.none"));
    return [
      ...known.map(figures),
      make("p.quiet.small", t("quality.labels", { matched: labels.matched, late: labels.late, unknown: labels.unknown, waiting: labels.waiting })),
    ];
  });
}

function figures(one) {
  const { coverage } = one;
  const delay = coverage.median_delay_seconds;
  const told = [
    t("quality.coverage", { share: percent(coverage.share), labelled: coverage.labelled, rows: coverage.rows }),
    delay !== null && t("quality.delay", { duration: duration(delay) }),
    coverage.weighted && t("quality.weighted"),
  ].filter(Boolean);
  const shown = FIGURES.filter((name) => typeof one[name] === "number");
  return make(
    "div.window",
    make("h4", either(`window.${one.window}`, one.window)),
    make("p", told.join(" ")),
    make("dl.numbers", shown.map((name) => make("div", make("dt", either(`figure.${name}`, name)), make("dd", figure(one, name))))),
  );
}

function figure(one, name) {
  const value = SHARES.includes(name) ? percent(one[name]) : rounded(one[name]);
  const interval = name === "accuracy" ? one.interval : one[`${name}_interval`];
  if (!interval) return value;
  const [low, high] = interval.map((bound) => (name === "accuracy" ? percent(bound) : rounded(bound)));
  return [value, make("small.quiet", ` ${t("bounds", { low, high })}`)];
}

export function recentSection() {
  const load = async (model, status) => {
    if (!status.logged) return null;
    if (status.tokens && !adminToken.get()) return { needed: true };
    try {
      return await get(pathOf(model.name, "/answers?limit=12"), true);
    } catch (problem) {
      if (problem instanceof Problem && problem.refused) return { needed: true };
      throw problem;
    }
  };
  const section = new Section("recent", 5, load, (told) => {
    if (told.needed) {
      const again = () => needAdmin(() => section.again());
      return [make("p.quiet", t("recent.admin")), make("button.plain", { type: "button", onclick: again }, t("admin.token.enter"))];
    }
    if (!told.answers.length) return make("p.quiet", t("recent.none"));
    const columns = Object.keys(told.answers.find((one) => one.row)?.row ?? {}).slice(0, 8);
    const head = [t("recent.time"), t("version"), t("prediction"), ...columns, t("recent.took")];
    const changed = Object.entries(told.policy).map(([column, word]) => `${column}: ${either(`policy.${word.split(":")[0]}`, word)}`);
    return [
      table(head, told.answers.map((one) => [when(one.time), one.version, answer(one), ...columns.map((name) => value(one, name, told.policy)), time(one.milliseconds / 1000)])),
      changed.length > 0 && make("p.quiet.small", t("recent.policy", { columns: changed.join(", ") })),
    ];
  });
  return section;
}

function answer(one) {
  if (one.error) return make("span.failed", `${one.column ? `${one.column}: ` : ""}${either(`reason.${one.error}`, one.error)}`);
  const text = typeof one.prediction === "string" ? one.prediction : JSON.stringify(one.prediction);
  const share = one.probability?.[text];
  return share === undefined || share === null ? text : `${text} (${percent(share)})`;
}

function value(one, name, policy) {
  const kept = one.row?.[name];
  if (kept === null || kept === undefined) return policy[name] === "drop" ? make("i.quiet", t("policy.drop")) : "–";
  return typeof kept === "number" ? rounded(kept) : String(kept);
}
