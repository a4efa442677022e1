"use strict";

// Names and labels come from clients and are not to be trusted: everything below is set as text,
// and rows are kept and changed in place, so that focus, scroll and opened rows survive a refresh.

const POLL_MS = 1000;
const PATIENCE_MS = 3000;
const SAMPLES = 120;
const HEIGHT = 32;
const NONE = "–";

const byId = (id) => document.getElementById(id);

// Storage is refused to a page in some private modes; the page then forgets, and works.
const storage = {
  get(key) { try { return sessionStorage.getItem(key); } catch { return null; } },
  set(key, value) { try { sessionStorage.setItem(key, value); } catch { /* forgotten */ } },
};

// Numbers for people

function scaled(value, step, units) {
  if (value == null) return NONE;
  let unit = 0;
  for (; value >= step * 0.9995 && unit < units.length - 1; unit += 1) value /= step;
  if (value > 0 && value < 0.05) return "< 0.1";
  const digits = value < 99.95 && !(unit === 0 && Number.isInteger(value)) ? 1 : 0;
  return value.toFixed(digits) + units[unit];
}

const count = (value) => scaled(value, 1000, ["", " k", " M", " G", " T"]);
const rate = (value) => count(value) + "/s";
const bytes = (value) => scaled(value, 1024, [" B", " KiB", " MiB", " GiB", " TiB"]);

function duration(ms) {
  if (ms == null) return NONE;
  const digits = (value, most) => value.toFixed(Number.isInteger(value) ? 0 : most);
  if (ms < 999.5) return digits(ms, ms < 1 ? 2 : ms < 9.95 ? 1 : 0) + " ms";
  if (ms < 9950) return digits(ms / 1000, 1) + " s";
  const seconds = Math.floor(ms / 1000);
  const [minutes, hours, days] = [60, 3600, 86400].map((unit) => Math.floor(seconds / unit));
  if (days) return `${days} d ${hours % 24} h`;
  if (hours) return `${hours} h ${minutes % 60} m`;
  return minutes ? `${minutes} m ${seconds % 60} s` : `${seconds} s`;
}

const clock = new Intl.DateTimeFormat([], { timeStyle: "medium" });
const alphabet = new Intl.Collator([], { numeric: true });

// The DOM

function element(tag, { data = {}, ...properties } = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  Object.assign(node.dataset, data);
  node.append(...children);
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Writing only what changed keeps a selection, and keeps live regions silent.
function setText(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

/** Puts `nodes` below `parent` in this order and takes out the others; moves as few as it can. */
function place(parent, nodes) {
  const focused = document.activeElement;
  const wanted = new Set(nodes);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  let at = parent.firstElementChild;
  for (const node of nodes) {
    if (node === at) at = at.nextElementSibling;
    else parent.insertBefore(node, at);
  }
  // A node that is moved loses the focus.
  if (focused !== document.activeElement) focused.focus({ preventScroll: true });
}

/** A chart of up to SAMPLES numbers, the newest at the right edge. */
function sparkline(name, humanise) {
  const title = svg("title");
  const [area, line, mark, dot] = ["area", "line", "mark", "dot"].map((kind) =>
    svg("path", { class: kind, "vector-effect": "non-scaling-stroke" }));
  const node = svg("svg", { class: "spark", viewBox: `0 0 ${SAMPLES - 1} ${HEIGHT}`,
    preserveAspectRatio: "none", role: "img" }, title, area, line, mark, dot);
  let values = [];
  const x = (index) => SAMPLES - values.length + index;

  function draw(all) {
    values = all.slice(-SAMPLES);
    setText(title, values.length === 0 ? `${name}: nothing yet` : `${name}: `
      + `now ${humanise(values.at(-1))}, lowest ${humanise(Math.min(...values))}, `
      + `highest ${humanise(Math.max(...values))}`);
    const top = Math.max(...values, 1e-9);
    const points = values.map((value, index) =>
      `${x(index)} ${(HEIGHT - 2 - (value / top) * (HEIGHT - 5)).toFixed(2)}`);
    const stroke = points.length ? "M" + points.join("L") : "";
    line.setAttribute("d", stroke);
    area.setAttribute("d", stroke && `${stroke}V${HEIGHT}H${x(0)}Z`);
    // A stroke of no length with round ends is a dot that the stretched viewBox does not squash.
    dot.setAttribute("d", stroke && `M${points.at(-1)}h0`);
  }

  /** Marks the sample at `fraction` of the width; answers it and how many steps ago it was. */
  function point(fraction) {
    const wanted = Math.round(fraction * (SAMPLES - 1)) - x(0);
    const index = Math.max(wanted, 0);
    mark.setAttribute("d", values.length ? `M${x(index)} 0V${HEIGHT}` : "");
    return { value: values[index], back: values.length - 1 - index };
  }
  return { node, draw, point, unpoint: () => mark.setAttribute("d", "") };
}

// Tiles

// The server keeps no history of what waits; this page's own samples stand in.
const waiting = [];
let waitingAt = 0;

function sampleWaiting(messages) {
  if (performance.now() - waitingAt > 5 * POLL_MS) waiting.length = 0;
  waitingAt = performance.now();
  waiting.push(messages);
  if (waiting.length > SAMPLES) waiting.shift();
}

function makeTile([field, label, about, humanise, describe]) {
  const chart = sparkline(label, humanise);
  const [value, note] = [element("strong"), element("small")];
  const plot = element("div", { className: "plot" }, chart.node);
  byId("tiles").append(element("li", { data: { tile: field, about } },
    element("span", { textContent: label }), value, plot, note));
  let [pointed, described, stepMs] = [null, "", POLL_MS];

  function showNote() {
    note.classList.toggle("pointed", pointed !== null);
    if (pointed === null) {
      chart.unpoint();
      return setText(note, described);
    }
    const { value: then, back } = chart.point(pointed);
    const ago = back > 0 ? duration(back * stepMs) + " ago" : "now";
    setText(note, then == null ? NONE : `${humanise(then)}, ${ago}`);
  }
  for (const kind of ["pointerdown", "pointermove", "pointerleave"]) {
    plot.addEventListener(kind, ({ clientX }) => {
      const { left, width } = plot.getBoundingClientRect();
      const fraction = Math.min(Math.max((clientX - left) / width, 0), 1);
      pointed = kind === "pointerleave" ? null : fraction;
      showNote();
    });
  }
  return (totals, history) => {
    const samples = field === "messages" ? waiting : history[field] ?? [];
    stepMs = history.step_ms ?? POLL_MS;
    setText(value, humanise(samples.at(-1) ?? 0));
    described = describe(totals);
    chart.draw(samples);
    showNote();
  };
}

const inAll = (field) => (totals) => `${count(totals[field])} in all`;
const tiles = [
  ["grants", "Grants", "locks", rate, inAll("grants")],
  ["releases", "Releases", "locks", rate, inAll("releases")],
  ["lock_wait_ms", "Lock wait", "locks", duration,
    (totals) => `longest ${duration(totals.lock_wait_ms_max)}`],
  ["published", "Published", "queues", rate, inAll("published")],
  ["delivered", "Delivered", "queues", rate, inAll("delivered")],
  ["settled", "Settled", "queues", rate, inAll("settled")],
  ["messages", "Messages waiting", "queues", count,
    (totals) => `${bytes(totals.memory_bytes)} memory`],
  ["sync_ms", "Sync", "disk", duration, (totals) => `mean ${duration(totals.sync_ms_avg)}`],
].map(makeTile);

// Tables

/** The cells of a row, by their column. */
const makeCells = (columns) => Object.fromEntries(columns.map(({ col, head }) =>
  [col, element("td", { data: { col, label: head } })]));

/** A table with a tbody for each item; `makeRow(name)` answers that and how to `update(item)`. */
function makeTable({ id, columns, makeRow, empty, path, body }) {
  const [table, nothing] = [byId(id), byId(id + "-empty")];
  const rows = new Map();
  let [items, total, sort] = [[], 0, { column: columns[0], way: 1 }];

  const heads = columns.map((column) => {
    const { col, head, hint = "", key, first = -1 } = column;
    const button = element("button", { type: "button", textContent: head, title: hint });
    button.addEventListener("click", () => {
      sort = { column, way: sort.column === column ? -sort.way : first };
      draw();
    });
    return element("th", { scope: "col", data: { head: col } }, key ? button : head);
  });
  const headGroup = element("thead", {}, element("tr", {}, ...heads));
  const [words, command] = [element("p"), element("code", { tabIndex: 0 })];
  nothing.append(words, command);

  function compare(left, right) {
    const [a, b] = [left, right].map(sort.column.key);
    const byName = alphabet.compare(left.name, right.name);
    // What has no value comes last, whichever way the rest is sorted.
    if (a == null || b == null) return (a == null) - (b == null) || byName;
    return sort.way * (typeof a === "string" ? alphabet.compare(a, b) : a - b) || byName;
  }

  function draw() {
    const wanted = byId("filter").value.trim();
    const shown = items.filter(({ name }) => name.toLowerCase().includes(wanted.toLowerCase()));
    const names = new Set(shown.map(({ name }) => name));
    for (const name of rows.keys()) if (!names.has(name)) rows.delete(name);
    place(table, [headGroup, ...shown.sort(compare).map((item) => {
      if (!rows.has(item.name)) rows.set(item.name, makeRow(item.name));
      rows.get(item.name).update(item);
      return rows.get(item.name).node;
    })]);
    heads.forEach((head, index) => {
      if (columns[index] !== sort.column) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", sort.way > 0 ? "ascending" : "descending");
    });
    table.hidden = shown.length === 0;
    nothing.hidden = !table.hidden;
    command.hidden = items.length > 0;
    setText(byId(id + "-count"), (shown.length < total ? `${shown.length} of ` : "") + total);
    setText(words, items.length > 0 ? `None has “${wanted}” in its name.` : empty);
    const auth = authorization ? `-H 'authorization: ${authorization.split(" ")[0]} …' ` : "";
    setText(command, `curl -X POST ${location.origin}${path} ${auth}`
      + `-H 'content-type: application/json' -d '${body}'`);
  }

  function update(newItems, newTotal) {
    [items, total] = [newItems, newTotal ?? newItems.length];
    draw();
  }
  return { draw, update };
}

// Locks

const whose = ({ label, session }) => label ?? (session == null ? "unnamed" : `session ${session}`);
const tokens = ({ holders }) => holders.map(({ token }) => token);
const oldest = ({ holders }) => Math.max(...holders.map(({ held_ms }) => held_ms));
const soonest = ({ holders }) => holders.reduce((one, other) =>
  ((other.left_ms ?? Infinity) < (one.left_ms ?? Infinity) ? other : one));
function modes({ holders }) {
  const permits = holders.map(({ mode }) => /^permits (\d+) of (\d+)$/.exec(mode));
  if (holders.length < 2 || permits.includes(null)) {
    return [...new Set(holders.map(({ mode }) => mode))].join(", ");
  }
  return `permits ${permits.reduce((sum, [, own]) => sum + Number(own), 0)} of ${permits[0][2]}`;
}
const holding = (lock) => (lock.holders.length > 0 ? lock : null);

const LOCK_COLUMNS = [
  { col: "name", head: "Lock", key: ({ name }) => name, first: 1 },
  { col: "holder", head: "Holder", key: ({ holders: [one] }) => one && whose(one), first: 1 },
  { col: "token", head: "Token", key: (lock) => holding(lock) && Math.max(...tokens(lock)) },
  { col: "mode", head: "Mode", key: modes, first: 1 },
  { col: "age", head: "Age", key: (lock) => holding(lock) && oldest(lock) },
  { col: "left", head: "Time left", key: (lock) => holding(lock) && soonest(lock).left_ms,
    first: 1 },
  { col: "waiting", head: "Waiting", key: (lock) => lock.waiting },
  { col: "expected", head: "Est. wait", key: (lock) => lock.expected_wait_ms,
    hint: "expected wait of whoever asks now" },
];

// The whole length of a lease is not told. It is age and rest, until the rest is seen to grow:
// that was a renewal, and what is left just after one is the length.
const leases = new Map();

function fractionLeft({ token, held_ms, left_ms }) {
  const lease = leases.get(token) ?? { whole: held_ms + left_ms, left: left_ms };
  if (left_ms > lease.left + 100) lease.whole = left_ms;
  lease.left = left_ms;
  leases.set(token, lease);
  return Math.min(left_ms / Math.max(lease.whole, 1), 1);
}

function forgetLeases(locks) {
  const held = new Set(locks.flatMap(tokens));
  for (const token of leases.keys()) if (!held.has(token)) leases.delete(token);
}

/** One line of the table: a lock, one of several holders, or one who waits. */
function makeLine(className) {
  const cells = makeCells(LOCK_COLUMNS);
  const [who, aside, left, rest] = ["bdi", "small", "span", "i"].map((tag) => element(tag));
  const bar = element("span", { className: "bar", ariaHidden: "true" }, rest);
  cells.holder.append(who, aside);
  cells.left.append(left, bar);

  function draw({ holder = "", session = "", lease = null, ...texts }) {
    setText(who, holder);
    setText(aside, session);
    setText(left, !lease ? "" : lease.left_ms != null ? duration(lease.left_ms)
      : lease.session != null ? "its session" : "no limit");
    bar.hidden = lease?.left_ms == null;
    const fraction = bar.hidden ? 0 : fractionLeft(lease);
    rest.style.transform = `scaleX(${fraction.toFixed(4)})`;
    rest.classList.toggle("short", fraction < 0.2);
    for (const [col, text] of Object.entries(texts)) setText(cells[col], text);
    for (const cell of Object.values(cells)) cell.classList.toggle("void", !cell.textContent);
  }
  return { node: element("tr", { className }, ...Object.values(cells)), cells, draw };
}

const holderTexts = (holder) => ({
  holder: whose(holder),
  session: [holder.label != null && holder.session != null && `session ${holder.session}`,
    holder.entries > 1 && `entered ${holder.entries}×`].filter(Boolean).join(", "),
  token: String(holder.token),
  mode: holder.mode,
  age: duration(holder.held_ms),
  lease: holder,
});

function lockTexts(lock) {
  const { holders } = lock;
  const tail = { waiting: count(lock.waiting), expected: duration(lock.expected_wait_ms) };
  if (holders.length === 1) return { ...holderTexts(holders[0]), ...tail };
  if (holders.length === 0) return { holder: "nobody", token: NONE, mode: "", age: NONE, ...tail };
  return { holder: `${holders.length} holders`, token: NONE, mode: modes(lock),
    age: duration(oldest(lock)), lease: soonest(lock), ...tail };
}

/** What an opened lock shows below itself: keys and texts. */
function insideTexts({ holders, waiters = [], waiting }) {
  const texts = holders.length < 2 ? [] : holders.map((holder) =>
    ["holder " + holder.token, { name: "held by", ...holderTexts(holder) }]);
  waiters.forEach((waiter, index) => texts.push(["waiter " + index, {
    name: `${index + 1}. in line`, holder: whose(waiter), mode: waiter.mode,
    age: duration(waiter.waited_ms), expected: duration(waiter.expected_ms) }]));
  const more = waiting - waiters.length;
  if (more > 0) texts.push(["more", { name: `and ${count(more)} more` }]);
  if (waiting === 0) texts.push(["more", { name: "nobody waits" }]);
  return texts;
}

const opened = new Set();

function makeLock(name) {
  const main = makeLine("item");
  main.node.dataset.lock = name;
  const label = element("bdi", { textContent: name, title: name });
  const button = element("button", { type: "button" }, label);
  main.cells.name.append(button);
  const node = element("tbody", {}, main.node);
  let [lock, inside] = [null, new Map()];

  function draw() {
    button.setAttribute("aria-expanded", String(opened.has(name)));
    main.draw(lockTexts(lock));
    inside = new Map((opened.has(name) ? insideTexts(lock) : []).map(([key, texts]) => {
      const line = inside.get(key) ?? makeLine("part");
      line.draw(texts);
      return [key, line];
    }));
    place(node, [main, ...inside.values()].map((line) => line.node));
  }
  button.addEventListener("click", () => {
    if (!opened.delete(name)) opened.add(name);
    draw();
  });
  return { node, update(newest) { lock = newest; draw(); } };
}

const locks = makeTable({ id: "locks", columns: LOCK_COLUMNS, makeRow: makeLock,
  empty: "Nobody holds a lock. This takes one for half a minute:",
  path: "/v1/locks/demo/acquire", body: '{"ttl_ms":30000}' });

// Queues

const number = (col, head, field = col, write = count, hint = "") =>
  ({ col, head, hint, key: (queue) => queue[field], write: (queue) => write(queue[field]) });
const QUEUE_COLUMNS = [
  { col: "name", head: "Queue", key: ({ name }) => name, first: 1 },
  number("ready", "Ready"),
  number("in_flight", "In flight"),
  number("delayed", "Delayed"),
  number("dead", "Dead"),
  number("in", "In/s", "publish_rate", count, "published per second"),
  number("out", "Out/s", "deliver_rate", count, "delivered per second"),
  number("oldest", "Oldest", "oldest_ms", duration, "age of the oldest message"),
  number("drain", "Drained in", "drain_ms", duration, "at the rate of settling now"),
  number("consumers", "Consumers"),
  { col: "history", head: "Ready, 2 min" },
];

function makeQueue(name) {
  const cells = makeCells(QUEUE_COLUMNS);
  const paused = element("em", { className: "badge", textContent: "paused" });
  const chart = sparkline("Ready", count);
  cells.name.append(element("bdi", { textContent: name, title: name }), paused);
  cells.history.append(chart.node);
  const row = element("tr", { className: "item", data: { queue: name } }, ...Object.values(cells));

  function update(queue) {
    paused.hidden = !queue.paused;
    for (const { col, write } of QUEUE_COLUMNS) {
      if (!write) continue;
      setText(cells[col], write(queue));
      cells[col].classList.toggle("zero", cells[col].textContent === "0");
    }
    cells.dead.classList.toggle("bad", queue.dead > 0);
    cells.ready.title = `${bytes(queue.bytes)}, ${count(queue.parked)} parked`;
    cells.out.title = `${rate(queue.settle_rate)} settled`;
    chart.draw(queue.history ?? []);
  }
  return { node: element("tbody", {}, row), update };
}

const queues = makeTable({ id: "queues", columns: QUEUE_COLUMNS, makeRow: makeQueue,
  empty: "There is no queue yet. This makes one and publishes to it:",
  path: "/v1/queues/orders/messages", body: '{"body":"hello"}' });

// The conversation with the server

let authorization = storage.get("authorization");
let [asking, answeredAt, everAnswered] = [false, Date.now(), false];

function authorize(value) {
  authorization = value;
  storage.set("authorization", value ?? "");
}

function enter(state, words) {
  document.body.dataset.state = state;
  setText(byId("state"), words);
  document.title = (state === "live" ? "" : words + " · ") + "Leasehold " + location.host;
  byId("lost").hidden = state !== "lost";
  byId("signin").hidden = state !== "signin";
  byId("status").hidden = byId("server").hidden = !everAnswered || state === "signin";
  byId("signout").hidden = !authorization || state === "signin";
}

function show({ server, totals, history, ...status }) {
  setText(byId("version"), server.version);
  setText(byId("uptime"), duration(server.uptime_ms));
  setText(byId("durability"), server.durability);
  setText(byId("engine"), server.engine);
  setText(byId("warnings"), server.warnings.join("\n"));
  byId("warnings").hidden = server.warnings.length === 0;
  sampleWaiting(totals.messages);
  for (const draw of tiles) draw(totals, history);
  locks.update(status.locks, status.locks_total);
  queues.update(status.queues, status.queues_total);
  forgetLeases(status.locks);

  [answeredAt, everAnswered] = [Date.now(), true];
  setText(byId("updated"), clock.format(answeredAt));
  byId("dot").classList.toggle("unready", !server.ready);
  enter("live", server.ready ? "live" : "not ready");
}

function lose(why) {
  enter("lost", "no answer");
  const then = everAnswered ? " What you see below is from then." : "";
  setText(byId("lost-what"), `No answer since ${clock.format(answeredAt)}.`);
  setText(byId("lost-why"), why + then);
  showSilence();
}

function showSilence() {
  const seconds = Math.max(Math.round((Date.now() - answeredAt) / 1000), 1);
  setText(byId("lost-for"), `silent for ${duration(seconds * 1000)}, asking every second`);
}

function askToSignIn(code) {
  const why = !authorization ? "This server wants to know who asks."
    : code === 403 ? "You are known here, but may not read the status."
    : "The server did not accept that.";
  authorize(null);
  enter("signin", "sign in");
  setText(byId("signin-why"), why);
  byId("signin").querySelector("fieldset:not([hidden]) input").focus();
}

async function ask() {
  let answer;
  try {
    answer = await fetch("/v1/status", {
      cache: "no-store",
      // With credentials the browser would meet a 401 with its own prompt.
      credentials: "omit",
      headers: authorization ? { authorization } : {},
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
  } catch (error) {
    return lose(error.name === "TimeoutError" ? "It takes too long." : "It cannot be reached.");
  }
  if (answer.status === 401 || answer.status === 403) return askToSignIn(answer.status);
  if (!answer.ok) return lose(`It answers with status ${answer.status}.`);
  try {
    show(await answer.json());
  } catch (error) {
    console.error(error);
    lose("What it says cannot be understood.");
  }
}

async function poll() {
  if (asking || document.hidden) return;
  asking = true;
  await ask();
  asking = false;
}

// While the form is open nothing is asked: a refusal each second would look like an attack.
function tick() {
  if (document.body.dataset.state === "lost") showSilence();
  if (document.body.dataset.state !== "signin") poll();
}

byId("filter").value = storage.get("filter") ?? "";
byId("filter").addEventListener("input", () => {
  storage.set("filter", byId("filter").value);
  locks.draw();
  queues.draw();
});

byId("signin").addEventListener("change", ({ target }) => {
  if (target.name !== "kind") return;
  for (const fields of byId("signin").querySelectorAll("fieldset")) {
    fields.hidden = fields.disabled = fields.dataset.kind !== target.value;
  }
});

byId("signin").addEventListener("submit", (event) => {
  event.preventDefault();
  const { kind, user, password, token } = event.target.elements;
  const utf8 = new TextEncoder().encode(`${user.value}:${password.value}`);
  authorize(kind.value === "bearer" ? `Bearer ${token.value}`
    : "Basic " + btoa(String.fromCharCode(...utf8)));
  password.value = token.value = "";
  poll();
});

// A fresh page is the surest way to leave nothing of what was seen.
byId("signout").addEventListener("click", () => {
  authorize(null);
  location.reload();
});

document.addEventListener("visibilitychange", tick);
setInterval(tick, POLL_MS);
tick();
