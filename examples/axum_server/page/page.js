// The page: books by requests, all else by the server's events.

import { $, write } from "./dom.js";
import { openLibrary } from "./books.js";
import { showPool } from "./pool.js";
import { openStage } from "./stage.js";

const shows = new Map([["pool", showPool]]);
openStage((name, show) => shows.set(name, show));

let source;
let lost;

/** Listens while somebody can see the page: a browser has few connections to a server, for all of its tabs. */
function listen() {
  source?.close();
  if (document.hidden) return;
  source = new EventSource("/events");
  for (const [name, show] of shows) source.addEventListener(name, (event) => show(JSON.parse(event.data)));
  source.addEventListener("open", () => link("live", "live"));
  // The server ends its answer every few seconds, and the browser asks again: only a longer silence is told.
  source.addEventListener("error", () => {
    lost ??= setTimeout(() => link("lost", "the server does not answer"), 2000);
    // After an answer that is an error, a browser does not ask again by itself.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  });
}

function link(state, words) {
  clearTimeout(lost);
  lost = undefined;
  $("link").dataset.state = state;
  write($("link"), words);
}

document.addEventListener("visibilitychange", listen);
listen();
openLibrary();
