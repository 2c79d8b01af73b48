// A model's requests: today's numbers, the last failures, and charts of an hour, a day and a month.

import { framed, mostRequests, requests, slowest, times } from "./charts.js";
import { get, pathOf } from "./ask.js";
import { make } from "./dom.js";
import { Section } from "./section.js";
import { ago, either, number, t, time } from "./words.js";

// What all versions of a model were asked since the service started.
export function total(status, model) {
  const own = status.counts.filter((one) => one.model === model);
  const sum = (key) => own.reduce((all, one) => all + one[key], 0);
  return {
    requests: sum("requests"), caller: sum("caller_failures"), service: sum("service_failures"), rows: sum("rows"),
    last: Math.max(0, ...own.map((one) => one.last)),
  };
}

// p50 and p99 of the version that serves, since the service started.
export function timesOf(status, model) {
  const own = status.counts.find((one) => one.model === model.name && one.version === model.serving);
  return own ? [own.p50_seconds, own.p99_seconds] : [null, null];
}

export function numbers(status, model) {
  const all = total(status, model.name);
  const [half, high] = timesOf(status, model);
  const last = (fault) => status.last_failures.find((one) => one.model === model.name && one.fault === fault);
  return [
    [t("requests"), number(all.requests), ""],
    [t("rows"), number(all.rows), ""],
    [t("failures.caller"), number(all.caller), reason(last("caller"))],
    [t("failures.service"), number(all.service), reason(last("service"))],
    ["p50", time(half), ""],
    ["p99", time(high), ""],
    [t("last"), all.last ? ago(all.last) : t("never"), ""],
  ];
}

function reason(failure) {
  if (!failure) return "";
  const word = either(`reason.${failure.reason}`, failure.reason);
  return `${failure.column ? `${failure.column}: ` : ""}${word}, ${ago(failure.time)}`;
}

export function trafficSection() {
  const load = async (model) => Promise.all(["hour", "day", "month"].map((span) => get(pathOf(model.name, `/history?span=${span}`))));
  return new Section("traffic", 60, load, (spans) =>
    make(
      "div.charts",
      spans.map((series) => framed(t(`title.${series.span}`), series, requests(series, 60), mostRequests(series))),
      spans.map((series) => framed(t("title.times", { span: t(`span.${series.span}`) }), series, times(series, 60), slowest(series))),
      make("p.legend.quiet", ["answered", "caller", "service"].map((kind) => make("span", make(`i.${kind}`), t(`legend.${kind}`)))),
    ),
  );
}
