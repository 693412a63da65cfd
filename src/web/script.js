"use strict";
// Copies an address, and reads what changes again while the page is looked at. The page says everything without this.

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

// So long after the last answer it is asked again, in milliseconds.
const SOON = 1500;
const LATER = 3000;

const parts = () => [...document.querySelectorAll(".live")];
const pause = () => (parts().some((part) => "measuring" in part.dataset) ? SOON : LATER);

const refresh = async () => {
  if (document.hidden) return LATER;
  const stale = document.getElementById("stale") ?? document.createElement("span");
  let answer;
  try {
    answer = await fetch(location.href, { cache: "no-store", credentials: "same-origin", redirect: "error" });
  } catch {
    stale.hidden = false;
    return LATER;
  }
  if (answer.status === 403 || answer.status === 410) {
    location.reload();
    return null;
  }
  if (!answer.ok) {
    stale.hidden = false;
    return LATER;
  }
  const next = new DOMParser().parseFromString(await answer.text(), "text/html");
  stale.hidden = true;
  const selection = getSelection();
  for (const part of parts()) {
    const other = next.getElementById(part.id);
    // Whoever is selecting text there keeps it.
    const isSelected = !selection.isCollapsed && part.contains(selection.anchorNode);
    if (!other || isSelected) continue;
    const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    part.replaceWith(other);
    // Whoever walks through the page by keyboard stays at the same link.
    if (focused) other.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }
  return pause();
};

const again = async (after) => {
  if (after === null) return;
  await new Promise((resolve) => { setTimeout(resolve, after); });
  again(await refresh());
};

if (parts().length > 0) again(pause());
