// Small charts as inline SVG. Colours and line widths are in style.css; a chart is told in words by its label.

import { make, svg } from "./dom.js";
import { number, percent, rounded, t, time, when } from "./words.js";

const sum = (values) => values.reduce((one, other) => one + other, 0);

// Requests over time as bars: answered, refused by the caller's fault, failed by the host's; one path for each.
export function requests(series, height = 44) {
  const { requests: all, caller_failures: caller, service_failures: service } = series;
  const most = Math.max(1, ...all);
  const bars = (values, below) =>
    values
      .map((value, at) => {
        if (!value) return "";
        const [low, high] = [below(at), below(at) + value].map((one) => height - 1 - (one / most) * (height - 2));
        return `M${at + 0.1} ${low.toFixed(2)}V${Math.min(high, low - 0.8).toFixed(2)}h.8V${low.toFixed(2)}z`;
      })
      .join("");
  const good = all.map((value, at) => value - caller[at] - service[at]);
  const span = t(`span.${series.span}`);
  const values = { span, requests: sum(all), caller: sum(caller), service: sum(service) };
  return svg(
    "svg",
    { class: "chart requests", viewBox: `0 0 ${all.length} ${height}`, preserveAspectRatio: "none", role: "img",
      "aria-label": t("chart.requests", values) },
    svg("path", { class: "axis", d: `M0 ${height - 0.5}H${all.length}` }),
    svg("path", { class: "answered", d: bars(good, () => 0) }),
    svg("path", { class: "caller", d: bars(caller, (at) => good[at]) }),
    svg("path", { class: "service", d: bars(service, (at) => good[at] + caller[at]) }),
  );
}

// The median and the slowest hundredth over time, as two lines with gaps where nothing was answered.
export function times(series, height = 44) {
  const { p50_seconds: half, p99_seconds: high } = series;
  const most = Math.max(1e-9, ...high.map((value) => value ?? 0));
  const line = (values) => {
    let pen = "M";
    return values
      .map((value, at) => {
        if (value === null) {
          pen = "M";
          return "";
        }
        const point = `${pen}${at + (pen === "M" ? 0 : 0.5)} ${(height - 2 - (value / most) * (height - 4)).toFixed(2)}${pen === "M" ? "h.9" : ""}`;
        pen = "L";
        return point;
      })
      .join("");
  };
  const label = t("chart.times", { span: t(`span.${series.span}`), time: time(most) });
  return svg(
    "svg",
    { class: "chart times", viewBox: `0 0 ${half.length} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("path", { class: "axis", d: `M0 ${height - 0.5}H${half.length}` }),
    svg("path", { class: "high", d: line(high) }),
    svg("path", { class: "half", d: line(half) }),
  );
}

// A chart with what its axes say: from when to when, and its largest value.
export function framed(title, series, chart, most) {
  const end = series.start + series.step_seconds * series.requests.length;
  return make(
    "figure",
    make("figcaption", make("span", title), make("span.quiet", most)),
    chart,
    make("div.ends.quiet", make("span", when(series.start)), make("span", when(Math.min(end, Date.now() / 1000)))),
  );
}

export const mostRequests = (series) =>
  t("chart.most", { number: number(Math.max(0, ...series.requests)), step: t(`step.${series.span}`) });

export const slowest = (series) => `p99 ≤ ${time(Math.max(0, ...series.p99_seconds.map((value) => value ?? 0)) || null)}`;

// Shares now as filled bars over training's as an outline, in the same bins.
export function histogram(column, height = 46) {
  const { now, training } = column;
  const bins = Math.max(1, training.length);
  const most = Math.max(0.001, ...now, ...training);
  const y = (share) => (height - 1 - (share / most) * (height - 3)).toFixed(2);
  const bars = now.map((share, at) => (share ? `M${at + 0.12} ${height - 1}V${y(share)}h.76V${height - 1}z` : "")).join("");
  const outline = training.map((share, at) => `${at ? "L" : "M"}${at} ${y(share)}H${at + 1}`).join("");
  return svg(
    "svg",
    { class: "chart histogram", viewBox: `0 0 ${bins} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": described(column) },
    svg("path", { class: "axis", d: `M0 ${height - 0.5}H${bins}` }),
    svg("path", { class: "now", d: bars }),
    svg("path", { class: "training", d: outline }),
  );
}

// Categories as lines: name, bar with a mark at training's share, both numbers.
export function shares(column) {
  return make(
    "ul.shares",
    column.labels.map((label, at) => {
      const [now, training] = [column.now[at], column.training[at]];
      const bar = svg(
        "svg",
        { viewBox: "0 0 100 12", preserveAspectRatio: "none", "aria-hidden": "true", class: "chart bar" },
        svg("rect", { class: "track", width: 100, height: 12 }),
        svg("rect", { class: "now", width: Math.max(0, 100 * now), height: 12 }),
        svg("rect", { class: "mark", x: Math.min(99, Math.max(0, 100 * training - 0.5)), width: 1, height: 12 }),
      );
      const told = make("span.told", percent(now), make("span.quiet", ` ${t("training.short", { share: percent(training) })}`));
      return make("li", make("span.label", label || t("others")), bar, told);
    }),
  );
}

// What a histogram shows, for whoever does not see it.
function described(column) {
  const parts = column.now.map((share, at) => `${binName(column, at)}: ${percent(share)} (${percent(column.training[at])})`);
  return `${column.column}. ${t("chart.histogram")} ${parts.slice(0, 16).join("; ")}`;
}

function binName(column, at) {
  if (column.labels.length) return column.labels[at] || t("others");
  const { edges } = column;
  if (at === 0) return `≤ ${rounded(edges[0])}`;
  return at >= edges.length ? `> ${rounded(edges.at(-1))}` : `≤ ${rounded(edges[at])}`;
}

// The ends of a histogram's axis.
export function ends(column) {
  if (column.labels.length || column.edges.length < 2) return null;
  return make("div.ends.quiet", make("span", `≤ ${rounded(column.edges[0])}`), make("span", `> ${rounded(column.edges.at(-1))}`));
}
