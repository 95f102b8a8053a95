// Elements, and pictures in SVG. Whatever a picture tells stands beside it or in its label, too.

import { grouped, lasting, percentile, rounded, rowsText, time } from "./numbers.js";

export const TREND_MS = 180_000;
const LEAST_TREND_MS = 30_000;
const GAP_MS = 15_000; // trends are cut where nobody looked for so long

export function element(name, attributes = {}, ...children) {
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
export function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

export function mark(target, key, value) {
  if (target.dataset[key] !== value) target.dataset[key] = value;
}

/** The next of 1, 2, 5, 10, … */
function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value * 0.999) * power;
}

/** A path through points; `null` cuts it. */
function path(points) {
  let pen = "M";
  return points
    .map((point) => {
      if (!point) {
        pen = "M";
        return "";
      }
      const step = `${pen}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
      pen = "L";
      return step;
    })
    .join("");
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
const spanOf = (trend, now) =>
  trend.length ? Math.max(now - trend[0].at, LEAST_TREND_MS) : LEAST_TREND_MS;

/** A small picture of a trend, for the eye alone: the number stands beside it. */
export function spark(trend, key, now) {
  const [width, height] = [120, 28];
  const [top, span] = [Math.max(...trend.map((each) => each[key]), 0) || 1, spanOf(trend, now)];
  const points = cut(trend, key).map(
    (point) =>
      point && [
        width - ((now - point[0]) / span) * width,
        height - 1.5 - (point[1] / top) * (height - 3),
      ],
  );
  const size = { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" };
  return drawn(
    "svg",
    { ...size, class: "spark", "aria-hidden": "true" },
    drawn("path", { d: path(points), class: "line" }),
  );
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

export function trendPlot(trend, now) {
  const { width, height, left, right, top, bottom } = FRAME;
  const highest = ceiling(
    Math.max(...trend.map((each) => Math.max(each.answered, each.unanswered)), 1),
  );
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
  const times = [
    [left, `${lasting(span / 1000)} ago`, "start"],
    [width - right, "now", "end"],
  ];
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
  return ends
    .sort(([[, a]], [[, b]]) => b - a)
    .map(([[x, y], text]) => {
      last = Math.min(y + 4, last - 13);
      return drawn("text", { x: x + 10, y: last }, text);
    });
}

/** All points, the chosen ones marked; a size that was chosen between measured ones is one, too. */
function chosenToo({ points, row_costs: chosen }) {
  const isChosen = (point) => {
    return chosen.some((row) => row.length === point.length && row.rows === point.rows);
  };
  const known = points.map((point) => ({ ...point, chosen: isChosen(point) }));
  const between = chosen.filter((row) => {
    return !points.some((point) => point.length === row.length && point.rows === row.rows);
  });
  const added = between.map((row) => ({ ...row, micros: row.micros * row.rows, chosen: true }));
  return [...known, ...added];
}

/** What a row costs by the rows of the run, a line for each length, the chosen size marked. */
export function costPlot(costs) {
  const all = [...new Set(costs.points.map((point) => point.length))].sort((a, b) => a - b);
  const lengths = chosenLengths(
    all.filter((length) => {
      return costs.points.filter((point) => point.length === length).length > 1;
    }),
  );
  if (lengths.length === 0) return null;
  const { width, height, left, top, bottom } = FRAME;
  const isOne = lengths.length === 1;
  const right = isOne ? 20 : 58; // room for the names of the lines
  const points = chosenToo(costs).filter((point) => lengths.includes(point.length));
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
    const places = own.map((point) => [x(point.rows), y(point.micros / point.rows)]);
    parts.push(drawn("path", { d: path(places), class: `line shade${shade}` }));
    for (const [place, { chosen, ...point }] of own.entries()) {
      const [cx, cy] = places[place];
      const text =
        `${rowsText(point.rows)}: ${time(point.micros / point.rows)} a row, ${time(point.micros)} the run` +
        (isOne ? "" : `, length ${grouped(length)}`) +
        (chosen ? ", chosen" : "");
      parts.push(
        drawn("circle", {
          cx,
          cy,
          r: chosen ? 5.5 : 3,
          class: `${chosen ? "ring" : "dot"} shade${shade}`,
        }),
      );
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
  const sizes = powers
    .filter((_, index) => index % thin === 0)
    .map((rows) => [x(rows), grouped(rows)]);
  const label = `Time a row takes, by rows in a run. ${heard.join("; ")}`;
  return {
    picture: plot(label, ...axes(ticks, sizes), ...parts),
    shown: lengths.length,
    of: all.length,
  };
}

/** The same on a logarithmic scale, for the eye alone. */
export function timesPlot(made, kinds, parts) {
  const { width, left } = FRAME;
  const values = kinds
    .flatMap(([key]) => parts.map((part) => percentile(made[key], part)))
    .filter((value) => value !== null);
  const low = 10 ** Math.floor(Math.log10(Math.max(Math.min(...values), 1)));
  const high = Math.max(10 ** Math.ceil(Math.log10(Math.max(...values, 1))), low * 10);
  const height = 84;
  const x = (value) =>
    left + (Math.log10(Math.max(value, low) / low) / Math.log10(high / low)) * (width - left - 24);
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
      pieces.push(
        drawn("circle", { cx: x(value), cy: y, r: 4.5, class: `shade${place + 1} chosen` }),
      );
    }
  }
  return drawn(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, class: "plot", "aria-hidden": "true" },
    ...pieces,
  );
}
