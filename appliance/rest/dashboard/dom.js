// Makes elements. Text goes in as text nodes alone, so that no name or value can become markup.

const SVG = "http://www.w3.org/2000/svg";

// make("p.quiet.small", {id: "x", onclick: f}, child, "text", ...): null and false children are left out.
export function make(what, ...rest) {
  const [tag, ...classes] = what.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  return filled(element, rest);
}

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function filled(element, rest) {
  const first = rest[0];
  const options = first && typeof first === "object" && !(first instanceof Node) && !Array.isArray(first) ? rest.shift() : {};
  for (const [name, value] of Object.entries(options)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && !name.includes("-")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...rest.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const find = (id) => document.getElementById(id);

// A live region must not repeat itself, and a selection in a text must last: what is there already stays.
export function setText(element, value) {
  const text = String(value ?? "");
  if (element.textContent !== text) element.textContent = text;
}

// Replaces the children where `data` is another than before; `draw` makes them.
export function redraw(element, data, draw) {
  const told = JSON.stringify(data);
  if (element.dataset.shown === told) return;
  element.dataset.shown = told;
  element.replaceChildren(...[draw(data)].flat().filter(Boolean));
}

export function badge(text, kind = "") {
  return make(`span.badge${kind && `.${kind}`}`, text);
}

export function table(head, rows) {
  return make(
    "div.scroll",
    { tabIndex: 0, role: "region", "aria-label": head.join(", ") },
    make(
      "table",
      make("thead", make("tr", head.map((text) => make("th", { scope: "col" }, text)))),
      make("tbody", rows.map((cells) => make("tr", cells.map((cell) => make("td", cell ?? ""))))),
    ),
  );
}
