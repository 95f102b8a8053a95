// The details of a model: a panel for each question.

import { bytes, grouped, percentile, rowsText, share, time } from "./numbers.js";
import { costPlot, element, timesPlot, trendPlot } from "./plots.js";

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

/** How a model is set up, in a line. */
export function setUp(served) {
  const workers = served.instances === 1 ? "1 worker" : `${served.instances} workers`;
  let runs = `up to ${rowsText(served.rows_per_run)} a run`;
  if (!served.has_rows) runs = "one request a run";
  else if (served.batching === "off") runs = "batching off";
  else if (served.rows_per_run === 1) runs = "one row a run";
  return `${served.provider} · ${workers} · ${runs}`;
}

export function loadPanel(trend, now) {
  return panel("Load", "a second", trendPlot(trend, now), legend());
}

function panel(title, unit, ...children) {
  const heading = element("h3", {}, title);
  if (unit) heading.append(" ", element("small", {}, unit));
  return element("section", { class: "panel" }, heading, ...children);
}

function legend() {
  return element(
    "p",
    { class: "legend" },
    element("span", { class: "key answered" }, "answered"),
    " ",
    element("span", { class: "key unanswered" }, "not answered"),
  );
}

const quiet = (text) => element("p", { class: "quiet" }, text);

export function timesPanel(made) {
  if (!made?.answered && !made?.runs) return panel("Time", "", quiet("No requests in this time."));
  const kinds = [
    ["request", "Request"],
    ["queue", "Waiting"],
    ["execution", "Run"],
  ];
  const parts = [0.5, 0.9, 0.99];
  const head = element(
    "tr",
    {},
    element("td"),
    ...parts.map((part) => element("th", { scope: "col" }, `p${100 * part}`)),
  );
  const body = kinds.map(([key, title]) => {
    const cells = parts.map((part) =>
      element("td", { "data-time": `${key} p${100 * part}` }, time(percentile(made[key], part))),
    );
    return element("tr", {}, element("th", { scope: "row" }, title), ...cells);
  });
  const table = element(
    "table",
    { class: "times" },
    element("thead", {}, head),
    element("tbody", {}, ...body),
  );
  return panel("Time", "p90: nine of ten take no longer", table, timesPlot(made, kinds, parts));
}

/** A list of counts with bars. */
function bars(items, whole) {
  const most = Math.max(...items.map(({ number }) => number));
  return element(
    "ul",
    { class: "bars" },
    ...items.map(({ title, number, tone, id }) => {
      const bar = element("span", { class: "fill" });
      bar.style.width = `${(100 * number) / most}%`;
      const counted = element("span", { class: "number" }, grouped(number));
      const attributes = { "data-tone": tone ?? "plain", "data-bar": id };
      return element(
        "li",
        attributes,
        element("span", { class: "title" }, title),
        " ",
        counted,
        " ",
        element("span", { class: "share" }, share(number, whole)),
        element("span", { class: "track", "aria-hidden": "true" }, bar),
      );
    }),
  );
}

export function endingsPanel(made) {
  if (!made?.ended) return panel("How requests ended", "", quiet("No requests in this time."));
  const known = Object.entries(ENDINGS).map(([id, [title, tone]]) => ({
    id,
    title,
    tone,
    number: made.requests[id] ?? 0,
  }));
  const items = known.filter(({ number, id }) => number > 0 || id === "ok");
  return panel("How requests ended", `${grouped(made.ended)} in all`, bars(items, made.ended));
}

export function sizesPanel(made, served) {
  const title = "Rows in a run";
  if (!made?.runs) return panel(title, "", quiet("No runs in this time."));
  const groups = new Map();
  for (const [rows, runs] of made.run_rows) {
    const top = 2 ** Math.ceil(Math.log2(Math.max(rows, 1)));
    groups.set(top, (groups.get(top) ?? 0) + runs);
  }
  const sorted = [...groups].sort(([a], [b]) => a - b);
  const items = sorted.map(([top, number]) => ({
    id: String(top),
    number,
    title: top <= 2 ? rowsText(top) : `${top / 2 + 1} to ${top} rows`,
  }));
  const mean = made.rows / made.runs;
  const note = served.has_rows
    ? `${+mean.toPrecision(3)} in the mean`
    : "requests run one at a time";
  return panel(title, `${grouped(made.runs)} runs, ${note}`, bars(items, made.runs));
}

/** The size at which a row costs the least, which is what is run where so many wait. */
function chosenText(known) {
  if (known.row_costs.length !== 1) return "chosen: where a row costs the least";
  const [{ length, rows, micros }] = known.row_costs;
  const point = known.points.find((each) => each.length === length && each.rows === rows);
  return `chosen: ${rowsText(rows)}, ${time(point ? point.micros / rows : micros)} each`;
}

const COST_ORIGINS = {
  file: "a file beside the model",
  first_runs: "first runs at start",
  nothing: "runs alone",
};

export function costsPanel(known, served) {
  const title = "What a row costs";
  if (!known) return panel(title, "", quiet("Asking …"));
  if (known.points.length === 0)
    return panel(title, "", quiet("Not known yet: it is learned from runs."));
  const made = costPlot(known);
  if (!made) {
    const point = known.points[0];
    return panel(
      title,
      "",
      quiet(
        `A run of ${rowsText(point.rows)} takes ${time(point.micros)}. Larger runs did not pay, or were not tried.`,
      ),
    );
  }
  const notes = element(
    "p",
    { class: "legend" },
    element("span", { class: "key ring" }, chosenText(known)),
  );
  if (made.of > 1)
    notes.append(
      element("br"),
      `A line for each length of rows${made.shown < made.of ? `, ${made.shown} of ${made.of}` : ""}.`,
    );
  const unit =
    served.batching === "auto"
      ? `by rows in a run; now ${rowsText(known.rows_per_run)}`
      : "by rows in a run";
  return panel(title, unit, made.picture, notes);
}

function batchingText({ batching, rows_per_run: rows }) {
  return batching === "off" ? "off" : `${batching}, up to ${rowsText(rows)} a run`;
}

export function aboutPanel(served, known) {
  const facts = [
    ["Runs on", served.provider],
    [
      "Workers",
      `${served.instances}, ${served.running} in a run${served.hung ? `, ${served.hung} too long` : ""}`,
    ],
    ["Batching", served.has_rows ? batchingText(served) : "none: requests run one at a time"],
  ];
  if (known) facts.push(["Costs known from", COST_ORIGINS[known.begun_with] ?? known.begun_with]);
  const { hits = 0, misses = 0, coalesced = 0, bytes: kept } = served.cache ?? {};
  if (served.cache) {
    facts.push([
      "Kept answers",
      `${bytes(kept)}, used for ${share(hits + coalesced, hits + misses + coalesced)} of requests`,
    ]);
  }
  facts.push(
    ["Failed runs", grouped(served.failed_runs)],
    ["Rebuilt workers", grouped(served.panics)],
  );
  const list = facts.flatMap(([title, text]) => [
    element("dt", {}, title),
    element("dd", {}, text),
  ]);
  return panel("Set-up", "", element("dl", {}, ...list));
}
