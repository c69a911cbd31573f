/* The table of all nodes: thousands of rows in memory, one page of them in the document. The
   instance sends all once and then what changed; searching and sorting are done here. */

const ROWS_OF_A_PAGE = 50;
const ID = 0, STATUS = 1, OWNER = 2, RESERVED = 3, SLOTS = 4, CPU = 5, GPU = 6, MEM = 7, LABELS = 8, VERSION = 9, POOLS = 11, NEWS = 12;
const SORTS = { id: ID, status: STATUS, owner: OWNER, reserved: RESERVED, cpu: CPU, gpu: GPU, mem: MEM };
const TONES = { ready: "good", degraded: "warn", draining: "warn", registering: "info", offline: "bad" };

const table = document.getElementById("nodes");
const body = table.tBodies[0];
const form = document.getElementById("node-filter");
const pager = document.getElementById("node-pager");
const nodes = new Map();
const chosen = Object.fromEntries(new URLSearchParams(location.search));
let page = Number(chosen.page) || 1;
let sort = chosen.sort in SORTS ? chosen.sort : "id";
let descending = chosen.desc === "1";
let pending = false;

export function onNodes(frame) {
  if (frame.whole) {
    nodes.clear();
    if (frame.pools) showPools(frame.pools);
  }
  for (const row of frame.rows) nodes.set(row[ID], row);
  for (const id of frame.gone ?? []) nodes.delete(id);
  soon();
}

/* Once a frame of the screen, however much came. */
function soon() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => { pending = false; show(); });
}

function fitting() {
  const words = form.elements.q.value.toLowerCase().split(/\s+/).filter(Boolean);
  const status = form.elements.status.value;
  const pool = form.elements.pool.value ? Number(form.elements.pool.value) : null;
  const found = [];
  for (const row of nodes.values()) {
    if (status && row[STATUS] !== status) continue;
    if (pool !== null && !row[POOLS].includes(pool)) continue;
    if (words.length) {
      const text = [row[ID], row[OWNER], row[VERSION], ...row[LABELS]].join(" ").toLowerCase();
      if (!words.every((word) => text.includes(word))) continue;
    }
    found.push(row);
  }
  const place = SORTS[sort];
  const sign = descending ? -1 : 1;
  return found.sort((a, b) => sign * compare(a[place], b[place]) || compare(a[ID], b[ID]));
}

function compare(a, b) {
  if (a === b) return 0;
  if (a === null) return -1;
  if (b === null) return 1;
  return a < b ? -1 : 1;
}

function show() {
  const found = fitting();
  const pages = Math.max(Math.ceil(found.length / ROWS_OF_A_PAGE), 1);
  page = Math.min(Math.max(page, 1), pages);
  const rows = found.slice((page - 1) * ROWS_OF_A_PAGE, page * ROWS_OF_A_PAGE);
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((row, place) => showRow(body.rows[place] ?? newRow(), row));
  setText(document.getElementById("node-count"), count(found.length));
  setText(document.getElementById("node-page"), `Page ${page} of ${pages}`);
  document.getElementById("node-empty").hidden = rows.length > 0;
  for (const link of pager.querySelectorAll("[data-page]")) {
    const wanted = page + (link.dataset.page === "next" ? 1 : -1);
    link.href = `?${query(Math.min(Math.max(wanted, 1), pages))}`;
    link.setAttribute("aria-disabled", wanted < 1 || wanted > pages ? "true" : "false");
  }
  for (const link of table.querySelectorAll("[data-sort]")) {
    const head = link.parentElement;
    if (link.dataset.sort === sort) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

function count(found) {
  const all = `${nodes.size} node${nodes.size === 1 ? "" : "s"}`;
  return found === nodes.size ? all : `${found} of ${all}`;
}

function newRow() {
  const row = body.insertRow();
  row.innerHTML = `<th scope="row"><a></a></th><td data-label="State"><span></span></td>
    <td class="num" data-label="Slots"><span class="meter"><meter min="0" aria-label="reserved slots"></meter><span></span></span></td>
    <td class="num" data-label="CPU"></td><td class="num" data-label="GPU"></td><td class="num" data-label="Memory"></td>
    <td data-label="Owner"></td><td data-label="Labels"></td><td data-label="Last news" class="quiet"></td>`;
  return row;
}

function showRow(element, row) {
  const [name, state, slots, cpu, gpu, mem, owner, labels, news] = element.cells;
  element.dataset.id = row[ID];
  const link = name.firstElementChild;
  setText(link, row[ID]);
  link.href = `${table.dataset.url}/${encodeURIComponent(row[ID])}`;
  state.firstElementChild.className = `badge ${TONES[row[STATUS]] ?? ""}`;
  setText(state.firstElementChild, row[STATUS]);
  const meter = slots.querySelector("meter");
  meter.max = row[SLOTS];
  meter.value = row[RESERVED];
  setText(slots.querySelector("meter + span"), `${row[RESERVED]}/${row[SLOTS]}`);
  setText(cpu, percent(row[CPU]));
  setText(gpu, percent(row[GPU]));
  setText(mem, percent(row[MEM]));
  setText(owner, row[OWNER]);
  showLabels(labels, row[LABELS]);
  setText(news, row[NEWS] || "–");
}

function showLabels(cell, labels) {
  const words = labels.length ? labels : ["–"];
  if (cell.dataset.words === words.join(" ")) return;
  cell.dataset.words = words.join(" ");
  cell.replaceChildren(...words.flatMap((word) => {
    const tag = document.createElement("span");
    tag.className = labels.length ? "tag" : "quiet";
    tag.textContent = word;
    return [tag, " "];
  }));
}

function percent(value) {
  return value === null ? "–" : `${value} %`;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function showPools(pools) {
  const select = form.elements.pool;
  const before = select.value;
  select.replaceChildren(new Option("any", ""), ...pools.map(([id, name]) => new Option(name, id)));
  select.value = before;
}

function query(wanted) {
  const asked = new URLSearchParams();
  const { q, status, pool } = form.elements;
  for (const [name, value] of [["q", q.value], ["status", status.value], ["pool", pool.value]]) {
    if (value) asked.set(name, value);
  }
  if (sort !== "id" || descending) asked.set("sort", sort);
  if (descending) asked.set("desc", "1");
  if (wanted > 1) asked.set("page", wanted);
  return asked.toString();
}

/* The address follows what is shown, so that it can be sent to someone. */
function changed(toPage) {
  page = toPage;
  form.elements.sort.value = sort;
  form.elements.desc.value = descending ? "1" : "";
  const asked = query(page);
  history.replaceState(null, "", asked ? `?${asked}` : location.pathname);
  soon();
}

form.addEventListener("input", () => { if (nodes.size) changed(1); });
form.addEventListener("submit", (event) => {
  if (!nodes.size) return;
  event.preventDefault();
  changed(1);
});
pager.addEventListener("click", (event) => {
  const link = event.target.closest("[data-page]");
  if (!link || !nodes.size) return;
  event.preventDefault();
  changed(page + (link.dataset.page === "next" ? 1 : -1));
});
table.tHead.addEventListener("click", (event) => {
  const link = event.target.closest("[data-sort]");
  if (!link || !nodes.size) return;
  event.preventDefault();
  descending = link.dataset.sort === sort ? !descending : !["id", "status", "owner"].includes(link.dataset.sort);
  sort = link.dataset.sort;
  changed(1);
});
