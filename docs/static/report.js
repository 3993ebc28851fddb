// The report's own scripts: the filter of the claims, the words of the glossary, the excerpts of the search.

function filterClaims() {
  const form = document.querySelector("form.filter");
  if (!form) return;
  const rows = [...document.querySelectorAll("table.claims tbody tr")];
  const filter = () => {
    const text = form.text.value.trim().toLowerCase();
    const fits = (row) =>
      row.textContent.toLowerCase().includes(text) &&
      (!form.kind.value || row.dataset.kind.split(" ").includes(form.kind.value)) &&
      (!form.source.value || row.dataset.source === form.source.value);
    rows.forEach((row) => (row.hidden = !fits(row)));
    form.querySelector("output").value = `${rows.filter((row) => !row.hidden).length} of ${rows.length} claims`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();
}

function showDefinitions() {
  const box = Object.assign(document.createElement("div"), { id: "definition", role: "tooltip", hidden: true });
  document.body.append(box);
  for (const link of document.querySelectorAll("a.term[title]")) {
    const definition = link.title;
    link.removeAttribute("title");
    link.setAttribute("aria-description", definition);
    const show = () => {
      box.textContent = definition;
      box.hidden = false;
      const place = link.getBoundingClientRect();
      const below = place.bottom + box.offsetHeight + 8 < innerHeight;
      box.style.left = `${Math.max(8, Math.min(place.left, innerWidth - box.offsetWidth - 8))}px`;
      box.style.top = `${below ? place.bottom + 4 : place.top - box.offsetHeight - 4}px`;
    };
    for (const event of ["mouseenter", "focus"]) link.addEventListener(event, show);
    for (const event of ["mouseleave", "blur"]) link.addEventListener(event, () => (box.hidden = true));
  }
}

// Sphinx fetches a page to cut an excerpt from it, which a browser forbids to pages opened as files.
if (typeof TEXTS !== "undefined") {
  const root = new URL(document.documentElement.dataset.content_root || "./", location).pathname;
  const page = (address) => new URL(address, location).pathname.slice(root.length).replace(/\.html$/, "");
  const phrase = new URLSearchParams(location.search).get("q")?.toLowerCase();
  window.fetch = async (address) => ({ text: async () => TEXTS[page(address)] || "" });
  document.addEventListener("DOMContentLoaded", () => {
    Search.htmlToText = (text) => text.slice(Math.max(0, text.toLowerCase().indexOf(phrase) - 120));
  });
}

document.addEventListener("DOMContentLoaded", filterClaims);
document.addEventListener("DOMContentLoaded", showDefinitions);
