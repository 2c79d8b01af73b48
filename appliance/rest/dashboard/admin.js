// What changes something: asked for once more in words that say what will happen, with the administrator's token.

import { adminToken } from "./ask.js";
import { find, setText } from "./dom.js";
import { t } from "./words.js";

let needed = false; // whether callers of this service need a token
let work = null; // what the open dialog does

export function tokensAreNeeded(told) {
  needed = told;
}

// Asks whether to do `action`; what it throws is shown, and it can be tried again.
export function confirm(title, text, button, action) {
  work = action;
  setText(find("confirm-title"), title);
  setText(find("confirm-text"), text);
  setText(find("confirm-do"), button);
  find("confirm-token").hidden = !needed;
  find("admin-token").required = needed && !adminToken.get();
  find("admin-token").value = "";
  find("admin-token").placeholder = adminToken.get() ? t("admin.token.known") : "";
  find("confirm-problem").hidden = true;
  find("confirm").showModal();
}

// Asks for the administrator's token alone, to see something.
export function needAdmin(then) {
  confirm(t("admin.token"), t("admin.token.why"), t("token.use"), async () => then());
}

async function go(event) {
  event.preventDefault();
  const typed = find("admin-token").value.trim();
  if (typed) adminToken.set(typed);
  find("confirm-do").disabled = true;
  find("confirm-problem").hidden = true;
  try {
    await work();
    find("confirm").close();
  } catch (problem) {
    if (problem.refused) {
      adminToken.set("");
      find("admin-token").required = needed;
      find("admin-token").placeholder = "";
    }
    find("confirm-problem").hidden = false;
    setText(find("confirm-problem"), problem.message);
  }
  find("confirm-do").disabled = false;
}

export function startAdmin() {
  find("confirm-form").addEventListener("submit", go);
  find("confirm-not").addEventListener("click", () => find("confirm").close());
}
