/* Keeps the live page fresh: fetches the texts, puts them in their places, says when it cannot.
   The page is complete without it; see registry/admin_live.py for the shape of the state. */

const REFRESH_MS = 2000;
const ANSWER_WITHIN_MS = 5000;

const page = document.getElementById("live");
const status = document.getElementById("live-status");
const time = document.getElementById("live-time");
let hasState = time.textContent !== "none yet";

/* Only a change is written: the status line is read aloud, and a selection should survive. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function showStatus(text, kind) {
  setText(status, text);
  status.className = `live-status ${kind}`;
}

function showCell(span, cell) {
  setText(span, cell.text);
  span.className = cell.badge ? `badge ${cell.badge}` : "";
}

function showCard(card) {
  const spans = page.querySelectorAll(`[data-card="${card.key}"] dd > span`);
  card.cells.forEach((cell, position) => showCell(spans[position], cell));
}

function newRow(cells) {
  const row = document.createElement("tr");
  cells.forEach((cell, position) => {
    const box = document.createElement(position === 0 ? "th" : "td");
    if (position === 0) {
      box.scope = "row";
    } else {
      box.className = cell.style;
      box.dataset.label = cell.label;
    }
    box.append(document.createElement("span"));
    row.append(box);
  });
  return row;
}

function showTable(table) {
  const body = page.querySelector(`[data-table="${table.key}"] tbody`);
  while (body.rows.length > table.rows.length) body.deleteRow(-1);
  table.rows.forEach((cells, position) => {
    const row = body.rows[position] ?? body.appendChild(newRow(cells));
    cells.forEach((cell, column) => showCell(row.cells[column].firstElementChild, cell));
  });
  page.querySelector(`[data-empty="${table.key}"]`).hidden = table.rows.length > 0;
}

async function fetchState() {
  const answer = await fetch(page.dataset.stateUrl, {
    headers: { Accept: "application/json" },
    redirect: "manual",
    signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
  });
  if (answer.type === "opaqueredirect") {
    throw new Error("You are logged out: reload this page to log in.");
  }
  if (!answer.ok) throw new Error(`The instance answered with status ${answer.status}.`);
  const state = await answer.json();
  if (state.message) throw new Error(state.message);
  return state;
}

function explain(error) {
  /* The browser's own errors (no connection, timeout) are worded by the browser: not shown. */
  return error.constructor === Error ? error.message : "The instance does not answer.";
}

async function refresh() {
  try {
    const state = await fetchState();
    state.cards.forEach(showCard);
    state.tables.forEach(showTable);
    setText(time, `${new Date().toISOString().slice(11, 19)} UTC`);
    hasState = true;
    showStatus("Live: refreshed every 2 seconds.", "good");
  } catch (error) {
    const shown = hasState ? ` Shown is the state of ${time.textContent}.` : "";
    showStatus(`${explain(error)}${shown} Retrying.`, "bad");
  }
}

async function keepFresh() {
  if (!document.hidden) await refresh();
  setTimeout(keepFresh, REFRESH_MS);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});
keepFresh();
