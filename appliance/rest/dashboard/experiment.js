// The experiment on a model: who answers which share, its evidence with bounds, and how the last one ended.

import { confirm } from "./admin.js";
import { get, pathOf, post } from "./ask.js";
import { make, table } from "./dom.js";
import { Section } from "./section.js";
import { either, number, percent, t, when } from "./words.js";

// In one sentence: who answers which share of the requests, and who is asked beside.
export function inWords(experiment) {
  const step = experiment.steps ? t("experiment.step", { step: experiment.step, steps: experiment.steps }) : "";
  const shares = experiment.arms.map((arm) => t("experiment.answers", { version: arm.version, share: percent(arm.share) }));
  const beside = experiment.shadow ? [t("experiment.beside", { version: experiment.shadow.version })] : [];
  return `${either(`kind.${experiment.kind}`, experiment.kind)}${step}: ${[...shares, ...beside].join(", ")}`;
}

export function experimentSection(changed) {
  const load = async (model) => {
    const told = await get(pathOf(model.name, "/experiment"));
    return told.running || told.last || told.problem ? told : null;
  };
  return new Section("experiment", 3, load, (told) => [
    told.problem && make("p.problem", { lang: "en" }, told.problem),
    told.running && running(told, changed),
    told.last && make("p.quiet", ended(told.last)),
  ]);
}

function running(told, changed) {
  const evidence = told.evidence ?? {};
  const challenger = (told.arms.find((arm) => arm.version !== told.base) ?? told.shadow)?.version ?? "";
  const facts = { model: told.model, base: told.base, version: challenger };
  const tests = evidence.verdict?.tests ?? [];
  return make(
    "div",
    make("p", inWords({ ...told, steps: told.steps.length })),
    evidence.verdict && make("p.verdict", { lang: "en" }, evidence.verdict.text),
    evidence.arms?.some((arm) => arm.requests) &&
      table(
        [t("version"), t("experiment.share"), t("requests"), t("failures"), t("experiment.rate"), t("experiment.slow")],
        evidence.arms.map((arm) => [arm.version, percent(arm.share), number(arm.requests), number(arm.failures), rate(arm), t("of", { part: arm.slow_runs, whole: arm.runs })]),
      ),
    evidence.comparison && make("p", compared(evidence.comparison)),
    tests.length > 0 && make("ul.small", { lang: "en" }, tests.map((test) => make("li", test.acts && make("strong", "! "), test.text))),
    make(
      "div.line",
      make("button.plain", { type: "button", onclick: () => act("promote", facts, changed) }, t("action.promote")),
      make("button.plain", { type: "button", onclick: () => act("abort", facts, changed) }, t("action.abort")),
    ),
  );
}

// The bounds hold at every look, however often one looks.
function rate(arm) {
  const [low, high] = arm.failure_rate;
  return arm.requests ? t("bounds", { low: percent(low), high: percent(high) }) : "–";
}

function compared(comparison) {
  const { rows, agreement, errors, nan } = comparison;
  if (!rows) return t("experiment.compared.none");
  return t("experiment.compared", { rows, share: percent(agreement), errors, nan: nan.challenger });
}

function ended(last) {
  const outcome = either(`outcome.${last.outcome}`, last.outcome);
  return t("experiment.last", { kind: either(`kind.${last.kind}`, last.kind), version: last.version, outcome, when: when(last.when), why: last.why || "–" });
}

function act(action, facts, changed) {
  confirm(t(`confirm.${action}.title`, facts), t(`confirm.${action}`, facts), t(`action.${action}`), async () => {
    await post(pathOf(facts.model, `/experiment/${action}`), {}, true);
    changed();
  });
}
