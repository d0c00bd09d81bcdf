"use strict";
// Search, filters and sorting over the rows of the page; without it the page is whole, but for rows beyond the first.
(() => {
  const table = document.getElementById("board"), form = document.getElementById("find");
  if (!table || !form) return;
  const STEP = 200, body = table.tBodies[0], count = document.getElementById("count"), more = document.getElementById("more");
  const heads = [...table.tHead.rows[0].cells], label = heads.map((head) => head.dataset.name ?? head.textContent);
  // Columns are known by their keys, which are the same in every language, as addresses are.
  const keys = heads.map((head) => head.dataset.key), at = (key) => keys.indexOf(key);
  const benchmarks = label.slice(3, at("size")), said = JSON.parse(document.getElementById("words").textContent);
  const typeNames = new Map([...form.elements.namedItem("type").options].map((one) => [one.value, one.text]));
  const number = (text) => { const value = parseFloat(text); return Number.isNaN(value) ? null : value; };
  const fromPage = [...body.rows].map((row) => {
    const cells = [...row.cells], text = (cell) => (cell.firstChild ? cell.firstChild.textContent.trim() : "");
    const values = cells.map((cell, place) => (heads[place].classList.contains("n") ? number(cell.dataset.v ?? text(cell)) : (cell.dataset.v ?? cell.textContent).trim().toLowerCase()));
    values[1] = cells[1].querySelector("a").textContent.toLowerCase();
    return { row, id: row.id, values, imported: "imported" in row.dataset, flagged: "flagged" in row.dataset, also: row.dataset.also.toLowerCase() };
  });
  const make = (tag, text, className) => { const made = document.createElement(tag); if (text !== undefined) made.textContent = text; if (className) made.className = className; return made; };
  const rest = JSON.parse(document.getElementById("rest")?.textContent ?? "[]");
  const fromData = rest.map((data) => {
    const [id, rank, places, model, results, told, flags, imported, average, cells, size, sizeText, type, precision, licence, day, also] = data;
    const build = () => {
      const row = make("tr"); row.id = id;
      const add = (text, key, className) => { const cell = make("td", text, className); cell.dataset.label = label[at(key)]; row.append(cell); return cell; };
      const place = add(undefined, "rank", "n rank"); place.append(make("b", rank)); if (places) place.append(make("small", places));
      const head = make("th"); head.scope = "row"; const link = make("a", model); link.href = "#" + id; head.append(link);
      for (const flag of flags) head.append(" ", make("span", "⚑ " + flag, "badge flag"));
      if (imported) { const badge = make("span", said.imported, "badge"); badge.title = said.from.replace("{source}", () => imported); head.append(" ", badge); }
      head.append(make("small", told)); row.append(head);
      const mean = add(undefined, "average", "n"); mean.append(make("strong", average[0])); if (average[1]) mean.append(make("small", "±" + average[1]));
      cells.forEach((text, place) => add(text, "b:" + benchmarks[place], "n"));
      add(sizeText, "size", "n"); add(typeNames.get(type) ?? type, "type"); add(precision, "precision"); add(licence, "licence"); add(day, "scored", "whole");
      const evidence = add(undefined, "evidence"); if (results) { const file = make("a", said.results); file.href = results.split("/").map(encodeURIComponent).join("/"); evidence.append(file); }
      return row;
    };
    return { build, id, values: [rank, model.toLowerCase(), number(average[0]), ...cells.map(number), size, type, precision, licence.toLowerCase(), day, ""], imported: !!imported, flagged: flags.length > 0, also: also.toLowerCase() };
  });
  const rows = [...fromPage, ...fromData];
  const fields = { model: 1, name: 1, type: at("type"), precision: at("precision"), licence: at("licence"), license: at("licence") };
  const part = (text) => {
    const words = text.trim().toLowerCase(); if (!words) return null;
    const tests = []; const plain = words.replace(/@(\w+):(\S+)/g, (_, field, value) => {
      tests.push((one) => (field === "architecture" || field === "base" ? one.also.includes(value) : field === "type" || field === "precision" ? String(one.values[fields[field]]).startsWith(value) : fields[field] !== undefined && String(one.values[fields[field]]).includes(value))); return "";
    }).trim();
    if (plain) tests.push((one) => one.values[1].includes(plain));
    return (one) => tests.every((test) => test(one));
  };
  const sizeAt = at("size"); let sort = 0, down = false, limit = STEP, fitting = rows;
  const fits = () => {
    const found = new FormData(form), parts = String(found.get("q") ?? "").split(";").map(part).filter(Boolean);
    const [low, high] = String(found.get("size") || "-").split("-").map((text) => (text ? parseFloat(text) * 1e9 : null));
    return (one) => (!parts.length || parts.some((test) => test(one))) && (!found.get("type") || one.values[at("type")] === found.get("type"))
      && (!found.get("precision") || one.values[at("precision")] === found.get("precision"))
      && (!found.get("size") || (one.values[sizeAt] !== null && (low === null || one.values[sizeAt] >= low) && (high === null || one.values[sizeAt] <= high)))
      && (!found.get("own") || !one.imported) && (!found.get("unflagged") || !one.flagged);
  };
  const show = () => {
    body.replaceChildren(...fitting.slice(0, limit).map((one) => (one.row ??= one.build())));
    more.hidden = fitting.length <= limit; count.textContent = (fitting.length === rows.length ? said.all : said.some).replace("{some}", fitting.length).replace("{all}", rows.length);
  };
  const arrange = () => {
    const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    fitting = rows.filter(fits()).sort((a, b) => {
      const [x, y] = [a.values[sort], b.values[sort]];
      if (x === null || y === null) return (x === null) - (y === null);
      return (down ? -order(x, y) : order(x, y)) || order(a.values[0], b.values[0]);
    });
    show();
  };
  const keep = () => {
    const found = new URLSearchParams([...new FormData(form)].filter(([name, value]) => value && name !== "sort"));
    if (sort || down) { found.set("sort", keys[sort]); if (down) found.set("order", "down"); }
    try { history.replaceState(null, "", (String(found) ? "?" + found : location.pathname) + location.hash); } catch { /* a page that was opened as a file may not */ }
    for (const link of others) link.search = String(found);
  };
  const others = document.querySelectorAll("footer a[hreflang]");
  const chooser = form.elements.namedItem("sort");
  const sortBy = (place, largestFirst) => { sort = place; down = largestFirst; limit = STEP; chooser.value = place; mark(); arrange(); keep(); };
  const largest = (place) => place > 0 && heads[place].classList.contains("n");
  const mark = () => heads.forEach((head, place) => (place === sort ? head.setAttribute("aria-sort", down ? "descending" : "ascending") : head.removeAttribute("aria-sort")));
  const goTo = () => {
    let id = location.hash.slice(1); try { id = decodeURIComponent(id); } catch { return; }
    if (!rows.some((one) => one.id === id)) return;
    if (!fitting.some((one) => one.id === id)) { form.reset(); arrange(); }
    const place = fitting.findIndex((one) => one.id === id);
    if (place >= limit) { limit = place + STEP; show(); }
    const row = document.getElementById(id); row.scrollIntoView({ block: "center" });
    // A row that was made after the page was opened is no target until it is gone to again.
    if (!row.matches(":target")) location.replace("#" + encodeURIComponent(id));
  };
  heads.forEach((head, place) => {
    if (keys[place] === "evidence") return;
    const button = make("button", head.textContent); button.type = "button"; head.replaceChildren(button);
    button.addEventListener("click", () => sortBy(place, sort === place ? !down : largest(place)));
    chooser.add(new Option(label[place], place));
  });
  const given = new URLSearchParams(location.search);
  for (const [name, value] of given) { const field = form.elements.namedItem(name); if (field && field !== chooser) { if (field.type === "checkbox") field.checked = true; else field.value = value; } }
  const wanted = given.get("sort") ?? "", asked = [wanted, "b:" + wanted, wanted.toLowerCase()].map(at).find((place) => place >= 0);
  if (asked !== undefined) { sort = asked; down = given.get("order") === "down"; }
  chooser.value = sort; chooser.addEventListener("change", () => sortBy(Number(chooser.value), largest(Number(chooser.value))));
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => { limit = STEP; arrange(); keep(); });
  form.addEventListener("reset", () => setTimeout(() => { limit = STEP; arrange(); keep(); }));
  more.addEventListener("click", () => { limit += STEP; show(); });
  addEventListener("hashchange", goTo);
  for (const link of others) link.search = location.search;
  mark(); arrange(); goTo();
})();
