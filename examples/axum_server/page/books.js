// The books: listed when the page opens and after what is done to them, and never by a clock.

import { $, ask, count, element, once, time, write } from "./dom.js";

const FIELDS = ["title", "author", "publication_year"];

let next = null;
/** How many lists have been asked for: only the answer for the last of them is shown. */
let asked = 0;
/** What the form is for: a book that there is, or the key under which a new one is made. */
let editing = { book: null, key: null };
/** How much is under way at the server. */
let pending = 0;

export function openLibrary() {
  $("refresh").addEventListener("click", () => list());
  $("more").addEventListener("click", () => list(next));
  $("add").addEventListener("click", () => edit(null));
  $("cancel").addEventListener("click", () => $("editor").close());
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    save();
  });
  list();
}

/** Lists the books from the first one, or those behind `after`. `before` is said first. */
async function list(after = null, before = "") {
  asked += 1;
  const mine = asked;
  const query = after === null ? "" : `?after=${encodeURIComponent(after)}`;
  const read = () => ask("GET", `/books${query}`);
  // To read again does no harm.
  const answer = await attempt(
    () => read().catch((refusal) => (refusal.status === 503 ? read() : Promise.reject(refusal))),
    () => mine === asked,
  );
  if (answer === undefined || mine !== asked) return;
  const { books } = answer.value;
  next = answer.value.next;
  const items = books.map(item);
  if (after === null) $("books").replaceChildren(...items);
  else $("books").append(...items);
  const hadFocus = document.activeElement === $("more");
  $("more").hidden = next === null;
  // A button that is gone does not keep the focus.
  if (hadFocus && after !== null) items[0]?.querySelector("button")?.focus();
  const shown = $("books").childElementCount;
  say(`${before}${count(shown, "book")}${next === null ? "" : " and more"}, answered in ${time(answer.took)}.`);
}

function item(book) {
  const about = [book.author, book.publication_year].filter((known) => known !== null).join(", ");
  const change = element("button", { type: "button", "aria-label": `Edit ${book.title}` }, "Edit");
  change.addEventListener("click", () => edit(book));
  const out = element("button", { type: "button", "aria-label": `Take out ${book.title}` }, "Take out");
  out.addEventListener("click", () => once(out, () => take(book)));
  return element(
    "li",
    { "data-book": book.id },
    element("div", { class: "about" }, element("strong", {}, book.title), element("span", {}, about)),
    element("span", { class: book.in_stock ? "tag in" : "tag" }, book.in_stock ? "in stock" : "lent out"),
    element("div", { class: "tools" }, change, out),
  );
}

function edit(book) {
  editing = { book, key: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}` };
  $("save").disabled = false;
  write($("editor-title"), book === null ? "Add a book" : "Edit a book");
  for (const field of FIELDS) $(field).value = book?.[field] ?? "";
  $("in_stock").checked = book?.in_stock ?? true;
  wrong([]);
  $("editor").showModal();
  $("title").focus();
}

async function save() {
  const author = $("author").value.trim();
  const year = $("publication_year").value.trim();
  if (year !== "" && !/^-?\d{1,9}$/.test(year)) {
    wrong([{ pointer: "#/publication_year", detail: "must be a whole number, such as 1965" }]);
    return;
  }
  const book = {
    title: $("title").value.trim(),
    author: author === "" ? null : author,
    publication_year: year === "" ? null : Number(year),
    in_stock: $("in_stock").checked,
  };
  const saving = editing;
  // The form may have been closed meanwhile, and be open for another book.
  const isShown = () => saving === editing && $("editor").open;
  $("save").disabled = true;
  try {
    // A new book goes under a key: if the answer is lost, the same request can be sent again.
    if (saving.book === null) await ask("POST", "/books", book, { "idempotency-key": saving.key });
    else await ask("PUT", `/books/${saving.book.id}`, book);
  } catch (refusal) {
    if (isShown()) wrong(refusal.errors ?? [], refusal.message);
    else say(`“${book.title}” was not saved: ${refusal.message}`);
    return;
  } finally {
    if (saving === editing) $("save").disabled = false;
  }
  if (isShown()) $("editor").close();
  await list(null, saving.book === null ? `“${book.title}” was added. ` : `“${book.title}” was changed. `);
}

/** Shows what is wrong beside its field, and moves there. */
function wrong(errors, words = "") {
  let first;
  for (const field of FIELDS) {
    const error = errors.find((error) => error.pointer === `#/${field}`);
    write($(`${field}-wrong`), error === undefined ? "" : `It ${error.detail}.`);
    if (error === undefined) $(field).removeAttribute("aria-invalid");
    else {
      $(field).setAttribute("aria-invalid", "true");
      first ??= $(field);
    }
  }
  write($("form-wrong"), words);
  first?.focus();
}

async function take(book) {
  const place = [...$("books").children].findIndex((item) => item.dataset.book === `${book.id}`);
  const answer = await attempt(() => ask("DELETE", `/books/${book.id}`));
  if (answer === undefined) return;
  await list(null, `“${book.title}” was taken out. `);
  // The focus stays where it was in the list.
  const items = $("books").children;
  (items[Math.min(place, items.length - 1)]?.querySelector("button") ?? $("add")).focus();
}

/** Does something at the server, and says why it cannot be done if that still matters. */
async function attempt(work, matters = () => true) {
  pending += 1;
  $("library").setAttribute("aria-busy", "true");
  try {
    return await work();
  } catch (refusal) {
    if (matters()) say(refusal.message);
  } finally {
    pending -= 1;
    if (pending === 0) $("library").removeAttribute("aria-busy");
  }
}

const say = (words) => write($("library-said"), words);
