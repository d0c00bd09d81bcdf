// Applies filters as they are ticked, and makes an opened picture one that answers to the pointer. The board works
// without it: the filters have a button, and the picture is an image.
const form = document.querySelector("form.filters");
form?.addEventListener("change", (event) => {
  if (event.target.matches("input[type=checkbox], select")) form.requestSubmit();
});
const columns = [...document.querySelectorAll("[name=cols]:checked")].map((box) => box.value).join();
form?.addEventListener("formdata", (event) => {
  // Short addresses: what is empty or usual need not be said.
  const usual = new Set(["q", "min", "max", "show", "avg", "rank", "rows"]);
  for (const [name, value] of [...event.formData]) if (usual.has(name) && (value === "" || value === "0")) event.formData.delete(name);
  const areUsual = !new URLSearchParams(location.search).has("cols") && event.formData.getAll("cols").join() === columns;
  if (areUsual) event.formData.delete("cols");
});

const scripts = ["/static/vega/vega.min.js", "/static/vega/interpreter.js"];
let library;

async function load() {
  // The interpreter evaluates expressions itself: the page's policy allows no generated code.
  await new Promise((resolve, reject) => {
    const script = Object.assign(document.createElement("script"), { src: scripts[0], onload: resolve, onerror: reject });
    document.head.append(script);
  });
  const { expressionInterpreter } = await import(scripts[1]);
  return { vega: window.vega, expr: expressionInterpreter };
}

async function animate(details) {
  if (!details.open || details.dataset.drawn) return;
  details.dataset.drawn = "yes";
  try {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches ? "&theme=dark" : "";
    const [{ vega, expr }, answer] = await Promise.all([(library ??= load()), fetch(details.dataset.picture + dark)]);
    if (!answer.ok) return;
    const place = document.createElement("div");
    place.className = "drawn";
    const tip = Object.assign(document.createElement("div"), { className: "vg-tooltip", hidden: true });
    const runtime = vega.parse(await answer.json(), null, { ast: true });
    const view = new vega.View(runtime, { expr, renderer: "svg", container: place, hover: true });
    view.tooltip((handler, event, item, value) => {
      tip.hidden = value == null || value === "";
      if (tip.hidden) return;
      tip.textContent = typeof value === "object" ? Object.entries(value).map(([name, text]) => `${name}: ${text}`).join("\n") : String(value);
      tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
      tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
    });
    await view.runAsync();
    const drawing = place.querySelector("svg");
    drawing?.setAttribute("role", "img");
    drawing?.setAttribute("aria-label", details.querySelector("summary").textContent);
    details.querySelector("picture").replaceWith(place);
    details.append(tip);
  } catch {
    // The image stays.
  }
}

for (const details of document.querySelectorAll("details.picture")) {
  details.addEventListener("toggle", () => animate(details));
  animate(details);
}
