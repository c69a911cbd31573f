/* What every operator page does: watch its topics and put what comes into its place. */

import { connect } from "./feed.js";
import { morph } from "./morph.js";

const WORDS = { live: "Live", lost: "Reconnecting" };

const topics = document.body.dataset.topics.split(" ").filter(Boolean);
const live = document.getElementById("live");
const liveText = document.getElementById("live-text");
const listeners = new Map();

function showState(state) {
  if (live.dataset.state === state) return;
  live.dataset.state = state;
  liveText.textContent = WORDS[state];
}

function showParts(parts, whole) {
  for (const [name, html] of Object.entries(parts)) {
    const place = document.querySelector(`[data-part="${name}"]`);
    if (place) morph(place, html);
  }
  if (!("away" in parts) && (whole || Object.keys(parts).length)) {
    document.querySelector('main [data-part="away"]')?.replaceChildren();
  }
  showActions();
}

/* Buttons are drawn for the viewer, not for all: which of them fit follows the state beside them. */
function showActions() {
  const status = document.querySelector("[data-status]")?.dataset.status;
  if (status === undefined) return;
  for (const button of document.querySelectorAll("[data-when], [data-unless]")) {
    const { when, unless } = button.dataset;
    button.hidden = when ? !when.split(" ").includes(status) : unless.split(" ").includes(status);
  }
}

function onFrame(frame) {
  if (frame.parts && frame.topic === "bar") morph(document.querySelector('[data-part="bar"]'), frame.parts.bar);
  else if (frame.parts) showParts(frame.parts, frame.whole);
  listeners.get(frame.topic)?.(frame);
}

/* One box that picks all of its table: a form's own boxes carry what is meant. */
document.addEventListener("change", ({ target }) => {
  if (!target.matches?.("[data-pick-all]")) return;
  for (const box of target.closest("table").querySelectorAll("tbody .pick input")) box.checked = target.checked;
});

async function start() {
  showActions();
  if (document.querySelector("[data-chart]")) {
    listeners.set("history", (await import("./charts.js")).onHistory);
  }
  if (document.getElementById("nodes")) {
    listeners.set("nodes", (await import("./nodes.js")).onNodes);
  }
  // A page without topics of its own changes by nobody's doing, but its header does.
  connect({ topics: topics.length ? topics : ["bar"], onFrame, onState: showState });
}

start();
