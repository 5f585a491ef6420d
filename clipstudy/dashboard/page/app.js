"use strict";
// What runs in the dashboard's pages besides Dash itself.
window.dash_clientside = window.dash_clientside || {};
window.dash_clientside.clipstudy = {
  // The window is called after what it shows, so that tabs and the history can be told apart.
  title(said, path) {
    document.title = `${said} · clipstudy`;
    document.body.dataset.shown = path;
    return window.dash_clientside.no_update;
  },
};
// A run's number as a link into MLflow. Made as an element: nothing in a row is read as HTML.
const components = (window.dashAgGridComponentFunctions = window.dashAgGridComponentFunctions || {});
components.RunLink = (props) =>
  window.React.createElement("a", { href: props.value, target: "_blank", rel: "noreferrer" }, "open");

// A choice may change what the others offer; they are drawn anew, and the one that had the focus gets it back.
const focusable = (set) => [...set.querySelectorAll("input, button")];
let held = null;
document.addEventListener("focusin", (event) => {
  const set = event.target.closest("#controls fieldset");
  held = set && { legend: set.firstChild.textContent, at: focusable(set).indexOf(event.target) };
});
new MutationObserver(() => {
  if (held === null || document.activeElement !== document.body) return;
  const sets = document.querySelectorAll("#controls fieldset");
  const again = [...sets].find((set) => set.firstChild.textContent === held.legend);
  if (again) focusable(again)[held.at]?.focus();
}).observe(document.documentElement, { childList: true, subtree: true });
