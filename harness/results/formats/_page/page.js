// Sorting, searching, filtering and opening rows of a leaderboard. The table and the plots are there without it.
// Everything that comes from results is set as text; nothing here parses HTML.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("evidence").textContent);
  const table = document.getElementById("board");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const headings = Array.from(table.tHead.rows[0].cells);
  const form = document.getElementById("choose");
  const count = document.getElementById("count");
  const more = document.getElementById("more");
  const limit = rows.filter((row) => !row.hidden).length;
  const SVG = "http://www.w3.org/2000/svg";
  const opened = new Map(); // number of a row -> its evidence

  const text = (parts) => parts.map((part) => (typeof part === "number" ? data.texts[part] : part)).join("");
  const number = (value) => value.toLocaleString("en-US");
  const place = (row) => Number(row.dataset.row);
  const opener = (row) => row.querySelector("th button");

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  const inOrder = Array.from(rows); // by the number of the row
  inOrder.forEach((row, at) => {
    row.dataset.row = at;
  });

  // Sorting: numbers by size, texts in the order of people; what is missing comes last in both directions.

  const collator = new Intl.Collator("en", { numeric: true });

  function sort(column, descending) {
    const isText = data.columns[column] === "text";
    const values = data.rows.map((row) => (isText && row.sort[column] !== null ? data.texts[row.sort[column]] : row.sort[column]));
    rows.sort((a, b) => {
      const [first, second] = [values[place(a)], values[place(b)]];
      if (first === null || second === null) return (first === null) - (second === null) || place(a) - place(b);
      const difference = isText ? collator.compare(first, second) : first - second;
      return (descending ? -difference : difference) || place(a) - place(b);
    });
    headings.forEach((heading, at) => {
      if (at === column) heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
    });
    table.classList.toggle("by-rank", column === 0 && !descending);
    show();
  }

  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const sorted = heading.getAttribute("aria-sort");
      // accuracies and sizes are looked at from the largest down
      const largest = column > 0 && data.columns[column] !== "text";
      sort(column, sorted ? sorted === "ascending" : largest);
    });
  });

  // Searching and filtering, and showing only so many rows at once, because a browser takes long to lay out thousands.

  const hay = [];
  function searched(at, row) {
    if (hay[at] === undefined) {
      const { flags, facts, results } = data.rows[at];
      const said = [...facts, ...results.flatMap((result) => result.facts)].map(([, ...value]) => text(value));
      hay[at] = [row.textContent, ...flags.map(([, , words]) => data.texts[words]), ...said].join("\n").toLowerCase();
    }
    return hay[at];
  }

  let listed = new Set(rows.map(place));
  let most = limit;

  function filter() {
    const words = form.elements.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = Array.from(form.querySelectorAll("select")).filter((select) => select.value !== "");
    listed = new Set(rows.map(place));
    for (const select of chosen) {
      const fitting = new Set(data.filters[select.name][Number(select.value)]);
      listed = new Set([...listed].filter((at) => fitting.has(at)));
    }
    if (words.length) {
      const found = rows.filter((row) => words.every((word) => searched(place(row), row).includes(word)));
      const fitting = new Set(found.map(place));
      listed = new Set([...listed].filter((at) => fitting.has(at)));
    }
    for (const [at, own] of marks) for (const mark of own) mark.classList.toggle("unlisted", !listed.has(at));
    show();
  }

  function show() {
    const shown = rows.filter((row) => listed.has(place(row))).slice(0, most);
    for (const row of shown) dress(row);
    body.replaceChildren(...shown.flatMap((row) => [row, opened.get(place(row))].filter(Boolean)));
    const all = listed.size === rows.length ? number(rows.length) : `${number(listed.size)} of ${number(rows.length)}`;
    count.textContent = `${all} ${rows.length === 1 ? "model" : "models"}${shown.length < listed.size ? `, ${number(shown.length)} shown` : ""}`;
    more.hidden = shown.length === listed.size;
  }

  const [some, every] = more.querySelectorAll("button");
  some.addEventListener("click", () => {
    most += limit;
    show();
  });
  every.addEventListener("click", () => {
    most = rows.length;
    show();
  });

  let waiting = 0;
  function filterSoon() {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(filter);
  }
  form.addEventListener("input", filterSoon);
  form.addEventListener("reset", filterSoon);
  form.addEventListener("submit", (event) => event.preventDefault());

  // What a row gets when it is first shown: bars with intervals, and the number of its flags for narrow screens.

  function dress(row) {
    if (opener(row).hasAttribute("aria-expanded")) return;
    row.hidden = false;
    Array.from(row.cells).forEach((cell, column) => {
      cell.classList.add(data.columns[column], ...headings[column].classList);
      if (data.columns[column] === "accuracy" && cell.firstChild) cell.append(bar(...cell.textContent.match(/[\d.]+/g)));
    });
    const flags = data.rows[place(row)].flags.length;
    if (flags) opener(row).parentNode.append(element("small", { class: "chip" }, flags === 1 ? "1 flag" : `${flags} flags`));
    opener(row).setAttribute("aria-expanded", "false");
  }

  function bar(value, low, high) {
    const across = (percent) => (percent * 80) / 100;
    const drawn = document.createElementNS(SVG, "svg");
    drawn.setAttribute("aria-hidden", "true");
    for (const [name, course] of [
      ["value", `M0 4h${across(value)}`],
      ["interval", `M${across(low)} 1v6m0-3h${across(high - low)}m0-3v6`],
    ]) {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", name);
      path.setAttribute("d", course);
      drawn.append(path);
    }
    return drawn;
  }

  // Opening a row to its evidence.

  function toggle(row, open) {
    const at = place(row);
    if (open === opened.has(at)) return;
    if (open) {
      const shown = evidence(at, row.id);
      opened.set(at, shown);
      row.after(shown);
      opener(row).setAttribute("aria-controls", shown.id);
    } else {
      opened.get(at).remove();
      opened.delete(at);
      opener(row).removeAttribute("aria-controls");
    }
    opener(row).setAttribute("aria-expanded", String(open));
  }

  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-row]");
    if (row && !String(getSelection())) toggle(row, !opened.has(place(row)));
  });

  function facts(list) {
    const pairs = list.flatMap(([name, ...value]) => [element("dt", {}, data.texts[name]), element("dd", {}, text(value))]);
    return element("dl", {}, ...pairs);
  }

  function steps(list) {
    const titles = ["Step", "before", "after", "forward", "backward", "judged", "rejected", "seconds"];
    const head = element("tr", {}, ...titles.map((title) => element("th", { scope: "col" }, title)));
    const lines = list.map(([name, attack, ...figures]) =>
      element(
        "tr",
        {},
        element("th", { scope: "row" }, data.texts[name], element("small", {}, data.texts[attack])),
        ...figures.map((figure) => element("td", {}, number(figure))),
      ),
    );
    const content = element("table", {}, element("thead", {}, head), element("tbody", {}, ...lines));
    return element("div", { class: "steps", tabindex: "0", role: "group", "aria-label": "Steps of the attack" }, content);
  }

  function copied(label, words) {
    const button = element("button", { type: "button", class: "copy" }, `Copy ${label}`);
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(words);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(button.previousElementSibling);
        button.textContent = "Selected: copy with the keyboard";
      }
    });
    return [element("pre", {}, words), button];
  }

  function evidence(at, id) {
    const { flags, facts: model, results, cite } = data.rows[at];
    const doubts = flags.map(([severity, code, words]) =>
      element("li", {}, element("span", { class: `chip ${data.texts[severity]}` }, data.texts[code]), " ", data.texts[words]),
    );
    const parts = results.map((result) =>
      element(
        "section",
        {},
        element("h3", {}, text(result.title)),
        result.steps.length ? steps(result.steps) : "",
        facts(result.facts),
        ...copied("command", text(result.command)),
      ),
    );
    const about = element(
      "div",
      {},
      element("section", {}, element("h3", {}, "Model"), facts(model)),
      element("section", {}, element("h3", {}, "Reasons to doubt"), doubts.length ? element("ul", {}, ...doubts) : "None found."),
      element("section", {}, element("h3", {}, "Cite"), ...copied("BibTeX", text(cite))),
      element("p", {}, element("a", { href: `#${id}` }, "Link to this row")),
    );
    const cell = element("td", { colspan: headings.length }, element("div", { class: "columns" }, about, element("div", {}, ...parts)));
    return element("tr", { class: "evidence", id: `${id}-evidence` }, cell);
  }

  function follow() {
    const row = rows.find((one) => one.id === location.hash.slice(1));
    if (!row) return;
    if (!row.isConnected) {
      form.reset();
      cancelAnimationFrame(waiting);
      most = rows.length;
      filter();
    }
    toggle(row, true);
    row.scrollIntoView({ block: "center" });
    opener(row).focus({ preventScroll: true });
  }
  addEventListener("hashchange", follow);

  // Plots: a mark and its row are lit together, and a mark opens its row.

  const marks = new Map();
  for (const mark of document.querySelectorAll("svg.plot [data-row]")) {
    if (!marks.has(place(mark))) marks.set(place(mark), []);
    marks.get(place(mark)).push(mark);
    mark.addEventListener("click", () => {
      const row = inOrder[place(mark)];
      if (location.hash === `#${row.id}`) follow();
      else location.hash = row.id;
    });
  }
  const readouts = Array.from(document.querySelectorAll(".readout"));
  let lit = [];
  function light(at) {
    for (const one of lit) one.classList.remove("lit");
    lit = at === null ? [] : [...(marks.get(at) ?? []), inOrder[at]];
    for (const one of lit) one.classList.add("lit");
    for (const readout of readouts) readout.textContent = at === null ? "\u00a0" : summary(at);
  }
  function summary(at) {
    const figures = data.columns.flatMap((kind, column) => {
      const value = data.rows[at].sort[column];
      return kind === "accuracy" && value !== null ? [`${headings[column].textContent} ${(100 * value).toFixed(1)} %`] : [];
    });
    return `${data.texts[data.rows[at].sort[1]]}: ${figures.join(", ")}`;
  }
  for (const kind of ["pointerover", "focusin"]) {
    document.addEventListener(kind, (event) => {
      const near = event.target.closest("[data-row]");
      light(near ? place(near) : null);
    });
  }

  form.hidden = false;
  filter();
  // the browser itself goes to the fragment when the page is loaded, and would take the focus away again
  addEventListener("load", () => requestAnimationFrame(follow));
})();
