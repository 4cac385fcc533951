// The pool: a seat for each connection, and its numbers.

import { $, ago, count, element, time, write } from "./dom.js";

// In the order of the seats.
const STATES = [
  ["in_use", "in use"],
  ["checking", "being checked"],
  ["suspect", "suspect"],
  ["settling", "settling"],
  ["connecting", "connecting"],
  ["idle", "idle"],
];

let shown;
let checked;

export function showPool(pool) {
  const now = performance.now();
  const checks = pool.checks[0] + pool.checks[1];
  const before = shown === undefined ? checks : shown.checks[0] + shown.checks[1];
  if (checks > before) checked = now;
  // The server was started anew.
  else if (checks < before) checked = undefined;
  shown = { ...pool, at: now };
  seats(pool);
  const words = STATES.filter(([state]) => pool[state] > 0).map(([state, name]) => `${pool[state]} ${name}`);
  write($("pool-line"), `${pool.size} of ${count(pool.max_size, "connection")}${words.length ? ": " : ""}${words.join(", ")}`);
  write($("pool-waiting"), `${pool.waiting}`);
  const [passed, failed, skipped] = pool.checks;
  write($("pool-checks"), `${passed} passed, ${failed} failed, ${skipped} not needed`);
  const starts = pool.cold_starts > 0 ? `, ${pool.cold_starts} by cold starts` : "";
  write($("pool-opened"), pool.opened === 0 ? "none yet" : `${pool.opened}${starts}; the last took ${time(pool.last_connect_ms)}`);
  write($("pool-closed"), pool.closed);
  tick();
}

function seats(pool) {
  const states = STATES.flatMap(([state]) => Array(pool[state]).fill(state));
  const all = Math.max(pool.max_size, states.length);
  const list = $("seats");
  while (list.childElementCount < all) list.append(element("li"));
  while (list.childElementCount > all) list.lastElementChild.remove();
  [...list.children].forEach((seat, place) => (seat.dataset.state = states[place] ?? "free"));
}

/** Shows what grows older by itself. */
function tick() {
  if (shown === undefined) return;
  const now = performance.now();
  const since = (age) => ago(age + now - shown.at);
  let last = "none yet";
  if (shown.check_failure !== null) last = `failed ${since(shown.check_failed_ms)}: ${shown.check_failure}`;
  else if (checked !== undefined) last = `passed ${ago(now - checked)}`;
  else if (shown.checks[0] > 0) last = "passed";
  write($("pool-last-check"), last);
  const failure = shown.last_failure;
  write($("pool-failure"), failure === null ? "none" : `${since(shown.last_failed_ms)}: ${failure}`);
}

setInterval(tick, 1000);
