// The operator's page. Asks the server every two seconds for its sums since start, and shows what has
// become of them meanwhile. Holds the token, if one is needed, in a variable and nowhere else.
"use strict";

const POLL_MS = 2000;
const PATIENCE_MS = 5000;
const RATE_MS = 10_000; // rates are means of so long
const MINUTE_MS = 60_000;
const TREND_MS = 180_000;
const LEAST_TREND_MS = 30_000;
const GAP_MS = 15_000; // trends are cut where nobody looked for so long
const COSTS_EVERY = 5; // polls

/** How requests end: a name, and how bad it is. In the order in which they are shown. */
const ENDINGS = {
  ok: ["Answered", "good"],
  congested: ["Refused: the queue is longer than their deadline", "busy"],
  too_little_time: ["Refused: no run fits into their deadline", "busy"],
  full: ["Refused: queue or memory full", "busy"],
  late_at_arrival: ["Deadline passed on the way in", "busy"],
  late_in_queue: ["Deadline passed while waiting", "busy"],
  late_in_execution: ["Deadline passed while running", "busy"],
  failed: ["The run failed", "bad"],
  unavailable: ["Not serving", "bad"],
  invalid: ["The request was wrong", "calm"],
  cancelled: ["The caller left", "calm"],
};
const REFUSED = ["congested", "too_little_time", "full"];
const LATE = ["late_at_arrival", "late_in_queue", "late_in_execution"];

const byId = (id) => document.getElementById(id);
const total = (numbers) => numbers.reduce((sum, each) => sum + each, 0);
/** A sum that is smaller than before has begun anew. */
const grown = (now, before) => (now >= before ? now - before : now);

// ---- numbers as text

const grouped = (count) => count.toLocaleString("en");

function rounded(value) {
  if (value >= 9_999_500) return `${+(value / 1e6).toPrecision(3)}M`;
  if (value >= 9_999.5) return `${+(value / 1e3).toPrecision(3)}k`;
  return value >= 9.95 || value === 0 ? grouped(Math.round(value)) : value.toFixed(1);
}

function time(micros) {
  if (micros === null || micros === undefined) return "–";
  if (micros < 999.5) return `${+micros.toPrecision(3)} µs`;
  if (micros < 999_500) return `${+(micros / 1e3).toPrecision(3)} ms`;
  return `${+(micros / 1e6).toPrecision(3)} s`;
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${+count.toPrecision(3)} ${units[unit]}`;
}

function share(part, whole) {
  if (!whole || !part) return "0 %";
  const percent = (100 * part) / whole;
  if (percent < 0.1) return "< 0.1 %";
  return percent >= 99.95 || percent === Math.round(percent)
    ? `${Math.round(percent)} %`
    : `${percent.toFixed(1)} %`;
}

function lasting(seconds) {
  const parts = [[86_400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([length]) => seconds >= length);
  if (first < 0) return "0 s";
  const shown = [];
  for (const [length, unit] of parts.slice(first, first + 2)) {
    const count = Math.floor(seconds / length);
    seconds -= count * length;
    if (count) shown.push(`${count} ${unit}`);
  }
  return shown.join(" ");
}

// ---- what became of the sums between two looks

/** Pairs of a value and a count, less those that were there before. */
function pairsSince(now, before) {
  const old = new Map(before);
  const pairs = now.map(([value, count]) => [value, grown(count, old.get(value) ?? 0)]);
  return pairs.filter(([, count]) => count > 0);
}

/** The value that so large a share of the counts does not exceed; `null` without counts. */
function percentile(pairs, part) {
  const wanted = total(pairs.map(([, count]) => count)) * part;
  let seen = 0;
  for (const [value, count] of pairs) {
    seen += count;
    if (seen >= wanted) return value;
  }
  return null;
}

/** What a model did between two looks; since its start if there is no look before. */
function since(now, before) {
  const number = (key) => grown(now[key], before?.[key] ?? 0);
  const pairs = (key) => pairsSince(now[key], before?.[key] ?? []);
  const endings = Object.entries(now.requests).map(([ending, count]) => {
    return [ending, grown(count, before?.requests[ending] ?? 0)];
  });
  const requests = Object.fromEntries(endings);
  const ended = total(Object.values(requests));
  return {
    requests,
    answered: requests.ok,
    unanswered: ended - requests.ok,
    ended,
    rows: number("rows"),
    runs: number("runs"),
    busy: number("busy_seconds"),
    panics: number("panics"),
    run_rows: pairs("run_rows"),
    request: pairs("request_micros"),
    queue: pairs("queue_micros"),
    execution: pairs("execution_micros"),
  };
}

const count = (made, endings) => total(endings.map((ending) => made.requests[ending] ?? 0));

// ---- elements

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Writes only what has changed, so that nothing selected is lost and nothing is read out twice. */
function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function mark(target, key, value) {
  if (target.dataset[key] !== value) target.dataset[key] = value;
}

// ---- plots

/** The next of 1, 2, 5, 10, … */
function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value * 0.999) * power;
}

/** A path through points; `null` cuts it. */
function path(points) {
  let pen = "M";
  return points.map((point) => {
    if (!point) {
      pen = "M";
      return "";
    }
    const step = `${pen}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
    pen = "L";
    return step;
  }).join("");
}

/** Points of a trend as pairs of time and value, cut where nobody looked. */
function cut(trend, key) {
  const points = [];
  let last = null;
  for (const each of trend) {
    if (last !== null && each.at - last > GAP_MS) points.push(null);
    points.push([each.at, each[key]]);
    last = each.at;
  }
  return points;
}

/** How far back a trend is shown: no further than it goes. */
const spanOf = (trend, now) => (trend.length ? Math.max(now - trend[0].at, LEAST_TREND_MS) : LEAST_TREND_MS);

/** A small picture of a trend, for the eye alone: the number stands beside it. */
function spark(trend, key, now) {
  const [width, height] = [120, 28];
  const [top, span] = [Math.max(...trend.map((each) => each[key]), 0) || 1, spanOf(trend, now)];
  const points = cut(trend, key).map((point) => point && [
    width - ((now - point[0]) / span) * width,
    height - 1.5 - (point[1] / top) * (height - 3),
  ]);
  const size = { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" };
  return drawn("svg", { ...size, class: "spark", "aria-hidden": "true" },
    drawn("path", { d: path(points), class: "line" }));
}

const FRAME = { width: 340, height: 150, left: 52, right: 12, top: 12, bottom: 24 };

/** Axes with a grid; `ticks` are pairs of a place and a text. */
function axes(vertical, horizontal) {
  const { width, height, left, right, bottom } = FRAME;
  const parts = [];
  for (const [y, text] of vertical) {
    parts.push(drawn("line", { x1: left, x2: width - right, y1: y, y2: y, class: "grid" }));
    parts.push(drawn("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, text));
  }
  for (const [x, text, anchor] of horizontal) {
    const place = { x, y: height - bottom + 17, "text-anchor": anchor ?? "middle" };
    parts.push(drawn("text", place, text));
  }
  return parts;
}

function plot(label, ...parts) {
  const size = { viewBox: `0 0 ${FRAME.width} ${FRAME.height}` };
  return drawn("svg", { ...size, class: "plot", role: "img", "aria-label": label }, ...parts);
}

function trendPlot(trend, now) {
  const { width, height, left, right, top, bottom } = FRAME;
  const highest = ceiling(Math.max(...trend.map((each) => Math.max(each.answered, each.unanswered)), 1));
  const span = spanOf(trend, now);
  const x = (at) => width - right - ((now - at) / span) * (width - right - left);
  const y = (value) => height - bottom - (value / highest) * (height - bottom - top);
  const line = (key) => {
    const points = cut(trend, key).map((point) => point && [x(point[0]), y(point[1])]);
    return drawn("path", { d: path(points), class: `line ${key}` });
  };
  const ticks = [0, highest / 2, highest].map((value) => [y(value), rounded(value)]);
  const last = trend.at(-1);
  const label = last
    ? `The last ${lasting(span / 1000)}; now ${rounded(last.answered)} answered and ${rounded(last.unanswered)} not answered a second`
    : "Nothing yet";
  const times = [[left, `${lasting(span / 1000)} ago`, "start"], [width - right, "now", "end"]];
  return plot(label, ...axes(ticks, times), line("unanswered"), line("answered"));
}

const PLOTTED_LENGTHS = 4;

/** Of many lengths the shortest, the longest and some between. */
function chosenLengths(lengths) {
  if (lengths.length <= PLOTTED_LENGTHS) return lengths;
  const step = (lengths.length - 1) / (PLOTTED_LENGTHS - 1);
  return Array.from({ length: PLOTTED_LENGTHS }, (_, index) => lengths[Math.round(index * step)]);
}

/** Names beside the ends of lines, none over another. */
function named(ends) {
  let last = Infinity;
  return ends.sort(([[, a]], [[, b]]) => b - a).map(([[x, y], text]) => {
    last = Math.min(y + 4, last - 13);
    return drawn("text", { x: x + 10, y: last }, text);
  });
}

/** What a row costs by the rows of the run, a line for each length, the chosen size marked. */
function costPlot(costs) {
  const all = [...new Set(costs.points.map((point) => point.length))].sort((a, b) => a - b);
  const lengths = chosenLengths(all.filter((length) => {
    return costs.points.filter((point) => point.length === length).length > 1;
  }));
  if (lengths.length === 0) return null;
  const { width, height, left, top, bottom } = FRAME;
  const isOne = lengths.length === 1;
  const right = isOne ? 20 : 58; // room for the names of the lines
  const points = costs.points.filter((point) => lengths.includes(point.length));
  const most = Math.max(...points.map((point) => point.rows));
  const highest = ceiling(Math.max(...points.map((point) => point.micros / point.rows)));
  const x = (rows) => left + 10 + (Math.log2(rows) / Math.log2(most)) * (width - right - left - 10);
  const y = (micros) => height - bottom - (micros / highest) * (height - bottom - top);
  const parts = [];
  const heard = [];
  const ends = [];
  for (const [index, length] of lengths.entries()) {
    const own = points.filter((point) => point.length === length).sort((a, b) => a.rows - b.rows);
    const shade = isOne ? 2 : PLOTTED_LENGTHS - lengths.length + index;
    const best = costs.row_costs.find((row) => row.length === length)?.rows;
    const places = own.map((point) => [x(point.rows), y(point.micros / point.rows)]);
    parts.push(drawn("path", { d: path(places), class: `line shade${shade}` }));
    for (const [place, point] of own.entries()) {
      const [cx, cy] = places[place];
      const chosen = point.rows === best;
      const text = `${rowsText(point.rows)}: ${time(point.micros / point.rows)} a row, ${time(point.micros)} the run`
        + (isOne ? "" : `, length ${grouped(length)}`) + (chosen ? ", chosen" : "");
      parts.push(drawn("circle", { cx, cy, r: chosen ? 5.5 : 3, class: `${chosen ? "ring" : "dot"} shade${shade}` }));
      parts.push(drawn("circle", { cx, cy, r: 9, class: "hit" }, drawn("title", {}, text)));
      heard.push(text);
    }
    ends.push([places.at(-1), grouped(length)]);
  }
  if (!isOne) parts.push(...named(ends));
  const ticks = [0, highest / 2, highest].map((value) => [y(value), value ? time(value) : "0"]);
  const powers = [];
  for (let rows = 1; rows <= most; rows *= 2) powers.push(rows);
  const thin = Math.ceil(powers.length / 7);
  const sizes = powers.filter((_, index) => index % thin === 0).map((rows) => [x(rows), grouped(rows)]);
  const label = `Time a row takes, by rows in a run. ${heard.join("; ")}`;
  return { picture: plot(label, ...axes(ticks, sizes), ...parts), shown: lengths.length, of: all.length };
}

const rowsText = (rows) => (rows === 1 ? "1 row" : `${grouped(rows)} rows`);

// ---- what the server says, and when it said it

let token = null;
let looks = []; // {at, status}: a minute of them, the last one last
let trends = new Map(); // of each model version, and of "" for all of them: rates over time
let costs = new Map();
let failedSince = null;
let paused = false;
let timer = null;
let turn = 0;
let asking = null;
const rows = new Map(); // model version -> its part of the page
const openedByHand = new Set();

const keyOf = (model) => `${model.name}/${model.version}`;

async function ask(path) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const signal = AbortSignal.any([asking.signal, AbortSignal.timeout(PATIENCE_MS)]);
  return fetch(path, { headers, signal, cache: "no-store" });
}

async function poll() {
  clearTimeout(timer);
  asking?.abort();
  const mine = (asking = new AbortController());
  try {
    await look();
    failedSince = null;
  } catch (error) {
    if (mine !== asking || mine.signal.aborted) return;
    failedSince ??= Date.now();
  }
  if (mine !== asking) return;
  show();
  if (!paused && !document.hidden) timer = setTimeout(poll, looks.length < 2 ? POLL_MS / 2 : POLL_MS);
}

async function look() {
  const guarded = !byId("access").hidden && token === null;
  const answer = guarded ? { status: 401 } : await ask("status");
  if (answer.status === 401) {
    if (token !== null) {
      write(byId("refusal"), "The server does not know this token, or takes it no more.");
      byId("token").focus();
    }
    token = null;
    byId("access").hidden = false;
    const ready = await (await ask("readyz")).json();
    take({ ...ready, limited: true });
    return;
  }
  if (!answer.ok) throw new Error(`status: ${answer.status}`);
  const status = await answer.json();
  byId("access").hidden = true;
  write(byId("refusal"), "");
  take(status);
  const isOpen = [...rows.values()].some((row) => row.details.open);
  if (isOpen && (turn % COSTS_EVERY === 0 || costs.size === 0)) {
    const told = await ask("costs");
    if (told.ok) costs = new Map((await told.json()).models.map((model) => [keyOf(model), model]));
  }
  turn += 1;
}

/** Takes a look among those that are kept. */
function take(status) {
  const at = performance.now();
  const last = looks.at(-1)?.status;
  const isOther = last && (last.limited !== status.limited || last.uptime_seconds > status.uptime_seconds);
  if (isOther) {
    looks = [];
    trends = new Map();
  }
  status.byKey = new Map(status.models.map((model) => [keyOf(model), model]));
  looks.push({ at, status, clock: Date.now() });
  while (looks.length > 2 && at - looks[1].at >= MINUTE_MS) looks.shift();
  const sums = { answered: 0, unanswered: 0, rows: 0, waiting: 0 };
  for (const model of status.models) {
    if (!model.served) continue;
    const rate = rates(model);
    sums.waiting += model.served.waiting;
    if (!rate) continue;
    for (const key of ["answered", "unanswered", "rows"]) sums[key] += rate[key];
    remember(keyOf(model), { at, ...rate });
  }
  const held = status.memory?.held_bytes ?? 0;
  if (looks.length > 1) remember("", { at, ...sums, held });
  for (const key of trends.keys()) if (key && !status.byKey.has(key)) trends.delete(key);
}

function remember(key, point) {
  const kept = trends.get(key) ?? [];
  kept.push(point);
  while (kept[0].at < point.at - TREND_MS) kept.shift();
  trends.set(key, kept);
}

/** The look that is so old, or the oldest. */
function lookBefore(age) {
  const now = looks.at(-1);
  const earlier = looks.slice(0, -1);
  return earlier.findLast((each) => now.at - each.at >= age - 500) ?? earlier[0] ?? null;
}

/** What a model does a second, at present; `null` before the second look. */
function rates(model) {
  const [now, before] = [looks.at(-1), lookBefore(RATE_MS)];
  if (!before) return null;
  const made = since(model.served, before.status.byKey.get(keyOf(model))?.served);
  const seconds = (now.at - before.at) / 1000;
  return {
    answered: made.answered / seconds,
    unanswered: made.unanswered / seconds,
    rows: made.rows / seconds,
    busy: Math.min(made.busy / seconds / model.served.instances, 1),
    made,
    seconds,
  };
}

// ---- what needs attention

const LOADING = "Models are being loaded";
const TONES = ["bad", "busy", "calm"];

/** Whatever is wrong, the worst first: how bad, in short, in full, and the model that it is about. */
function findProblems(status) {
  const found = [];
  const add = (tone, short, text, key) => found.push({ id: `${key ?? ""} ${short}`, tone, short, text, key });
  collect(status, add);
  return found.sort((a, b) => TONES.indexOf(a.tone) - TONES.indexOf(b.tone));
}

function collect(status, add) {
  if (failedSince !== null) {
    const age = lasting(Math.max((Date.now() - failedSince) / 1000, 1));
    add("bad", "The server does not answer", `The server has not answered for ${age}. What is shown is older.`);
  }
  if (!status) return;
  if (status.draining) {
    add("busy", "The server is stopping", "The server is stopping. It answers what it has taken.");
  } else if (!status.ready) {
    const isLoading = status.models.some((model) => model.state === "LOADING") || !status.models.length;
    if (isLoading) add("calm", LOADING, "Models are being loaded. The server is not ready yet.");
    else add("bad", "The server is not ready", "The server is not ready: no model serves.");
  }
  const memory = status.memory;
  if (memory && memory.held_bytes > 0.9 * memory.limit_bytes) {
    const text = "Requests hold almost all the memory that they may. Smaller or fewer at a time, or a higher request_memory_bytes.";
    add("bad", "Memory for requests is almost full", text);
  }
  for (const model of status.models) {
    const key = keyOf(model);
    if (isBroken(model)) add("bad", "does not serve", `does not serve: ${model.reason || "no reason told"}`, key);
    if (model.served) judge(model, key, add);
  }
}

function judge(model, key, add) {
  const { hung, instances } = model.served;
  if (hung > 0) {
    add("bad", "has workers that hang", `has ${hung} of ${instances} workers in runs that last too long.`, key);
  }
  const minute = lookBefore(MINUTE_MS);
  const made = minute && since(model.served, minute.status.byKey.get(key)?.served);
  if (made?.panics) {
    const times = made.panics === 1 ? "once" : `${made.panics} times`;
    add("bad", "had to rebuild workers", `had to rebuild a worker ${times} in the last minute. The log says why.`, key);
  }
  if (made?.requests.failed) {
    const text = `failed ${grouped(made.requests.failed)} requests in the last minute. The log says why.`;
    add("bad", "fails requests", text, key);
  }
  const rate = rates(model);
  if (!rate) return;
  const [refused, late] = [count(rate.made, REFUSED), count(rate.made, LATE)];
  const often = (number) => `${rounded(number / rate.seconds)} requests a second, ${share(number, rate.made.ended)} of all`;
  if (refused > 0) {
    const full = rate.made.requests.full > refused / 2;
    const why = full
      ? "its queue or the memory for requests is full."
      : "they could not be answered in time. More instances or replicas would take them.";
    add("busy", "refuses requests", `refuses ${often(refused)}: ${why}`, key);
  }
  if (late > 0) add("busy", "answers too late", `answers too late for ${often(late)}.`, key);
}

const isBroken = (model) => model.state === "UNAVAILABLE" && model.reason !== "unloaded";

// ---- showing it

function show() {
  const status = looks.at(-1)?.status;
  const problems = findProblems(status);
  showHeader(status, problems);
  showProblems(problems);
  if (!status) return;
  byId("models").hidden = false;
  byId("window").hidden = Boolean(status.limited);
  byId("totals").hidden = Boolean(status.limited);
  if (!status.limited) showTotals(status);
  showModels(status, problems);
}

function showHeader(status, problems) {
  const verdict = byId("verdict");
  const worst = TONES.find((tone) => problems.some((problem) => problem.tone === tone));
  let [text, tone] = ["All is well", "good"];
  if (failedSince !== null) [text, tone] = ["No answer", "bad"];
  else if (status?.draining) [text, tone] = ["Stopping", "busy"];
  else if (!status?.ready) [text, tone] = ["Not ready", problems.some((each) => each.short === LOADING) ? "busy" : "bad"];
  else if (worst === "bad") [text, tone] = ["Needs attention", "bad"];
  else if (worst === "busy") [text, tone] = ["Overloaded", "busy"];
  write(verdict, text);
  mark(verdict, "tone", tone);
  const serious = problems.filter((problem) => problem.tone !== "calm").length;
  const title = `${serious ? `(${serious}) ` : ""}onnxd ${location.host}`;
  if (document.title !== title) document.title = title;
  const facts = [location.host];
  if (status?.version) {
    facts.push(`version ${status.version}`, status.runtime.split(" (")[0], `up ${lasting(status.uptime_seconds)}`);
    byId("facts").title = status.runtime;
  }
  write(byId("facts"), facts.join(" · "));
  const last = looks.at(-1);
  const clock = last && new Date(last.clock).toLocaleTimeString([], { hour12: false });
  write(byId("updated"), last ? `${paused ? "Paused" : "As of"} ${paused ? "at " : ""}${clock}` : "");
  document.body.classList.toggle("stale", failedSince !== null);
}

function showProblems(problems) {
  const list = byId("problems").firstElementChild;
  byId("problems").hidden = problems.length === 0;
  const known = new Map([...list.children].map((each) => [each.dataset.id, each]));
  for (const [index, { id, tone, text, key }] of problems.entries()) {
    let item = known.get(id);
    known.delete(id);
    if (!item) {
      item = element("li", { class: "problem", "data-id": id });
      if (key) item.append(element("a", { href: `#${key}` }, key), " ");
      item.append(element("span"));
    }
    if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
    mark(item, "tone", tone);
    write(item.querySelector("span"), text);
  }
  for (const gone of known.values()) gone.remove();
  // Numbers in the texts change all the time; only what comes and goes is read out.
  const heard = problems.map(({ key, short }) => (key ? `${key} ${short}` : short));
  const said = heard.join(". ") || (looks.length ? "All is well" : "");
  const ids = problems.map((problem) => problem.id).join("\n");
  const announcement = byId("announcement");
  if (announcement.dataset.ids !== ids) {
    announcement.dataset.ids = ids;
    write(announcement, said);
  }
}

const TILES = [
  ["answered", "Answered", "a second"],
  ["rows", "Rows run", "a second"],
  ["unanswered", "Not answered", "a second"],
  ["waiting", "Waiting", "requests"],
  ["memory", "Memory for requests", ""],
];

function showTotals(status) {
  const place = byId("totals");
  if (!place.firstElementChild) {
    for (const [key, title] of TILES) {
      const value = element("p", { class: "value" }, element("b"), " ", element("span"));
      place.append(element("div", { class: "tile", "data-tile": key }, element("h2", {}, title), value, element("p", { class: "note" })));
    }
  }
  const trend = trends.get("") ?? [];
  const now = trend.at(-1);
  const at = looks.at(-1).at;
  const served = status.models.filter((model) => model.served);
  const fill = (key, value, unit, note, tone, picture) => {
    const tile = place.querySelector(`[data-tile="${key}"]`);
    write(tile.querySelector("b"), value);
    write(tile.querySelector("span"), unit);
    write(tile.querySelector(".note"), note);
    mark(tile, "tone", tone);
    tile.querySelector("svg")?.remove();
    if (picture) tile.append(picture);
  };
  const rate = (key) => (now ? rounded(now[key]) : "–");
  const sinceStart = (find) => grouped(total(served.map((model) => find(model.served))));
  const all = (model) => total(Object.values(model.requests));
  const draw = (key) => (trend.length > 1 ? spark(trend, key, at) : null);
  fill("answered", rate("answered"), "a second", `${sinceStart((model) => model.requests.ok)} since start`, "calm", draw("answered"));
  fill("rows", rate("rows"), "a second", `${sinceStart((model) => model.rows)} since start`, "calm", draw("rows"));
  const lost = now && now.unanswered > 0;
  const part = lost ? `${share(now.unanswered, now.unanswered + now.answered)} of all; ` : "";
  fill("unanswered", rate("unanswered"), "a second", `${part}${sinceStart((model) => all(model) - model.requests.ok)} since start`, lost ? "busy" : "calm", draw("unanswered"));
  const waiting = total(served.map((model) => model.served.waiting));
  const running = total(served.map((model) => model.served.running));
  const workers = total(served.map((model) => model.served.instances));
  fill("waiting", grouped(waiting), waiting === 1 ? "request" : "requests", `${running} of ${workers} workers in a run`, "calm", draw("waiting"));
  const { held_bytes: held, limit_bytes: limit } = status.memory;
  fill("memory", bytes(held), "held", `${share(held, limit)} of ${bytes(limit)}`, held > 0.9 * limit ? "bad" : "calm", draw("held"));
}

const VALUES = ["answered", "rows", "busy", "waiting", "p99", "unanswered"];
const LABELS = { answered: "Answered", rows: "Rows", busy: "Workers busy", waiting: "Waiting", p99: "p99 time", unanswered: "Not answered" };

/** The part of the page that a model version has. */
function rowOf(key) {
  if (rows.has(key)) return rows.get(key);
  const [name, version] = [key.slice(0, key.lastIndexOf("/")), key.slice(key.lastIndexOf("/") + 1)];
  const state = element("span", { class: "badge" });
  const note = element("span", { class: "note" });
  const who = element("span", { class: "who" }, element("span", { class: "name" }, element("b", {}, name), element("span", {}, `/${version}`), " ", state), note);
  const values = Object.fromEntries(VALUES.map((value) => [value, element("span", { class: "value", "data-value": value })]));
  const cells = VALUES.map((value) => {
    const cell = element("span", { class: "cell" }, element("span", { class: "label" }, LABELS[value]), " ", values[value]);
    if (value === "busy") cell.append(element("span", { class: "bar", "aria-hidden": "true" }, element("span")));
    return cell;
  });
  const summary = element("summary", {}, element("span", { class: "row" }, who, ...cells));
  const body = element("div", { class: "panels" });
  const details = element("details", { id: key }, summary, body);
  details.addEventListener("toggle", () => {
    if (details.open && !costs.has(key)) costs.size && (costs = new Map());
    show();
  });
  summary.addEventListener("click", () => openedByHand.add(key));
  const made = { details, state, note, values, body, bar: details.querySelector(".bar > span") };
  rows.set(key, made);
  return made;
}

const FEW_MODELS = 3;
const MANY_MODELS = 8;

function showModels(status, problems) {
  const list = byId("list");
  byId("none").hidden = status.models.length > 0;
  byId("filter").hidden = status.models.length <= MANY_MODELS;
  byId("models").classList.toggle("limited", Boolean(status.limited));
  const wanted = byId("filter").hidden ? "" : byId("filter").querySelector("input").value.toLowerCase();
  for (const [key, row] of rows) {
    if (!status.byKey.has(key)) {
      row.details.remove();
      rows.delete(key);
    }
  }
  const isNew = list.childElementCount === 0;
  status.models.forEach((model, index) => {
    const key = keyOf(model);
    const row = rowOf(key);
    if (list.children[index] !== row.details) list.insertBefore(row.details, list.children[index] ?? null);
    row.details.hidden = !key.toLowerCase().includes(wanted);
    if (isNew && status.models.length <= FEW_MODELS && !status.limited && model.served) row.details.open = true;
    showModel(model, row, problems.filter((problem) => problem.key === key));
  });
}

function showModel(model, row, problems) {
  const [text, tone] = stateOf(model, problems);
  write(row.state, text);
  mark(row.state, "tone", tone);
  const served = model.served;
  row.details.classList.toggle("idle", !served);
  write(row.note, served ? setUp(served) : model.reason === "unloaded" ? "" : model.reason ?? "");
  const rate = served && rates(model);
  const minute = lookBefore(MINUTE_MS);
  const made = served && minute && since(served, minute.status.byKey.get(keyOf(model))?.served);
  const put = (value, text, isZero, tone = "calm") => {
    write(row.values[value], text);
    mark(row.values[value], "zero", String(isZero));
    mark(row.values[value], "tone", tone);
  };
  const a = (number) => (rate ? `${rounded(number)}/s` : "–");
  put("answered", a(rate?.answered), !rate?.answered);
  put("rows", a(rate?.rows), !rate?.rows);
  put("busy", rate ? `${Math.round(100 * rate.busy)} %` : "–", !rate?.busy);
  put("waiting", served ? grouped(served.waiting) : "–", !served?.waiting);
  put("p99", time(made && percentile(made.request, 0.99)), !made?.answered);
  put("unanswered", a(rate?.unanswered), !rate?.unanswered, rate?.unanswered ? "busy" : "calm");
  row.bar.style.width = `${rate ? 100 * rate.busy : 0}%`;
  if (row.details.open) showPanels(model, row, rate);
}

function stateOf(model, problems) {
  if (model.state === "LOADING") return ["Loading", "busy"];
  if (model.state === "UNLOADING") return ["Leaving", "busy"];
  if (isBroken(model)) return ["Does not serve", "bad"];
  if (model.state === "UNAVAILABLE") return ["Not loaded", "calm"];
  if (problems.some((problem) => problem.tone === "bad")) return ["Failing", "bad"];
  if (problems.some((problem) => problem.tone === "busy")) return ["Overloaded", "busy"];
  return ["Ready", "good"];
}

/** How a model is set up, in a line. */
function setUp(served) {
  const workers = served.instances === 1 ? "1 worker" : `${served.instances} workers`;
  let runs = `up to ${rowsText(served.rows_per_run)} a run`;
  if (!served.has_rows) runs = "one request a run";
  else if (served.batching === "off") runs = "batching off";
  else if (served.rows_per_run === 1) runs = "one row a run";
  return `${served.provider} · ${workers} · ${runs}`;
}

// ---- the details of a model

function showPanels(model, row, rate) {
  const served = model.served;
  if (!served) {
    row.body.replaceChildren(element("p", { class: "reason" }, model.reason || "Nothing to tell yet."));
    return;
  }
  const isAll = document.querySelector("#window input:checked").value === "start";
  const before = isAll ? null : lookBefore(MINUTE_MS);
  const made = since(served, before?.status.byKey.get(keyOf(model))?.served);
  const known = isAll || before !== null;
  const at = looks.at(-1).at;
  row.body.replaceChildren(
    panel("Load", "a second", trendPlot(trends.get(keyOf(model)) ?? [], at), legend()),
    timesPanel(known ? made : null),
    endingsPanel(known ? made : null),
    sizesPanel(known ? made : null, served),
    costsPanel(costs.get(keyOf(model)), served),
    aboutPanel(served, rate, costs.get(keyOf(model))),
  );
}

function panel(title, unit, ...children) {
  const heading = element("h3", {}, title);
  if (unit) heading.append(" ", element("small", {}, unit));
  return element("section", { class: "panel" }, heading, ...children);
}

function legend() {
  return element("p", { class: "legend" },
    element("span", { class: "key answered" }, "answered"), " ",
    element("span", { class: "key unanswered" }, "not answered"));
}

const quiet = (text) => element("p", { class: "quiet" }, text);

function timesPanel(made) {
  if (!made?.answered && !made?.runs) return panel("Time", "", quiet("No requests in this time."));
  const kinds = [["request", "Request"], ["queue", "Waiting"], ["execution", "Run"]];
  const parts = [0.5, 0.9, 0.99];
  const head = element("tr", {}, element("td"), ...parts.map((part) => element("th", { scope: "col" }, `p${100 * part}`)));
  const body = kinds.map(([key, title]) => {
    const cells = parts.map((part) => element("td", { "data-time": `${key} p${100 * part}` }, time(percentile(made[key], part))));
    return element("tr", {}, element("th", { scope: "row" }, title), ...cells);
  });
  const table = element("table", { class: "times" }, element("thead", {}, head), element("tbody", {}, ...body));
  return panel("Time", "p90: nine of ten take no longer", table, timesPlot(made, kinds, parts));
}

/** The same on a logarithmic scale, for the eye alone. */
function timesPlot(made, kinds, parts) {
  const { width, left } = FRAME;
  const values = kinds.flatMap(([key]) => parts.map((part) => percentile(made[key], part))).filter((value) => value !== null);
  const low = 10 ** Math.floor(Math.log10(Math.max(Math.min(...values), 1)));
  const high = Math.max(10 ** Math.ceil(Math.log10(Math.max(...values, 1))), low * 10);
  const height = 84;
  const x = (value) => left + (Math.log10(Math.max(value, low) / low) / Math.log10(high / low)) * (width - left - 24);
  const pieces = [];
  const ticks = [];
  for (let tick = low; tick <= high * 1.01; tick *= 10) ticks.push(tick);
  if (ticks.length === 2) ticks.push(2 * low, 5 * low);
  for (const tick of ticks) {
    pieces.push(drawn("line", { x1: x(tick), x2: x(tick), y1: 4, y2: height - 20, class: "grid" }));
    pieces.push(drawn("text", { x: x(tick), y: height - 5, "text-anchor": "middle" }, time(tick)));
  }
  for (const [index, [key, title]] of kinds.entries()) {
    const y = 14 + index * 20;
    const marks = parts.map((part) => percentile(made[key], part));
    pieces.push(drawn("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, title));
    if (marks[0] === null) continue;
    pieces.push(drawn("line", { x1: x(marks[0]), x2: x(marks[2]), y1: y, y2: y, class: "span" }));
    for (const [place, value] of marks.entries()) {
      pieces.push(drawn("circle", { cx: x(value), cy: y, r: 4.5, class: `shade${place + 1} chosen` }));
    }
  }
  return drawn("svg", { viewBox: `0 0 ${width} ${height}`, class: "plot", "aria-hidden": "true" }, ...pieces);
}

/** A list of counts with bars. */
function bars(items, whole) {
  const most = Math.max(...items.map(({ number }) => number));
  return element("ul", { class: "bars" }, ...items.map(({ title, number, tone, id }) => {
    const bar = element("span", { class: "fill" });
    bar.style.width = `${(100 * number) / most}%`;
    const counted = element("span", { class: "number" }, grouped(number));
    const attributes = { "data-tone": tone ?? "plain", "data-bar": id };
    return element("li", attributes, element("span", { class: "title" }, title), " ", counted, " ", element("span", { class: "share" }, share(number, whole)), element("span", { class: "track", "aria-hidden": "true" }, bar));
  }));
}

function endingsPanel(made) {
  if (!made?.ended) return panel("How requests ended", "", quiet("No requests in this time."));
  const known = Object.entries(ENDINGS).map(([id, [title, tone]]) => ({ id, title, tone, number: made.requests[id] ?? 0 }));
  const items = known.filter(({ number, id }) => number > 0 || id === "ok");
  return panel("How requests ended", `${grouped(made.ended)} in all`, bars(items, made.ended));
}

function sizesPanel(made, served) {
  const title = "Rows in a run";
  if (!made?.runs) return panel(title, "", quiet("No runs in this time."));
  const groups = new Map();
  for (const [rows, runs] of made.run_rows) {
    const top = 2 ** Math.ceil(Math.log2(Math.max(rows, 1)));
    groups.set(top, (groups.get(top) ?? 0) + runs);
  }
  const sorted = [...groups].sort(([a], [b]) => a - b);
  const items = sorted.map(([top, number]) => ({ id: String(top), number, title: top <= 2 ? rowsText(top) : `${top / 2 + 1} to ${top} rows` }));
  const mean = made.rows / made.runs;
  const note = served.has_rows ? `${+mean.toPrecision(3)} in the mean` : "requests run one at a time";
  return panel(title, `${grouped(made.runs)} runs, ${note}`, bars(items, made.runs));
}

/** The size at which a row costs the least, which is what is run where so many wait. */
function chosenText(known) {
  if (known.row_costs.length !== 1) return "chosen: where a row costs the least";
  const [{ length, rows }] = known.row_costs;
  const point = known.points.find((each) => each.length === length && each.rows === rows);
  return `chosen: ${rowsText(rows)}${point ? `, ${time(point.micros / rows)} each` : ""}`;
}

const COST_ORIGINS = { file: "a file beside the model", first_runs: "first runs at start", nothing: "runs alone" };

function costsPanel(known, served) {
  const title = "What a row costs";
  if (!known) return panel(title, "", quiet("Asking …"));
  if (known.points.length === 0) return panel(title, "", quiet("Not known yet: it is learned from runs."));
  const made = costPlot(known);
  if (!made) {
    const point = known.points[0];
    return panel(title, "", quiet(`A run of ${rowsText(point.rows)} takes ${time(point.micros)}. Larger runs did not pay, or were not tried.`));
  }
  const notes = element("p", { class: "legend" }, element("span", { class: "key ring" }, chosenText(known)));
  if (made.of > 1) notes.append(element("br"), `A line for each length of rows${made.shown < made.of ? `, ${made.shown} of ${made.of}` : ""}.`);
  const unit = served.batching === "auto" ? `by rows in a run; now ${rowsText(known.rows_per_run)}` : "by rows in a run";
  return panel(title, unit, made.picture, notes);
}

function aboutPanel(served, rate, known) {
  const facts = [
    ["Runs on", served.provider],
    ["Workers", `${served.instances}, ${served.running} in a run${served.hung ? `, ${served.hung} too long` : ""}`],
    ["Batching", served.has_rows ? `${served.batching}, ${setUp(served).split(" · ")[2]}` : "none: requests run one at a time"],
  ];
  if (known) facts.push(["Costs known from", COST_ORIGINS[known.begun_with] ?? known.begun_with]);
  const { hits = 0, misses = 0, coalesced = 0, bytes: kept } = served.cache ?? {};
  if (served.cache) {
    facts.push(["Kept answers", `${bytes(kept)}, used for ${share(hits + coalesced, hits + misses + coalesced)} of requests`]);
  }
  facts.push(["Failed runs", grouped(served.failed_runs)], ["Rebuilt workers", grouped(served.panics)]);
  const list = facts.flatMap(([title, text]) => [element("dt", {}, title), element("dd", {}, text)]);
  return panel("Set-up", "", element("dl", {}, ...list));
}

// ---- what the operator does

byId("pause").addEventListener("click", () => {
  paused = !paused;
  write(byId("pause"), paused ? "Go on" : "Pause");
  if (!paused) poll();
  else {
    clearTimeout(timer);
    show();
  }
});

byId("window").addEventListener("change", show);
byId("filter").addEventListener("input", show);

byId("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim() || null;
  byId("token").value = "";
  write(byId("refusal"), "");
  poll();
});

/** A problem leads to its model, opened. */
byId("problems").addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link) return;
  const row = rows.get(link.getAttribute("href").slice(1));
  if (!row) return;
  event.preventDefault();
  row.details.hidden = false;
  row.details.open = true;
  row.details.scrollIntoView({ block: "nearest" });
  row.details.firstElementChild.focus();
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(timer);
    asking?.abort();
  } else if (!paused) poll();
});

poll();
