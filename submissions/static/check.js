// Checks the repository while somebody types, and fills in what the repository itself says. The form works without it:
// its button "Check" asks the same and shows the same list.
const form = document.querySelector("form[data-check]");
const usual = { model_type: "unknown", precision: "auto", weight_type: "original", base_model: "", chat_template: "" };
const touched = new Set();
const filled = new Set();
let asked = new AbortController();
let timer = 0;
let last = "";

function question() {
  const given = new URLSearchParams(new FormData(form));
  // What was filled in for another repository is not asked of this one.
  for (const name of filled) given.set(name, usual[name]);
  return given;
}

function fill(found) {
  for (const name of Object.keys(usual)) {
    const field = form.elements[name];
    const value = found.dataset[name.replace(/_(.)/g, (_, letter) => letter.toUpperCase())];
    if (touched.has(name) || (field.value !== usual[name] && !filled.has(name))) continue;
    field.value = value || usual[name];
    if (field.value !== (value || usual[name])) field.value = usual[name];
    filled.add(name);
    if (name === "weight_type" && value === "adapter") field.closest("details").open = true;
  }
}

function show(page, found) {
  document.getElementById("findings").replaceWith(found);
  // What was told when the form was sent is no longer so.
  form.querySelector(":scope > .alert")?.remove();
  for (const field of form.querySelectorAll(".field")) {
    const control = field.querySelector("input, select");
    const told = page.getElementById(control.id)?.closest(".field");
    field.querySelectorAll(".error, .told").forEach((old) => old.remove());
    control.removeAttribute("aria-invalid");
    control.removeAttribute("aria-describedby");
    control.after(...(told?.querySelectorAll(".error, .told") ?? []));
    if (!field.querySelector(".error")) continue;
    control.setAttribute("aria-invalid", "true");
    control.setAttribute("aria-describedby", `${control.id}-error`);
  }
}

async function ask(given) {
  const answer = await fetch("/submit/check", { method: "POST", body: given, signal: asked.signal });
  if (![200, 422, 503].includes(answer.status)) return {};
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  return { page, found: page.getElementById("findings") };
}

async function check() {
  const given = question();
  if (!/^[^/\s]+\/[^/\s]+$|^\//.test(given.get("model").trim()) || String(given) === last) return;
  asked.abort();
  const mine = (asked = new AbortController());
  document.getElementById("findings").setAttribute("aria-busy", "true");
  try {
    let { page, found } = await ask(given);
    if (!found) return;
    last = String(given);
    fill(found);
    // What was filled in is checked as well: an adapter on its base, a template that is to be applied.
    const now = new URLSearchParams(new FormData(form));
    if (["weight_type", "base_model", "chat_template"].some((name) => now.get(name) !== given.get(name))) {
      ({ page, found } = await ask(now));
    }
    if (found) show(page, found);
  } catch {
    // Typed on, or the server is away for a moment: submitting says what is wrong.
  } finally {
    if (asked === mine) document.getElementById("findings").removeAttribute("aria-busy");
  }
}

form?.addEventListener("input", (event) => {
  if (event.target.name in usual && event.isTrusted) {
    touched.add(event.target.name);
    filled.delete(event.target.name);
  }
  clearTimeout(timer);
  timer = setTimeout(check, 700);
});
// A form that was sent comes back with what was filled in as if somebody had chosen it.
form?.addEventListener("submit", () => sessionStorage.setItem("filled", JSON.stringify([...filled])));
if (document.querySelector(".error, #findings .passed")) for (const name of JSON.parse(sessionStorage.getItem("filled") ?? "[]")) filled.add(name);
if (form?.elements.model.value && !document.querySelector(".error")) check();
