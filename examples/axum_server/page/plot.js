// A plot of rates over time, drawn by hand.

import { shape } from "./dom.js";

const LEFT = 38;
const BOTTOM = 20;
const TOP = 8;

/** Draws a line for each series; `points` are moments and values, and a value of `null` is a gap. */
export function drawPlot(svg, title, series, now, span) {
  const width = Math.max(svg.clientWidth, 240);
  const height = svg.clientHeight || 132;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const visible = series.map((one) => ({ ...one, points: one.points.filter(([at]) => at >= now - span) }));
  const most = Math.max(0, ...visible.flatMap((one) => one.points.map(([, value]) => value ?? 0)));
  const top = niceTop(most);
  const x = (at) => LEFT + (1 - (now - at) / span) * (width - LEFT - 4);
  const y = (value) => TOP + (1 - value / top) * (height - TOP - BOTTOM);

  const parts = [];
  for (const value of [0, top / 2, top]) {
    parts.push(shape("line", { class: "grid", x1: LEFT, x2: width, y1: y(value), y2: y(value) }));
    parts.push(shape("text", { class: "axis", x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, `${value}`));
  }
  const seconds = span / 1000;
  parts.push(shape("text", { class: "axis", x: LEFT, y: height - 4 }, `${seconds} s ago`));
  parts.push(shape("text", { class: "axis", x: width - 2, y: height - 4, "text-anchor": "end" }, "now"));
  for (const one of visible) {
    const path = line(one.points, x, y);
    if (path === "") continue;
    parts.push(shape("path", { class: `area ${one.kind}`, d: area(one.points, x, y) }));
    parts.push(shape("path", { class: `curve ${one.kind}`, d: path }));
  }
  svg.replaceChildren(...parts);
  const last = visible.map((one) => `${one.name} ${Math.round(one.points.at(-1)?.[1] ?? 0)}`).reverse();
  svg.setAttribute("aria-label", `${title}: ${last.join(", ")} now; at most ${Math.round(most)} in the last ${seconds} s`);
}

/** Splits points at their gaps. */
function runs(points) {
  const runs = [[]];
  for (const point of points) {
    if (point[1] === null) runs.push([]);
    else runs.at(-1).push(point);
  }
  return runs.filter((run) => run.length > 0);
}

function line(points, x, y) {
  const run = (run) => run.map(([at, value], place) => `${place === 0 ? "M" : "L"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`);
  return runs(points).map((points) => run(points).join("")).join("");
}

function area(points, x, y) {
  const run = (run) => `${line(run, x, y)}L${x(run.at(-1)[0]).toFixed(1)} ${y(0)}L${x(run[0][0]).toFixed(1)} ${y(0)}Z`;
  return runs(points).map(run).join("");
}

/** Returns an even number that is easy to read, and no less than `most`. */
function niceTop(most) {
  if (most <= 2) return 2;
  const unit = 10 ** Math.floor(Math.log10(most));
  const step = [1, 2, 4, 6, 8, 10].find((step) => step * unit >= most);
  return Math.max(2, step * unit);
}
