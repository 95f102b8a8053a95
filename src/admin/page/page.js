// The operator's page. Asks the server every two seconds for its sums since start, and shows what
// became of them meanwhile. Holds the token, if one is needed, in a variable and nowhere else.

import {
  bytes,
  count,
  grouped,
  lasting,
  percentile,
  rounded,
  share,
  since,
  time,
  total,
} from "./numbers.js";
import { TREND_MS, element, mark, spark, write } from "./plots.js";
import {
  aboutPanel,
  costsPanel,
  endingsPanel,
  loadPanel,
  setUp,
  sizesPanel,
  timesPanel,
} from "./details.js";

const POLL_MS = 2000;
const PATIENCE_MS = 5000;
const RATE_MS = 10_000; // rates are means of so long
const MINUTE_MS = 60_000;
const COSTS_EVERY = 5; // polls

const REFUSED = ["congested", "too_little_time", "full"];
const LATE = ["late_at_arrival", "late_in_queue", "late_in_execution"];
const BROKEN = ["failed", "unavailable"]; // the others are up to the caller

const byId = (id) => document.getElementById(id);

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

const keyOf = (model) => `${model.name}/${model.version}`;

/** Asks the server, until it takes too long or a signal ends it. */
async function ask(path, ...signals) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const signal = AbortSignal.any([...signals, AbortSignal.timeout(PATIENCE_MS)]);
  return fetch(path, { headers, signal, cache: "no-store" });
}

async function poll() {
  clearTimeout(timer);
  asking?.abort();
  const mine = (asking = new AbortController());
  try {
    await look(mine.signal);
    failedSince = null;
  } catch (error) {
    if (mine !== asking || mine.signal.aborted) return;
    failedSince ??= Date.now();
  }
  if (mine !== asking) return;
  show();
  if (!paused && !document.hidden)
    timer = setTimeout(poll, looks.length < 2 ? POLL_MS / 2 : POLL_MS);
}

async function look(signal) {
  const guarded = !byId("access").hidden && token === null;
  const answer = guarded ? { status: 401 } : await ask("status", signal);
  if (answer.status === 401) {
    if (token !== null) {
      write(byId("refusal"), "The server does not know this token, or takes it no more.");
      byId("token").focus();
    }
    token = null;
    byId("access").hidden = false;
    const ready = await (await ask("readyz", signal)).json();
    take({ ...ready, limited: true });
    return;
  }
  if (!answer.ok) throw new Error(`status: ${answer.status}`);
  const status = await answer.json();
  byId("access").hidden = true;
  write(byId("refusal"), "");
  take(status);
  const isOpen = [...rows.values()].some((row) => row.details.open);
  if (isOpen && turn % COSTS_EVERY === 0) await askCosts(signal);
  turn += 1;
}

async function askCosts(...signals) {
  const told = await ask("costs", ...signals);
  if (told.ok) costs = new Map((await told.json()).models.map((model) => [keyOf(model), model]));
}

/** Takes a look among those that are kept. */
function take(status) {
  const at = performance.now();
  const last = looks.at(-1)?.status;
  const isOther =
    last && (last.limited !== status.limited || last.uptime_seconds > status.uptime_seconds);
  if (isOther) {
    looks = [];
    trends = new Map();
  }
  status.byKey = new Map(status.models.map((model) => [keyOf(model), model]));
  looks.push({ at, status, clock: Date.now() });
  while (looks.length > 2 && at - looks[1].at >= MINUTE_MS) looks.shift();
  const sums = { answered: 0, unanswered: 0, blamed: 0, rows: 0, waiting: 0 };
  for (const model of status.models) {
    if (!model.served) continue;
    const rate = rates(model);
    sums.waiting += model.served.waiting;
    if (!rate) continue;
    for (const key of ["answered", "unanswered", "blamed", "rows"]) sums[key] += rate[key];
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

/** The share of its time that a worker spends in runs. Those that last longer count as they are. */
function busyShare(now, made, before, seconds) {
  const inLongRuns = made.runs ? 0 : Math.min(now.running, before?.running ?? 0);
  return Math.min((made.busy / seconds + inLongRuns) / now.instances, 1);
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
    blamed: count(made, [...REFUSED, ...LATE, ...BROKEN]) / seconds,
    busy: busyShare(model.served, made, before.status.byKey.get(keyOf(model))?.served, seconds),
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
  const add = (tone, short, text, key) =>
    found.push({ id: `${key ?? ""} ${short}`, tone, short, text, key });
  collect(status, add);
  return found.sort((a, b) => TONES.indexOf(a.tone) - TONES.indexOf(b.tone));
}

function collect(status, add) {
  if (failedSince !== null) {
    const age = lasting(Math.max((Date.now() - failedSince) / 1000, 1));
    add(
      "bad",
      "The server does not answer",
      `The server has not answered for ${age}. What is shown is older.`,
    );
  }
  if (!status) return;
  if (status.draining) {
    add("busy", "The server is stopping", "The server is stopping. It answers what it has taken.");
  } else if (!status.ready) {
    const isLoading =
      status.models.some((model) => model.state === "LOADING") || !status.models.length;
    if (isLoading) add("calm", LOADING, "Models are being loaded. The server is not ready yet.");
    else add("bad", "The server is not ready", "The server is not ready: no model serves.");
  }
  const memory = status.memory;
  if (memory && memory.held_bytes > 0.9 * memory.limit_bytes) {
    const text =
      "Requests hold almost all the memory that they may. Smaller or fewer at a time, or a higher request_memory_bytes.";
    add("bad", "Memory for requests is almost full", text);
  }
  for (const model of status.models) {
    const key = keyOf(model);
    if (isBroken(model))
      add("bad", "does not serve", `does not serve: ${model.reason || "no reason told"}`, key);
    if (model.served) judge(model, key, add);
  }
}

function judge(model, key, add) {
  const { hung, instances } = model.served;
  if (hung > 0) {
    add(
      "bad",
      "has workers that hang",
      `has ${hung} of ${instances} workers in runs that last too long.`,
      key,
    );
  }
  const minute = lookBefore(MINUTE_MS);
  const made = minute && since(model.served, minute.status.byKey.get(key)?.served);
  if (made?.panics) {
    const times = made.panics === 1 ? "once" : `${made.panics} times`;
    add(
      "bad",
      "had to rebuild workers",
      `had to rebuild a worker ${times} in the last minute. The log says why.`,
      key,
    );
  }
  if (made?.requests.failed) {
    const text = `failed ${grouped(made.requests.failed)} ${made.requests.failed === 1 ? "request" : "requests"} in the last minute. The log says why.`;
    add("bad", "fails requests", text, key);
  }
  const rate = rates(model);
  if (!rate) return;
  const [refused, late] = [count(rate.made, REFUSED), count(rate.made, LATE)];
  const often = (number) =>
    `${rounded(number / rate.seconds)} requests a second, ${share(number, rate.made.ended)} of all`;
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
  else if (!status?.ready)
    [text, tone] = ["Not ready", problems.some((each) => each.short === LOADING) ? "busy" : "bad"];
  else if (worst === "bad") [text, tone] = ["Needs attention", "bad"];
  else if (worst === "busy") [text, tone] = ["Overloaded", "busy"];
  write(verdict, text);
  mark(verdict, "tone", tone);
  const serious = problems.filter((problem) => problem.tone !== "calm").length;
  const title = `${serious ? `(${serious}) ` : ""}onnxd ${location.host}`;
  if (document.title !== title) document.title = title;
  const facts = [location.host];
  if (status?.version) {
    facts.push(
      `version ${status.version}`,
      status.runtime.split(" (")[0],
      `up ${lasting(status.uptime_seconds)}`,
    );
    byId("facts").title = status.runtime;
  }
  write(byId("facts"), facts.join(" · "));
  const last = looks.at(-1);
  const clock = last && new Date(last.clock).toLocaleTimeString([], { hour12: false });
  write(
    byId("updated"),
    last ? `${paused ? "Paused" : "As of"} ${paused ? "at " : ""}${clock}` : "",
  );
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
      place.append(
        element(
          "div",
          { class: "tile", "data-tile": key },
          element("h2", {}, title),
          value,
          element("p", { class: "note" }),
        ),
      );
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
  fill(
    "answered",
    rate("answered"),
    "a second",
    `${sinceStart((model) => model.requests.ok)} since start`,
    "calm",
    draw("answered"),
  );
  fill(
    "rows",
    rate("rows"),
    "a second",
    `${sinceStart((model) => model.rows)} since start`,
    "calm",
    draw("rows"),
  );
  const lost = now && now.unanswered > 0;
  const part = lost ? `${share(now.unanswered, now.unanswered + now.answered)} of all; ` : "";
  fill(
    "unanswered",
    rate("unanswered"),
    "a second",
    `${part}${sinceStart((model) => all(model) - model.requests.ok)} since start`,
    now?.blamed ? "busy" : "calm",
    draw("unanswered"),
  );
  const waiting = total(served.map((model) => model.served.waiting));
  const running = total(served.map((model) => model.served.running));
  const workers = total(served.map((model) => model.served.instances));
  fill(
    "waiting",
    grouped(waiting),
    waiting === 1 ? "request" : "requests",
    `${running} of ${workers} workers in a run`,
    "calm",
    draw("waiting"),
  );
  const { held_bytes: held, limit_bytes: limit } = status.memory;
  fill(
    "memory",
    bytes(held),
    "held",
    `${share(held, limit)} of ${bytes(limit)}`,
    held > 0.9 * limit ? "bad" : "calm",
    draw("held"),
  );
}

const VALUES = ["answered", "rows", "busy", "waiting", "p99", "unanswered"];
const LABELS = {
  answered: "Answered",
  rows: "Rows",
  busy: "Workers busy",
  waiting: "Waiting",
  p99: "p99 time",
  unanswered: "Not answered",
};

/** The part of the page that a model version has. */
function rowOf(key) {
  if (rows.has(key)) return rows.get(key);
  const [name, version] = [key.slice(0, key.lastIndexOf("/")), key.slice(key.lastIndexOf("/") + 1)];
  const state = element("span", { class: "badge" });
  const note = element("span", { class: "note" });
  const who = element(
    "span",
    { class: "who" },
    element(
      "span",
      { class: "name" },
      element("b", {}, name),
      element("span", {}, `/${version}`),
      " ",
      state,
    ),
    note,
  );
  const values = Object.fromEntries(
    VALUES.map((value) => [value, element("span", { class: "value", "data-value": value })]),
  );
  const cells = VALUES.map((value) => {
    const cell = element(
      "span",
      { class: "cell" },
      element("span", { class: "label" }, LABELS[value]),
      " ",
      values[value],
    );
    if (value === "busy")
      cell.append(element("span", { class: "bar", "aria-hidden": "true" }, element("span")));
    return cell;
  });
  const summary = element("summary", {}, element("span", { class: "row" }, who, ...cells));
  const body = element("div", { class: "panels" });
  const details = element("details", { id: key }, summary, body);
  details.addEventListener("toggle", () => {
    const isUnknown = details.open && !costs.has(key) && !details.classList.contains("idle");
    show();
    // Without an answer, the next look asks again.
    if (isUnknown) askCosts().then(show, () => (turn = 0));
  });
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
  const wanted = byId("filter").hidden
    ? ""
    : byId("filter").querySelector("input").value.toLowerCase();
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
    if (list.children[index] !== row.details)
      list.insertBefore(row.details, list.children[index] ?? null);
    row.details.hidden = !key.toLowerCase().includes(wanted);
    if (isNew && status.models.length <= FEW_MODELS && !status.limited && model.served)
      row.details.open = true;
    showModel(
      model,
      row,
      problems.filter((problem) => problem.key === key),
    );
  });
}

function showModel(model, row, problems) {
  const [text, tone] = stateOf(model, problems);
  write(row.state, text);
  mark(row.state, "tone", tone);
  const served = model.served;
  row.details.classList.toggle("idle", !served);
  write(row.note, served ? setUp(served) : model.reason === "unloaded" ? "" : (model.reason ?? ""));
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
  put("unanswered", a(rate?.unanswered), !rate?.unanswered, rate?.blamed ? "busy" : "calm");
  row.bar.style.width = `${rate ? 100 * rate.busy : 0}%`;
  if (row.details.open) showPanels(model, row);
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

function showPanels(model, row) {
  const served = model.served;
  if (!served) {
    const isLimited = Boolean(looks.at(-1).status.limited);
    const nothing = isLimited ? "With a token there is more to see." : "Nothing to tell yet.";
    row.body.replaceChildren(element("p", { class: "reason" }, model.reason || nothing));
    return;
  }
  const isAll = document.querySelector("#window input:checked").value === "start";
  const before = isAll ? null : lookBefore(MINUTE_MS);
  const made = since(served, before?.status.byKey.get(keyOf(model))?.served);
  const known = isAll || before !== null;
  const at = looks.at(-1).at;
  row.body.replaceChildren(
    loadPanel(trends.get(keyOf(model)) ?? [], at),
    timesPanel(known ? made : null),
    endingsPanel(known ? made : null),
    sizesPanel(known ? made : null, served),
    costsPanel(costs.get(keyOf(model)), served),
    aboutPanel(served, costs.get(keyOf(model))),
  );
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
