"use strict";
// Copies an address, and keeps the parts of the page that change up to date while it is looked at. The page says everything without this.

const select = (element) => {
  const range = document.createRange();
  range.selectNodeContents(element);
  const selection = getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
};

const copy = async (element) => {
  try {
    await navigator.clipboard.writeText(element.textContent);
    return true;
  } catch {
    // No clipboard without HTTPS, or not allowed.
  }
  select(element);
  return document.execCommand("copy");
};

for (const button of document.querySelectorAll("button[data-copies]")) {
  const source = document.getElementById(button.dataset.copies);
  const said = document.getElementById(button.dataset.says);
  button.hidden = false;
  button.addEventListener("click", async () => {
    const done = await copy(source);
    if (!done) select(source);
    said.textContent = done ? "Copied" : "Selected: copy it with Ctrl+C";
    setTimeout(() => { said.textContent = ""; }, 4000);
  });
}

const parts = () => [...document.querySelectorAll(".live")];
const wait = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });

// What can have the focus. An element of the new part is the same if its kind, target and words are.
const FOCUSABLE = "a[href], button, input, select, summary, [tabindex]";
const sameAs = (element) => (other) => other.tagName === element.tagName && other.getAttribute("href") === element.getAttribute("href")
  && (other.name ?? "") === (element.name ?? "") && other.textContent === element.textContent;

// Puts the new part in the place of the old one. What is open, scrolled or has the focus stays so.
const replace = (part, other) => {
  if (part.isEqualNode(other)) return;
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const place = focused ? [...part.querySelectorAll(FOCUSABLE)].indexOf(focused) : -1;
  const opened = [...part.querySelectorAll("details")].map((details) => details.open);
  const scrolled = [...part.querySelectorAll(".scrolls")].map((element) => [element.scrollLeft, element.scrollTop]);
  part.replaceWith(other);
  [...other.querySelectorAll("details")].forEach((details, at) => { details.open = opened[at] ?? details.open; });
  [...other.querySelectorAll(".scrolls")].forEach((element, at) => { [element.scrollLeft, element.scrollTop] = scrolled[at] ?? [0, 0]; });
  if (!focused) return;
  const candidates = [...other.querySelectorAll(FOCUSABLE)];
  const next = candidates.find(sameAs(focused)) ?? candidates[place];
  next?.focus({ preventScroll: true });
};

// Shows, or takes away, the notice that the page may be out of date.
const setStale = (isStale) => {
  const stale = document.getElementById("stale");
  if (stale) stale.hidden = !isStale;
};

// Longest time that an answer takes, in milliseconds: the doctor's page takes longest.
const ANSWERED = 30000;
// Answers that say that there is nothing more to read: not allowed any more, removed, forgotten. The page that comes in its place says which.
const ENDS = [403, 404, 410];

// Reads the page again, and replaces its parts. Returns whether there may be more to read later.
const refresh = async () => {
  let answer;
  let text;
  try {
    const signal = AbortSignal.timeout(ANSWERED);
    answer = await fetch(location.href, { cache: "no-store", credentials: "same-origin", redirect: "error", signal });
    text = answer.ok ? await answer.text() : "";
  } catch {
    setStale(true);
    return true;
  }
  if (ENDS.includes(answer.status)) {
    location.reload();
    return false;
  }
  setStale(!answer.ok);
  if (!answer.ok) return true;
  const next = new DOMParser().parseFromString(text, "text/html");
  const selection = getSelection();
  for (const part of parts()) {
    const other = next.getElementById(part.id);
    // Whoever is selecting or writing there is not disturbed.
    const isSelected = !selection.isCollapsed && part.contains(selection.anchorNode);
    const isWritten = part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea");
    if (other && !isSelected && !isWritten) replace(part, other);
  }
  return true;
};

// Without a stream of events the page is read again so long after the last answer, in milliseconds.
const SOON = 1500;
const LATER = 3000;

const poll = async () => {
  for (let goesOn = true; goesOn;) {
    await wait(parts().some((part) => "measuring" in part.dataset) ? SOON : LATER);
    goesOn = document.hidden || await refresh();
  }
};

// With a stream the server says when something has changed, at most once a second. Those who prefer less motion get it less often.
const LEAST = matchMedia("(prefers-reduced-motion: reduce)").matches ? 5000 : 900;
const AGAIN = 5000;
// A message comes every 3 s, also where nothing changes. After so long without one, in milliseconds, nobody answers at the other end: the
// gateway hangs, the tunnel is silent, or this machine has slept.
const SILENT = 10000;
const WATCHED = 1000;

const follow = (url) => {
  const said = document.getElementById("said");
  const button = document.getElementById("updates");
  let source = null;
  let timer = null;
  let isPaused = false;
  let isReading = false;
  let isOutdated = false;
  // A clock that goes on while the machine sleeps.
  let heard = Date.now();

  // One read at a time, and a pause between two.
  const read = async () => {
    isOutdated = true;
    if (isReading) return;
    isReading = true;
    while (isOutdated && !isPaused && !document.hidden) {
      isOutdated = false;
      if (!await refresh()) return;
      await wait(LEAST);
    }
    isReading = false;
  };

  const close = () => {
    source?.close();
    source = null;
    clearTimeout(timer);
  };

  // A tab that nobody looks at needs no connection: a browser has few to one server.
  const open = () => {
    close();
    if (isPaused || document.hidden) return;
    heard = Date.now();
    source = new EventSource(url);
    source.addEventListener("changed", (event) => {
      heard = Date.now();
      const { said: texts } = JSON.parse(event.data);
      if (said && texts.length > 0) said.textContent = texts.join(" ");
      read();
    });
    source.addEventListener("error", () => {
      setStale(true);
      // It connects again by itself, unless it was refused.
      if (source?.readyState !== EventSource.CLOSED) return;
      close();
      timer = setTimeout(() => { read(); open(); }, AGAIN);
    });
  };

  const start = () => {
    open();
    if (!isPaused && !document.hidden) read();
  };

  const watch = () => {
    if (!source || Date.now() - heard < SILENT) return;
    setStale(true);
    // The connection may be dead without a word.
    start();
  };

  document.addEventListener("visibilitychange", start);
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => { if (event.persisted) start(); });
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      isPaused = !isPaused;
      button.textContent = isPaused ? "Go on with updates" : "Pause updates";
      start();
    });
  }
  open();
  setInterval(watch, WATCHED);
};

const { live } = document.body.dataset;
const service = /^\/services\/([^/]+)$/.exec(location.pathname)?.[1];
if (parts().length === 0) {
  // Nothing changes here.
} else if (live) {
  follow(service ? `${live}?service=${service}` : live);
} else {
  poll();
}
