// Keeps the page's live part fresh without losing what the reader opened. The page works without it.
const region = document.querySelector("[data-live]");
const seconds = 3;

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("live");
    if (!fresh || !document.contains(region)) return;
    const open = new Set([...document.querySelectorAll("details[open] > summary")].map((summary) => summary.textContent));
    for (const details of fresh.querySelectorAll("details")) {
      if (open.has(details.querySelector("summary").textContent)) details.open = true;
    }
    const focused = document.activeElement;
    if (focused && region.contains(focused) && focused !== document.body) return;
    region.replaceChildren(...fresh.childNodes);
    document.title = page.title;
    if (!fresh.hasAttribute("data-live")) clearInterval(timer);
  } catch {
    // The server is away for a moment: the next round asks again.
  }
}

const timer = region ? setInterval(refresh, seconds * 1000) : 0;
