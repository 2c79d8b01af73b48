// A model's installed versions, what may be done with them, and what was done: from the receipts.

import { confirm } from "./admin.js";
import { get, pathOf, post } from "./ask.js";
import { make, table } from "./dom.js";
import { Section } from "./section.js";
import { either, number, percent, rounded, t, when } from "./words.js";

const SHOWN = 8;

export function versionsSection(changed) {
  const load = async (model, status) => {
    const told = await get(pathOf(model.name));
    const counts = status.counts.filter((one) => one.model === model.name).map((one) => [one.version, one.requests]);
    return { ...told, counts: Object.fromEntries(counts) };
  };
  return new Section("versions", 5, load, (told) => {
    const rows = [...told.versions].reverse().map((one) => [
      one.version, role(told, one), tolerance(one.tolerance), number(told.counts[one.version] ?? 0),
      one.version === told.active || one.problem ? "" : activate(told, one.version, changed),
    ]);
    return [
      table([t("version"), t("versions.role"), t("versions.proved"), t("requests"), t("versions.action")], rows),
      make("div.line", told.previous && rollBack(told, changed), told.state === "probation" && markGood(told, changed)),
    ];
  });
}

function role(told, one) {
  if (one.problem) return make("span", { lang: "en" }, one.problem);
  const { experiment } = told;
  const arm = experiment?.arms.find((other) => other.version === one.version);
  if (one.active) return arm && arm.share < 1 ? t("role.active.share", { share: percent(arm.share) }) : t("role.active");
  if (arm?.share) return `${either(`kind.${experiment.kind}`, experiment.kind)} ${percent(arm.share)}`;
  if (experiment?.shadow?.version === one.version) return t("kind.shadow");
  return one.version === told.previous ? t("role.previous") : t("role.installed");
}

function tolerance(proved) {
  if (!proved) return "–";
  const [absolute, relative] = [rounded(proved.absolute), rounded(proved.relative)];
  return proved.absolute === proved.relative ? `± ${absolute}` : t("versions.tolerance", { absolute, relative });
}

function button(action, facts, path, changed) {
  const ask = () =>
    confirm(t(`confirm.${action}.title`, facts), t(`confirm.${action}`, facts), t(`action.${action}`), async () => {
      await post(pathOf(facts.model, path), {}, true);
      changed();
    });
  const label = t(`action.${action}.named`, facts);
  return make("button.plain", { type: "button", onclick: ask, "aria-label": `${label} (${facts.model})` }, label);
}

const activate = (told, version, changed) =>
  button("activate", { model: told.name, version, active: told.active ?? t("none") }, `/versions/${encodeURIComponent(version)}/activate`, changed);

const rollBack = (told, changed) =>
  button("rollback", { model: told.name, version: told.previous, active: told.active ?? t("none") }, "/rollback", changed);

const markGood = (told, changed) => button("good", { model: told.name, version: told.active }, "/mark-good", changed);

export function receiptsSection() {
  const load = (model) => get(pathOf(model.name, "/receipts"));
  return new Section("receipts", 5, load, (told) => {
    if (!told.receipts.length) return make("p.quiet", t("receipts.none"));
    const list = (receipts) => make("ol.receipts", receipts.map(receipt));
    const rest = told.receipts.slice(SHOWN);
    return [
      list(told.receipts.slice(0, SHOWN)),
      rest.length > 0 && make("details", make("summary", t("receipts.more", { count: rest.length })), list(rest)),
    ];
  });
}

function receipt(one) {
  const what = either(`what.${one.what}`, one.what);
  const told = one.outcome === "refused" ? t("receipts.refused", { what }) : what;
  const test = one.self_test;
  const tested = test && typeof test.rows === "number" && t("receipts.tested", { rows: test.rows, difference: difference(test.largest_difference) });
  return make(
    `li${one.outcome === "refused" ? ".failed" : ""}`,
    make("time.quiet", { dateTime: one.when }, when(one.when)),
    " ",
    make("strong", `${told} ${one.version}`),
    make("span.quiet", [one.why, tested].filter(Boolean).map((text) => ` · ${text}`).join("")),
  );
}

const difference = (value) => (typeof value === "number" ? value.toExponential(1) : "–");
