"use strict";
// Search in the tree of categories: shows each node whose name, scope note or label holds all words, and the way to it.
for (const form of document.querySelectorAll("form.tree-search")) {
  const tree = document.getElementById("taxonomy-tree");
  const field = form.querySelector("input");
  const output = form.querySelector("output");
  const folded = (element) => element.textContent.toLowerCase();
  const nodes = [...tree.querySelectorAll("details")].map((details) => ({
    details,
    item: details.parentElement,
    text: `${folded(details.querySelector("summary").firstChild)} ${folded(details.querySelector(":scope > p"))}`,
    labels: [...details.querySelectorAll(":scope > .labels > li")].map((item) => ({ item, text: folded(item) })),
  }));

  const search = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = (text) => words.every((word) => text.includes(word));
    let categories = 0;
    let labels = 0;
    for (const node of nodes) {
      node.item.hidden = words.length > 0;
      node.details.open = false;
    }
    for (const node of nodes) {
      const named = found(node.text);
      let below = 0;
      for (const label of node.labels) {
        label.item.hidden = words.length > 0 && !named && !found(label.text);
        below += found(label.text);
      }
      categories += named;
      labels += below;
      if (!words.length || !(named || below)) continue;
      node.details.open = below > 0;
      node.item.hidden = false;
      for (let above = node.item.parentElement.closest("details"); above; above = above.parentElement.closest("details")) {
        above.open = true;
        above.parentElement.hidden = false;
      }
    }
    output.value = words.length ? `found: ${categories} in categories, ${labels} in labels` : "";
  };

  form.hidden = false;
  field.addEventListener("input", search);
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const button of form.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      for (const node of nodes) node.details.open = button.dataset.open === "all";
    });
  }
}
