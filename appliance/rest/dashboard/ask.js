// Asks the service, with a token where there is one.

const TOKEN = "appliance-token"; // to look and predict: kept until the tab is closed
let admin = ""; // to change something: kept in this page's memory alone

export class Problem extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }

  get refused() {
    return this.status === 401 || this.status === 403;
  }
}

export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (value) => sessionStorage.setItem(TOKEN, value),
};

export const adminToken = {
  get: () => admin,
  set: (value) => {
    admin = value;
  },
};

export const get = (path, asAdmin = false) => ask(path, {}, asAdmin);

export function post(path, body, asAdmin = false) {
  const headers = { "Content-Type": "application/json" };
  return ask(path, { method: "POST", headers, body: typeof body === "string" ? body : JSON.stringify(body) }, asAdmin);
}

export const pathOf = (model, rest = "") => `models/${encodeURIComponent(model)}${rest}`;

async function ask(path, options, asAdmin) {
  const sent = (asAdmin && admin) || token.get();
  const headers = { ...options.headers, ...(sent ? { Authorization: `Bearer ${sent}` } : {}) };
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  const body = await answer.json();
  if (!answer.ok) throw new Problem(answer.status, body.detail ?? body.error ?? answer.statusText);
  return body;
}
