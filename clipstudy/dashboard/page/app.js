"use strict";
// What runs in the dashboard's pages besides Dash itself.
window.dash_clientside = window.dash_clientside || {};
window.dash_clientside.clipstudy = {
  // The window is called after what it shows, so that tabs and the history can be told apart.
  title(said, path) {
    document.title = `${said.length > 60 ? `${said.slice(0, 59)}…` : said} · clipstudy`;
    document.body.dataset.shown = path;
    return window.dash_clientside.no_update;
  },
};
// A run's number as a link into MLflow. Made as an element: nothing in a row is read as HTML.
const components = (window.dashAgGridComponentFunctions = window.dashAgGridComponentFunctions || {});
components.RunLink = (props) =>
  window.React.createElement("a", { href: props.data.at, target: "_blank", rel: "noreferrer" }, props.value);

// A choice may change what the others offer; they are drawn anew, and the one that had the focus gets it back.
const focusable = (set) => [...set.querySelectorAll("input, button")];
let held = null;
document.addEventListener("focusin", (event) => {
  const set = event.target.closest("#controls fieldset");
  held = set && { legend: set.firstChild.textContent, at: focusable(set).indexOf(event.target) };
});
// A grid whose columns go on to the right says so by a shadow there (page/app.css).
const edges = () => document.querySelectorAll(".grid").forEach((grid) => {
  const seen = grid.querySelector(".ag-center-cols-viewport");
  const all = seen?.querySelector(".ag-center-cols-container");
  grid.classList.toggle("more", Boolean(all) && seen.scrollLeft + seen.clientWidth < all.offsetWidth - 1);
});
const sizes = new ResizeObserver(edges);
addEventListener("scroll", edges, true);
// On a narrow screen the choices stand above the results: folded at first.
const narrow = matchMedia("(max-width: 900px)");
let folded = null;
const fold = () => {
  const choices = document.querySelector("#choices");
  if (choices === null || folded === narrow.matches) return;
  folded = narrow.matches;
  choices.open = !folded;
};
narrow.addEventListener("change", fold);
new MutationObserver(() => {
  document.querySelectorAll(".grid :is(.ag-center-cols-viewport, .ag-center-cols-container)").forEach((part) => sizes.observe(part));
  fold();
  if (held === null || document.activeElement !== document.body) return;
  const sets = document.querySelectorAll("#controls fieldset");
  const again = [...sets].find((set) => set.firstChild.textContent === held.legend);
  if (again) focusable(again)[held.at]?.focus();
}).observe(document.documentElement, { childList: true, subtree: true });

// A page that looks again is drawn anew: what was unfolded stays so. A toggle is told later than its click, and never
// where the page was drawn in between; what the browser unfolds to find a word is told by the toggle alone.
const unfolded = new Set();
const keep = (part, open) => {
  if (part?.id.startsWith("fold-")) unfolded[open ? "add" : "delete"](part.id);
};
document.addEventListener("click", ({ target }) => {
  const part = target.closest("summary")?.parentElement;
  keep(part, !part?.open);
}, true);
document.addEventListener("toggle", ({ target }) => keep(target, target.open), true);
new MutationObserver(() => {
  for (const id of unfolded) document.getElementById(id)?.setAttribute("open", "");
}).observe(document.documentElement, { childList: true, subtree: true });
