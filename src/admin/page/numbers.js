// Numbers: as text, and what became of the server's sums between two looks.

export const total = (numbers) => numbers.reduce((sum, each) => sum + each, 0);
/** A sum that is smaller than before has begun anew. */
const grown = (now, before) => (now >= before ? now - before : now);

// ---- as text

export const grouped = (count) => count.toLocaleString("en");

export function rounded(value) {
  if (value >= 9_999_500) return `${+(value / 1e6).toPrecision(3)}M`;
  if (value >= 9_999.5) return `${+(value / 1e3).toPrecision(3)}k`;
  return value >= 9.95 ? grouped(Math.round(value)) : String(+value.toFixed(1));
}

export function time(micros) {
  if (micros === null || micros === undefined) return "–";
  if (micros < 999.5) return `${+micros.toPrecision(3)} µs`;
  if (micros < 999_500) return `${+(micros / 1e3).toPrecision(3)} ms`;
  return `${+(micros / 1e6).toPrecision(3)} s`;
}

export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${+count.toPrecision(3)} ${units[unit]}`;
}

export function share(part, whole) {
  if (!whole || !part) return "0 %";
  const percent = (100 * part) / whole;
  if (percent < 0.1) return "< 0.1 %";
  return percent >= 99.95 || percent === Math.round(percent)
    ? `${Math.round(percent)} %`
    : `${percent.toFixed(1)} %`;
}

export function lasting(seconds) {
  const parts = [
    [86_400, "d"],
    [3600, "h"],
    [60, "min"],
    [1, "s"],
  ];
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
export const rowsText = (rows) => (rows === 1 ? "1 row" : `${grouped(rows)} rows`);

// ---- between two looks

/** Pairs of a value and a count, less those that were there before. */
function pairsSince(now, before) {
  const old = new Map(before);
  const pairs = now.map(([value, count]) => [value, grown(count, old.get(value) ?? 0)]);
  return pairs.filter(([, count]) => count > 0);
}

/** The value that so large a share of the counts does not exceed; `null` without counts. */
export function percentile(pairs, part) {
  const wanted = total(pairs.map(([, count]) => count)) * part;
  let seen = 0;
  for (const [value, count] of pairs) {
    seen += count;
    if (seen >= wanted) return value;
  }
  return null;
}

/** What a model did between two looks; since its start if there is no look before. */
export function since(now, before) {
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

export const count = (made, endings) => total(endings.map((ending) => made.requests[ending] ?? 0));
