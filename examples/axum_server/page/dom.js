// What the other files share: elements, requests, and words for times.

export const $ = (id) => document.getElementById(id);

/** Makes an element with attributes, and with texts and elements within it. No text is ever read as HTML. */
export function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** Makes an element of an SVG. */
export function shape(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Sets a text if it is another one: what has not changed is not announced again. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** The server refused a request, or did not answer it. */
export class Refusal extends Error {
  constructor(words, status, errors = []) {
    super(words);
    this.status = status;
    this.errors = errors;
  }
}

/** Sends a request and returns the answer's JSON, and how long it took. */
export async function ask(method, path, body, headers = {}) {
  const began = performance.now();
  const request = { method, headers: { ...headers } };
  if (body !== undefined) {
    request.headers["content-type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  let response, text;
  try {
    response = await fetch(path, request);
    text = await response.text();
  } catch {
    throw new Refusal("The server cannot be reached.");
  }
  let value = null;
  try {
    value = text === "" ? null : JSON.parse(text);
  } catch {
    throw new Refusal("The server's answer is not JSON.");
  }
  if (!response.ok) throw new Refusal(value?.detail ?? `The server says ${response.status}.`, response.status, value?.errors);
  return { value, took: performance.now() - began };
}

/** Does what a button is for, unless that is under way. */
export async function once(button, work) {
  if (button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  try {
    await work();
  } finally {
    button.removeAttribute("aria-busy");
  }
}

/** Returns a time in words, such as `430 ms`, `12 s`, `3 min`. */
export function time(ms) {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 10_000 && ms % 1000 >= 100) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 120_000) return `${Math.floor(ms / 1000)} s`;
  return `${Math.floor(ms / 60_000)} min`;
}

/** Returns how long ago something was, in whole seconds. */
export function ago(ms) {
  return ms < 1000 ? "just now" : `${time(Math.floor(ms / 1000) * 1000)} ago`;
}

export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
