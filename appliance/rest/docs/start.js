// Starts Swagger UI over the service's document, or one model's (?model=NAME). All it asks for is on this origin.

const TOKEN = "appliance-token"; // as the dashboard keeps it for this tab
const choice = document.getElementById("document");
const model = new URLSearchParams(location.search).get("model") ?? "";
const path = model ? `models/${encodeURIComponent(model)}/openapi.json` : "openapi.json";

function authorised(headers) {
  const token = sessionStorage.getItem(TOKEN);
  return token && !headers.Authorization ? { ...headers, Authorization: `Bearer ${token}` } : headers;
}

async function listModels() {
  const answer = await fetch("models", { headers: authorised({}) });
  const names = answer.ok ? (await answer.json()).models.filter((one) => one.serving).map((one) => one.name) : [];
  for (const name of new Set(model ? [model, ...names] : names)) {
    const option = new Option(`model ${name}`, name);
    option.selected = name === model;
    choice.append(option);
  }
}

choice.addEventListener("change", () => {
  location.search = choice.value ? `?model=${encodeURIComponent(choice.value)}` : "";
});
document.getElementById("source").href = path;
document.getElementById("source").textContent = path;
document.documentElement.classList.toggle("dark-mode", matchMedia("(prefers-color-scheme: dark)").matches);
listModels();

window.SwaggerUIBundle({
  url: path,
  dom_id: "#api",
  layout: "BaseLayout",
  deepLinking: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  requestSnippetsEnabled: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null, // else its badge would ask a server on the internet
  requestInterceptor(request) {
    request.headers = authorised(request.headers);
    return request;
  },
});
