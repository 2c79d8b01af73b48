// The page's texts in the browser's language, and numbers, times and durations as it writes them.

const LANGUAGES = ["en", "de"];
const KEPT = "appliance-language"; // what was chosen by the switch, and nothing else, is kept in the browser

export const language = chosen();
const locale = navigator.languages.find((one) => one.slice(0, 2).toLowerCase() === language) ?? language; // en-GB
let texts = {};

function chosen() {
  const kept = localStorage.getItem(KEPT);
  const wanted = [kept, ...navigator.languages].filter(Boolean).map((one) => one.slice(0, 2).toLowerCase());
  return wanted.find((one) => LANGUAGES.includes(one)) ?? "en";
}

export async function load() {
  const answer = await fetch(`dashboard/${language}.json`);
  texts = await answer.json();
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = t(element.dataset.text);
}

export const other = LANGUAGES.find((one) => one !== language);

export function choose(wanted) {
  localStorage.setItem(KEPT, wanted);
  location.reload();
}

// Returns a text with its {values}; of several forms, `key.one` is for 1.
export function t(key, values = {}) {
  const form = values.count === 1 ? texts[`${key}.one`] : undefined;
  const text = form ?? texts[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => {
    const value = values[name];
    return value === undefined ? whole : typeof value === "number" ? number(value) : value;
  });
}

// Returns a text that may not be there: of what the service names by words that this page may not know yet.
export function either(key, fallback, values = {}) {
  return key in texts ? t(key, values) : fallback;
}

export function number(value, digits = 0) {
  return value.toLocaleString(locale, { maximumFractionDigits: digits });
}

// Three digits that count.
export function rounded(value) {
  if (value === null || value === undefined) return "–";
  return Number(value).toLocaleString(locale, { maximumSignificantDigits: 3 });
}

export function percent(share) {
  if (share === null || share === undefined) return "–";
  const digits = share > 0 && share < 0.01 ? 2 : share > 0.999 && share < 1 ? 2 : share < 0.1 ? 1 : 0;
  return share.toLocaleString(locale, { style: "percent", maximumFractionDigits: digits });
}

export function time(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.001) return `${rounded(seconds * 1e6)} µs`;
  return seconds < 1 ? `${rounded(seconds * 1e3)} ms` : `${rounded(seconds)} s`;
}

export function duration(seconds) {
  const steps = [[86400, "unit.day"], [3600, "unit.hour"], [60, "unit.minute"], [1, "unit.second"]];
  const [size, unit] = steps.find(([one]) => seconds >= one) ?? steps[3];
  return t(unit, { number: Math.floor(Math.max(0, seconds) / size) });
}

export function ago(unix) {
  return unix ? t("ago", { duration: duration(Date.now() / 1000 - unix) }) : t("never");
}

// A moment (ISO 8601 or Unix time): today as a time alone.
export function when(moment) {
  const date = new Date(typeof moment === "number" ? moment * 1000 : moment);
  if (Number.isNaN(date.getTime())) return String(moment);
  const today = date.toDateString() === new Date().toDateString();
  const clock = { hour: "2-digit", minute: "2-digit" };
  return today ? date.toLocaleTimeString(locale, clock) : date.toLocaleString(locale, { dateStyle: "medium", timeStyle: "short" });
}
