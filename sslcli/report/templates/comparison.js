"use strict";
// Sort a table by a column: numbers with the largest first, texts alphabetically, empty cells last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.querySelectorAll("th")];
  heads.forEach((head, column) => {
    head.querySelector("button")?.addEventListener("click", () => {
      const rows = [...body.rows];
      const keys = new Map(rows.map((row) => [row, row.cells[column].dataset.sort]));
      const given = rows.filter((row) => keys.get(row) !== "");
      const numeric = given.every((row) => Number.isFinite(Number(keys.get(row))));
      const before = head.getAttribute("aria-sort");
      const first = numeric && column > 0 ? "descending" : "ascending";
      const other = first === "descending" ? "ascending" : "descending";
      const order = before === first ? other : first;
      const sign = order === "ascending" ? 1 : -1;
      given.sort((a, b) => {
        const [x, y] = [keys.get(a), keys.get(b)];
        return sign * (numeric ? Number(x) - Number(y) : x.localeCompare(y));
      });
      heads.forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      body.append(...given, ...rows.filter((row) => keys.get(row) === ""));
    });
  });
}
// Fade the curves of the other runs while the pointer or the keyboard focus is on a run.
const curves = [...document.querySelectorAll('svg g[id*="-run"]')];
for (const row of document.querySelectorAll("table.sortable tbody tr")) {
  const only = (name) => curves.forEach((c) => c.classList.toggle("faded", name !== "" && !c.id.endsWith("-" + name)));
  row.addEventListener("pointerenter", () => only(row.dataset.run));
  row.addEventListener("focus", () => only(row.dataset.run));
  row.addEventListener("pointerleave", () => only(""));
  row.addEventListener("blur", () => only(""));
}
