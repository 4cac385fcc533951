// The compute on a time line: awake, asleep or waking, and what was done to it.

import { shape } from "./dom.js";

/** How long a time it shows, in milliseconds. */
const SPAN = 120_000;
const HEIGHT = 84;
const BAR = 34;
const TOP = 26;

export function drawTimeline(svg, { compute, marks }, now) {
  const width = Math.max(svg.clientWidth, 240);
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  const x = (at) => Math.max(0, 1 - (now - at) / SPAN) * width;

  const parts = [shape("rect", { class: "track", x: 0, y: TOP, width, height: BAR, rx: 6 })];
  const seen = [];
  compute.forEach(([at, state], place) => {
    const end = compute[place + 1]?.[0] ?? now;
    if (end < now - SPAN) return;
    // A moment is seen, however short it was.
    const wide = Math.max(x(end) - x(at), 2);
    parts.push(shape("rect", { class: `span ${state}`, x: x(at), y: TOP, width: wide, height: BAR }));
    if (wide > 64) parts.push(shape("text", { class: `name ${state}`, x: x(at) + 10, y: TOP + BAR / 2 + 4 }, state));
    seen.push(state);
  });

  // The newest is named first; what would stand over it is only a line.
  let free = width;
  for (const [at, what] of [...marks].reverse()) {
    if (at < now - SPAN) break;
    const place = x(at);
    parts.push(shape("line", { class: "mark", x1: place, x2: place, y1: 16, y2: TOP + BAR }));
    const long = what.length * 6.6;
    const atEnd = place + long > width;
    const [from, to] = atEnd ? [place - long, place] : [place, place + long];
    if (from < 0 || to > free) continue;
    parts.push(shape("text", { class: "axis", x: place, y: 12, "text-anchor": atEnd ? "end" : "start" }, what));
    free = from - 12;
  }

  parts.push(shape("text", { class: "axis", x: 0, y: HEIGHT - 6 }, "2 min ago"));
  parts.push(shape("text", { class: "axis", x: width, y: HEIGHT - 6, "text-anchor": "end" }, "now"));
  svg.replaceChildren(...parts);
  svg.setAttribute("aria-label", `The compute in the last two minutes: ${seen.join(", then ") || "unknown"}`);
}
