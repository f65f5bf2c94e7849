"use strict";
// A form with data-controls="ID" filters what lies in the element #ID: a choice named "metric" hides every
// [data-metric] of another value, "all" hides none; a field named "search" hides every [data-item] without its words.
// Without this script the forms stay hidden and everything is shown.
for (const form of document.querySelectorAll("form[data-controls]")) {
  const target = document.getElementById(form.dataset.controls);
  const output = form.querySelector("output");

  const update = () => {
    const choices = [...new FormData(form)].filter(([name, value]) => name !== "search" && value !== "all");
    const words = (form.elements.search?.value ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    const names = [...new FormData(form).keys()].filter((name) => name !== "search");
    for (const element of target.querySelectorAll(["[data-item]", ...names.map((name) => `[data-${name}]`)].join())) {
      const other = choices.some(([name, value]) => name in element.dataset && element.dataset[name] !== value);
      const text = "item" in element.dataset && words.length ? element.textContent.toLowerCase() : "";
      element.hidden = other || ("item" in element.dataset && !words.every((word) => text.includes(word)));
    }
    for (const [name, value] of new FormData(form)) target.dataset[`shown${name}`] = value;
    if (output) {
      const items = [...target.querySelectorAll("[data-item]")];
      output.value = `${items.filter((item) => !item.hidden).length} of ${items.length} shown`;
    }
  };

  form.hidden = false;
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  update();
}
