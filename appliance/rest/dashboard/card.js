// One model: a card with what matters at a glance, and its details once it is opened.

import { requests } from "./charts.js";
import { make, redraw, setText, badge } from "./dom.js";
import { answersSection, driftInWords, inputsSection } from "./drift.js";
import { experimentSection, inWords } from "./experiment.js";
import { predictSection } from "./predict.js";
import { qualitySection, recentSection } from "./quality.js";
import { numbers, timesOf, total, trafficSection } from "./traffic.js";
import { receiptsSection, versionsSection } from "./versions.js";
import { number, t, time, when } from "./words.js";

export class Card {
  // `opened(name, open)` is told when the card is opened or closed, `changed()` when something was changed.
  constructor(name, opened, changed) {
    this.name = name;
    this.sections = [];
    this.changed = changed;
    this.opened = opened;
    this.before = null;
    const id = `model-${name}`;
    this.toggle = make("button.name", { type: "button", onclick: () => this.open(!this.isOpen), "aria-expanded": "false", "aria-controls": id }, name);
    this.version = make("span.version");
    this.state = make("span.states");
    this.since = make("p.quiet.since");
    this.notes = make("div.notes");
    this.charts = make("div.glance");
    this.facts = make("dl.numbers.facts");
    this.details = make("div.details", { id, hidden: true });
    this.element = make(
      "article.panel",
      { "aria-label": name },
      make("div.line", make("h2", this.toggle), this.version, this.state),
      this.since, this.notes, this.charts, this.facts, this.details,
    );
  }

  get isOpen() {
    return !this.details.hidden;
  }

  open(open) {
    if (open === this.isOpen) return;
    if (open && !this.sections.length) {
      const changed = () => {
        for (const section of this.sections) section.again();
        this.changed();
      };
      const traffic = trafficSection();
      const halves = [
        [experimentSection(changed), answersSection(), inputsSection(), qualitySection()],
        [predictSection(), versionsSection(changed), receiptsSection(), recentSection()],
      ];
      this.sections = [traffic, ...halves.flat()];
      const half = (sections) => make("div.half", sections.map((section) => section.element));
      this.details.append(make("dl.numbers.all"), traffic.element, ...halves.map(half));
    }
    this.details.hidden = !open;
    this.toggle.setAttribute("aria-expanded", String(open));
    this.element.classList.toggle("open", open);
    this.opened(this.name, open);
    if (open && this.model) this.refresh();
  }

  show(model, status) {
    this.model = model;
    this.status = status;
    setText(this.version, model.serving ?? "–");
    redraw(this.state, stateOf(model), ([text, kind]) => badge(text, kind));
    setText(this.since, model.active ? t("since", { when: when(model.since) }) + (model.why ? ` · ${model.why}` : "") : t("inactive.long"));
    const alarms = status.alarms.filter((one) => one.model === model.name).map((one) => one.level);
    this.element.dataset.level = alarms[0] ?? "green";
    const notes = [
      ["experiment", model.experiment && inWords(model.experiment)],
      ["verdict", model.experiment?.verdict ?? model.probation?.verdict],
      ["drift", driftInWords(model.drift)],
      ["problem", [model.problem, model.experiment_problem].filter(Boolean).join("; ")],
    ];
    redraw(this.notes, notes.filter(([, text]) => text), (told) => told.map(note));
    this.showFacts(total(status, model.name), timesOf(status, model)[1]);
    if (this.isOpen) this.refresh();
  }

  showFacts(sum, high) {
    const now = performance.now();
    // A service that was started again counts from zero, so a difference below zero means nothing.
    const [then, at] = this.before ?? [sum.requests, now];
    const rate = now > at && sum.requests >= then ? (sum.requests - then) / ((now - at) / 1000) : null;
    this.before = [sum.requests, now];
    const failed = sum.caller + sum.service;
    const facts = [
      [t("requests"), number(sum.requests)],
      [t("per.second"), rate === null ? "–" : number(rate, rate < 10 ? 1 : 0)],
      [t("failures"), number(failed), sum.service ? "bad" : ""],
      ["p99", time(high)],
    ];
    redraw(this.facts, facts, (told) => told.map(([name, value, kind]) => make("div", make("dt", name), make(`dd${kind ? `.${kind}` : ""}`, value))));
  }

  // An hour, and below it a day.
  showHistory(hour, day) {
    redraw(this.charts, [hour, day], () =>
      [hour, day].filter(Boolean).map((series) =>
        make("div", requests(series, series.span === "hour" ? 40 : 18), make("span.quiet.small", { "aria-hidden": "true" }, t(`title.${series.span}`)))),
    );
  }

  refresh() {
    redraw(this.details.firstChild, numbers(this.status, this.model), (told) =>
      told.map(([name, value, more]) => make("div", make("dt", name), make("dd", value), more && make("dd.quiet.small", more))));
    for (const section of this.sections) section.refresh(this.model, this.status);
  }
}

// What the service says in its own words is English.
function note([kind, text]) {
  return make(`p.${kind}`, { lang: kind === "verdict" || kind === "problem" ? "en" : null }, text);
}

function stateOf(model) {
  if (model.problem) return [t("state.problem"), "bad"];
  if (!model.active) return [t("state.inactive"), ""];
  if (model.serving !== model.active) return [t("state.loading", { version: model.active }), "wait"];
  return model.state === "good" ? [t("state.good"), "good"] : [t("state.probation"), "wait"];
}
