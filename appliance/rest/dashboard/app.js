// Shows what GET /status tells, every two seconds while somebody looks, and a card for each model.

import { startAdmin, tokensAreNeeded } from "./admin.js";
import { get, Problem, token } from "./ask.js";
import { Card } from "./card.js";
import { find, make, redraw, setText } from "./dom.js";
import { choose, duration, either, load, other, t, when } from "./words.js";

const REFRESH_MS = 2000;
const PATIENCE = 10; // times as long as an answer took: a slow host has more to do than to be looked at
const HISTORY_MS = 60_000; // a minute is written once it has ended
const DAY_MS = 5 * HISTORY_MS;

const cards = new Map(); // model name -> its Card
const histories = { hour: { due: 0, models: new Map() }, day: { due: 0, models: new Map() } };
let timer = 0;
let asking = false;

async function refresh() {
  clearTimeout(timer);
  if (document.hidden || asking) return; // asked for again when somebody looks
  asking = true;
  const began = performance.now();
  try {
    const status = await get("status");
    show(status);
    await showHistories();
  } catch (problem) {
    showProblem(problem);
  }
  asking = false;
  timer = setTimeout(refresh, Math.max(REFRESH_MS, PATIENCE * (performance.now() - began)));
}

function show(status) {
  document.body.classList.remove("away");
  find("token-form").hidden = true;
  tokensAreNeeded(status.tokens);
  showLevel(status.level, status.alarms.length);
  const { host, platform, program: version } = status;
  setText(find("host"), t("host", { host, platform, version, up: duration(status.uptime_seconds) }));
  redraw(find("alarms"), status.alarms, (alarms) => alarms.map(alarm));
  find("alarms").hidden = status.alarms.length === 0;
  find("no-models").hidden = status.models.length > 0;
  const names = new Set(status.models.map((model) => model.name));
  for (const [name, card] of cards) {
    if (names.has(name)) continue;
    card.element.remove();
    cards.delete(name);
  }
  for (const model of status.models) cardOf(model.name, status.models.length === 1).show(model, status);
}

function showLevel(level, count) {
  const kind = { green: "good", amber: "wait", red: "bad" }[level];
  setText(find("level"), count ? t(`level.${level}`, { count }) : t("level.green"));
  find("level").className = `level ${kind}`;
  document.title = count ? `(${count}) ${t("title")}` : t("title");
}

function alarm(one) {
  const values = { ...one.values, ...(one.values.when ? { when: when(one.values.when) } : {}) };
  const name = one.model && make("a", { href: `#${encodeURIComponent(one.model)}` }, t("alarm.show", { model: one.model }));
  return make(
    `li.${one.level}`,
    make("span.mark", { "aria-hidden": "true" }, one.level === "red" ? "●" : "▲"),
    make(
      "div",
      make("p", make("span.hidden-text", `${t(`word.${one.level}`)}: `), either(`alarm.${one.kind}.found`, one.found, values), name && [" ", name]),
      make("p.quiet", either(`alarm.${one.kind}.next`, one.next, values)),
    ),
  );
}

function cardOf(name, alone) {
  if (!cards.has(name)) {
    const card = new Card(name, remember, refreshSoon);
    cards.set(name, card);
    find("models").append(card.element);
    if (alone || wanted().includes(name)) card.open(true);
  }
  return cards.get(name);
}

// The opened models stand in the address, so that a reload, or a link from an alarm, opens them.
const wanted = () => location.hash.slice(1).split(",").filter(Boolean).map(decodeURIComponent);

function remember(name, open) {
  const names = wanted().filter((one) => one !== name);
  const kept = (open ? [...names, name] : names).map(encodeURIComponent).join(",");
  history.replaceState(null, "", kept ? `#${kept}` : location.pathname + location.search);
}

function follow() {
  for (const name of wanted()) cards.get(name)?.open(true);
  cards.get(wanted().at(-1))?.element.scrollIntoView({ block: "start" });
}

async function showHistories() {
  const now = performance.now();
  for (const [span, kept] of Object.entries(histories)) {
    if (now < kept.due && [...cards.keys()].every((name) => kept.models.has(name))) continue;
    const told = await get(`history?span=${span}`);
    kept.due = now + (span === "day" ? DAY_MS : HISTORY_MS);
    kept.models = new Map(told.models.map((series) => [series.model, series]));
  }
  for (const [name, card] of cards) card.showHistory(histories.hour.models.get(name), histories.day.models.get(name));
}

function showProblem(problem) {
  if (problem instanceof Problem && problem.refused) {
    const form = find("token-form");
    const hint = find("token-problem");
    hint.hidden = !token.get();
    setText(hint, problem.message);
    if (form.hidden) {
      form.hidden = false;
      find("token").focus();
    }
    setText(find("level"), t("token.needed"));
    find("level").className = "level wait";
    return;
  }
  document.body.classList.add("away");
  setText(find("level"), problem instanceof Problem ? problem.message : t("away"));
  find("level").className = "level bad";
  if (!(problem instanceof Problem || problem instanceof TypeError)) console.error(problem); // a fault of this page
}

function refreshSoon() {
  setTimeout(refresh, 50);
}

await load();
startAdmin();
setText(find("language"), t("language.other"));
find("language").lang = other;
find("language").addEventListener("click", () => choose(other));
find("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set(find("token").value.trim());
  find("token").value = "";
  find("token-form").hidden = true;
  refreshSoon();
});
document.addEventListener("visibilitychange", refresh);
addEventListener("hashchange", follow);
refresh();
