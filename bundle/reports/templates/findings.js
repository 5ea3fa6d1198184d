// SPDX-License-Identifier: Apache-2.0
"use strict";
(function () {
  const rows = [...document.querySelectorAll("#findings tbody tr")];
  const cards = rows.map((row) => document.getElementById(row.dataset.card));
  const body = document.querySelector("#findings tbody");
  const list = document.getElementById("cards");
  const [text, decision, warned, shown] = ["text", "decision", "warned", "shown"].map((id) => document.getElementById(id));

  function filter() {
    const wanted = text.value.toLowerCase();
    let count = 0;
    rows.forEach((row, index) => {
      const hit =
        row.dataset.name.toLowerCase().includes(wanted) &&
        (!decision.value || row.dataset.decisions.split("|").includes(decision.value)) &&
        (!warned.checked || row.dataset.warnings !== "0");
      row.hidden = cards[index].hidden = !hit;
      count += hit;
    });
    shown.textContent = `${count} of ${rows.length} shown`;
  }

  function sort(head, column) {
    const falling = head.getAttribute("aria-sort") === "descending";
    document.querySelectorAll("#findings th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falling ? "ascending" : "descending");
    const key = (row) => {
      const value = row.cells[column].dataset.value;
      return value === undefined ? row.cells[column].textContent : Number(value);
    };
    const order = rows.map((row, index) => [key(row), index]);
    order.sort(([a, i], [b, j]) => (a < b ? -1 : a > b ? 1 : i - j) * (falling ? 1 : -1));
    body.append(...order.map(([, index]) => rows[index]));
    list.append(...order.map(([, index]) => cards[index]));
  }

  document.querySelectorAll("#findings th button").forEach((button) => {
    const head = button.closest("th");
    button.addEventListener("click", () => sort(head, head.cellIndex));
  });
  [text, decision, warned].forEach((control) => control.addEventListener("input", filter));
  document.getElementById("filter").hidden = false;
  filter();
})();
