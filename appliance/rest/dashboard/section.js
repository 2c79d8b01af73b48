// A part of a model's details: asks for what it shows no more often than it says, and draws it when it has changed.

import { make, redraw } from "./dom.js";
import { either, t } from "./words.js";

export class Section {
  // `load(model, status)` returns the data, or null where there is nothing to show; `draw(data)` makes elements of it.
  constructor(title, seconds, load, draw) {
    this.seconds = seconds;
    this.load = load;
    this.draw = draw;
    this.asked = -Infinity;
    this.body = make("div.body");
    this.element = make("section.part", { hidden: true }, make("h3", t(title)), this.body);
  }

  async refresh(model, status, now = performance.now()) {
    if (now - this.asked < 1000 * this.seconds) return;
    this.asked = now;
    try {
      const data = await this.load(model, status);
      this.element.hidden = data === null;
      if (data !== null) redraw(this.body, data, this.draw);
    } catch (problem) {
      this.element.hidden = false;
      redraw(this.body, problem.message, (text) => make("p.problem", { lang: "en" }, text));
    }
  }

  again() {
    this.asked = -Infinity;
  }
}

export const stateOf = (state) => either(`state.${state}`, state);
export const kindOf = (state) => ({ drift: "wait", watch: "", fine: "good" })[state] ?? "";
