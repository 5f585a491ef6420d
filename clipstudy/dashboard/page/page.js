"use strict";
// Charts take text and grid colours from the page, so that one figure serves light, dark and paper.
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const theme = () => ({
  "font.color": ink("--text"), "xaxis.linecolor": ink("--line"), "yaxis.gridcolor": ink("--line"),
  "yaxis.zerolinecolor": ink("--soft"), "hoverlabel.bgcolor": ink("--raised"), "hoverlabel.font.color": ink("--text"),
});
const charts = () => document.querySelectorAll(".chart.js-plotly-plot");
const repaint = () => charts().forEach((chart) => Plotly.relayout(chart, theme()));

async function draw() {
  for (const source of document.querySelectorAll("script.figure")) {
    const chart = source.parentElement.querySelector(".chart");
    const figure = JSON.parse(source.textContent);
    await Plotly.newPlot(chart, figure.data, figure.layout, { responsive: true, displaylogo: false,
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] });
    await Plotly.relayout(chart, theme());
  }
  document.body.dataset.drawn = "yes";
}
draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((table) => { table.open = true; });
  charts().forEach((chart) => Plotly.Plots.resize(chart));
});
matchMedia("print").addEventListener("change", repaint);
