// The page: books by requests, all else by the server's events.

import { $, write } from "./dom.js";
import { openLibrary } from "./books.js";
import { showPool } from "./pool.js";
import { openStage } from "./stage.js";

const source = new EventSource("/events");
const on = (name, show) => source.addEventListener(name, (event) => show(JSON.parse(event.data)));

on("pool", showPool);
openStage(on);

// The server ends its answer every few seconds, and the browser asks again: only a longer silence is told.
let lost;
source.addEventListener("open", () => link("live", "live"));
source.addEventListener("error", () => {
  lost ??= setTimeout(() => link("lost", "the server does not answer"), 2000);
});

function link(state, words) {
  clearTimeout(lost);
  lost = undefined;
  $("link").dataset.state = state;
  write($("link"), words);
}

openLibrary();
