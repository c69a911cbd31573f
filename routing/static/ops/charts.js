/* The charts: the last 15 minutes from the instance's memory, one point every five seconds. */

import uPlot from "./vendor/uplot-1.6.32.esm.js";

const KEPT = 180;
const WINDOW_S = 15 * 60;
const SHORTEST_S = 2 * 60;

/* Each line is its name and how it reads a sample; a pool's charts read the pool's own trail. */
const CHARTS = {
  throughput: [["accepted", (s) => s.accepted_per_s], ["finished", (s) => s.finished_per_s]],
  waiting: [["running", (s) => s.running], ["waiting", (s) => s.queued]],
  nodes: [["ready nodes", (s) => s.ready], ["nodes", (s) => s.nodes], ["sessions", (s) => s.sessions]],
  leader: [["epoch", (s) => s.epoch || null]],
  failures: [["tried again", (s) => s.retried_per_s]],
  latency: [["p50", (s) => s.p50_ms], ["p99", (s) => s.p99_ms]],
  members: [["members", (s) => s.pool?.members]],
  "pool-queue": [["waiting", (s) => s.pool?.queued]],
};

const figures = [...document.querySelectorAll("[data-chart]")];
const pool = document.querySelector("[data-pool]")?.dataset.pool;
const drawn = new Map();
let samples = [];

export function onHistory(frame) {
  const trail = frame.pools?.[pool];
  const came = frame.samples.map((sample, place) => {
    // A pool younger than the cluster's history has a shorter trail: both end now.
    const at = trail ? place - (frame.samples.length - trail.members.length) : -1;
    return at >= 0 ? { ...sample, pool: { members: trail.members[at], queued: trail.queued[at] } } : sample;
  });
  samples = (frame.whole ? came : [...samples, ...came]).slice(-KEPT);
  draw();
}

function draw() {
  if (!samples.length) return;
  for (const figure of figures) {
    const lines = CHARTS[figure.dataset.chart];
    const columns = lines.map(([, read]) => samples.map((sample) => read(sample) ?? null));
    const rows = [samples.map((sample) => sample.at_ms / 1000), ...columns];
    showLegend(figure, lines, columns);
    const chart = drawn.get(figure);
    if (chart) chart.setData(rows);
    else drawn.set(figure, newChart(figure, lines, rows));
  }
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function newChart(figure, lines, rows) {
  const box = figure.querySelector(".chart-box");
  box.replaceChildren();
  const quiet = { stroke: () => colour("--quiet"), grid: { stroke: () => colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const options = {
    width: box.clientWidth,
    height: box.clientHeight,
    legend: { show: false },
    cursor: { points: { size: 6 }, drag: { x: false, y: false } },
    scales: {
      x: { range: shown },
      y: { range: (_, low, high) => range(figure.dataset.chart, low, high) },
    },
    series: [{}, ...lines.map((_, place) => ({
      stroke: () => colour(`--line-${place + 1}`),
      width: 1.75,
      points: { show: rows[0].length < 2 },
      paths: figure.dataset.chart === "leader" ? uPlot.paths.stepped({ align: 1 }) : undefined,
    }))],
    axes: [
      { ...quiet, size: 22, space: 70, grid: { show: false }, values: (chart, ticks) => ticks.map((at) => clock(at, chart.scales.x.max - chart.scales.x.min)) },
      { ...quiet, size: 38, space: 30, values: (_, ticks) => ticks.map(short) },
    ],
  };
  const chart = new uPlot(options, rows, box);
  new ResizeObserver(() => chart.setSize({ width: box.clientWidth, height: box.clientHeight })).observe(box);
  return chart;
}

/* All that there is: a young instance's history fills its chart too. */
function shown() {
  const now = samples.at(-1).at_ms / 1000;
  const age = now - samples[0].at_ms / 1000;
  return [now - Math.min(Math.max(age, SHORTEST_S), WINDOW_S), now];
}

/* From zero, so that a small change does not look like a large one; an epoch has no zero. */
function range(key, low, high) {
  if (low === null || high === null) return [0, 1];
  if (key === "leader") return [Math.max(low - 1, 0), high + 1];
  return [0, Math.max(high * 1.15, 1)];
}

function clock(seconds, shownFor) {
  return new Date(seconds * 1000).toISOString().slice(11, shownFor < 300 ? 19 : 16);
}

function short(value) {
  return Number.isInteger(value) ? value.toLocaleString("en") : value.toFixed(1);
}

function showLegend(figure, lines, columns) {
  const legend = figure.querySelector(".legend");
  const items = lines.map(([name], place) => {
    const last = columns[place].at(-1);
    return [`line-${place + 1}`, `${name} ${last === null ? "–" : short(last)}`];
  });
  if (legend.children.length !== items.length) {
    legend.replaceChildren(...items.map(([style]) => {
      const item = document.createElement("span");
      const mark = document.createElement("i");
      mark.className = style;
      item.append(mark, "");
      return item;
    }));
  }
  items.forEach(([, text], place) => {
    const item = legend.children[place];
    if (item.textContent !== text) item.lastChild.nodeValue = text;
  });
  figure.querySelector(".chart-box").setAttribute("role", "img");
  figure.querySelector(".chart-box").setAttribute("aria-label", `${figure.querySelector("b").textContent}: ${items.map(([, text]) => text).join(", ")}`);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const chart of drawn.values()) chart.redraw();
});
