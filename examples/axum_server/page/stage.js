// What only a stand-in for Neon can do. The sections are hidden until the server tells that it is in front of one.

import { $, ago, ask, once, write } from "./dom.js";
import { drawPlot } from "./plot.js";
import { drawTimeline } from "./timeline.js";

/** How long a time the plots show, in milliseconds. */
const SPAN = 60_000;
const NAMES = { ours: "diesel-neon", stock: "bb8 and diesel-async" };

let compute = { compute: [], marks: [] };
let samples = [];
/** The server's clock is this much ahead of the page's. */
let ahead = 0;

const serverNow = () => performance.now() + ahead;

export function openStage(on) {
  on("stage", switches);
  on("compute", (told) => {
    ahead = told.now - performance.now();
    compute = told;
    draw();
  });
  on("load", (told) => {
    ahead = told.now - performance.now();
    samples = told.all ? told.samples : samples.concat(told.samples);
    samples = samples.slice(-240);
    draw();
  });
  for (const button of document.querySelectorAll("[data-action]")) button.addEventListener("click", () => press(button));
  $("load").addEventListener("click", () => act($("load"), { action: "load", on: !isOn($("load")) }));
  setInterval(draw, 1000);
  addEventListener("resize", draw);
}

const isOn = (button) => button.getAttribute("aria-pressed") === "true";

function press(button) {
  const { action, how } = button.dataset;
  const order = { action };
  if (how !== undefined) order.how = how;
  if (button.hasAttribute("aria-pressed")) order.on = !isOn(button);
  act(button, order);
}

function act(button, order) {
  once(button, async () => {
    try {
      // Whether a switch is on is told by the server's events alone, which come in their order.
      await ask("POST", "/stage", order);
      write($("trouble-said"), button === $("load") ? "" : said(button, order));
    } catch (refusal) {
      write($("trouble-said"), refusal.message);
    }
  });
}

function said(button, order) {
  if (order.on !== undefined) return `${button.firstChild.textContent.trim()}: ${order.on ? "on" : "off"}.`;
  if (order.action === "restart") return "Postgres has restarted.";
  return `The compute is suspended: ${button.querySelector("small").textContent}.`;
}

/** Shows what is on; `told` is null in front of a real database, as the server may be after a restart. */
function switches(told) {
  for (const section of ["compute", "race", "trouble"]) $(section).hidden = told === null;
  if (told === null) return;
  for (const button of document.querySelectorAll("[data-action][aria-pressed]")) {
    button.setAttribute("aria-pressed", `${told[button.dataset.action]}`);
  }
  $("load").setAttribute("aria-pressed", `${told.load}`);
  $("looks-after").hidden = !told.looks_after_silence;
  label();
  draw();
}

/** The pressed state says whether there is load; the words say what a press does. */
const label = () => write($("load"), isOn($("load")) ? "Stop the load" : "Start the load");

function draw() {
  if ($("compute").hidden) return;
  const now = serverNow();
  const last = compute.compute.at(-1);
  if (last !== undefined) {
    $("state").dataset.state = last[1];
    write($("state-name"), last[1]);
    write($("state-time"), now - last[0] < 1000 ? "" : `since ${ago(now - last[0]).replace(" ago", "")}`);
  }
  drawTimeline($("timeline"), compute, now);
  plots(now);
}

function plots(now) {
  const total = samples.at(-1) ?? [0, 0, 0, 0, 0];
  const shown = ["ours-answers", "ours-failures", "stock-answers", "stock-failures"];
  shown.forEach((id, at) => {
    write($(id), total[at + 1].toLocaleString("en"));
    $(id).classList.toggle("some", at % 2 === 1 && total[at + 1] > 0);
  });
  drawPlot($("answers"), "Answers per second", series(1, 3), now, SPAN);
  drawPlot($("failures"), "Failures per second", series(2, 4), now, SPAN);
}

/** Returns a series of rates for each pool, of two columns of the totals. */
function series(ours, stock) {
  return [
    { kind: "stock", name: NAMES.stock, points: rates(stock) },
    { kind: "ours", name: NAMES.ours, points: rates(ours) },
  ];
}

function rates(column) {
  const points = [];
  for (let at = 1; at < samples.length; at += 1) {
    const [before, after] = [samples[at - 1], samples[at]];
    const seconds = (after[0] - before[0]) / 1000;
    // Between two loads there is a gap.
    if (seconds > 3) points.push([after[0], null]);
    else if (seconds > 0) points.push([after[0], (after[column] - before[column]) / seconds]);
  }
  return points;
}
