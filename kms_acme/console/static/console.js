// Reads the page again when something has changed. Everything works without it.
"use strict";

const base = document.documentElement.dataset.base;
const pause = 500;
let source = null;
let waiting = false;

function mayReplace() {
  const main = document.getElementById("main");
  const focused = document.activeElement;
  if (focused !== null && focused.closest("form") !== null && main.contains(focused)) {
    return false; // someone is typing
  }
  const selection = document.getSelection();
  return selection === null || selection.isCollapsed || !main.contains(selection.anchorNode);
}

function pathTo(element) {
  // Where an element is, so that the focus stays on its successor.
  const steps = [];
  for (let each = element; each !== null && each.id !== "main"; each = each.parentElement) {
    steps.unshift(Array.prototype.indexOf.call(each.parentElement.children, each));
  }
  return steps;
}

async function refresh() {
  waiting = true;
  if (document.hidden || !mayReplace()) {
    return;
  }
  waiting = false;
  let text;
  try {
    const answer = await fetch(location.href, { cache: "no-store", credentials: "same-origin" });
    if (!answer.ok) {
      return;
    }
    text = await answer.text();
  } catch {
    return; // the console was stopped; the stream says so
  }
  const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("main");
  const main = document.getElementById("main");
  if (fresh === null || !mayReplace()) {
    waiting = true;
    return;
  }
  const open = new Set(Array.from(main.querySelectorAll("details[open]"), (each) => each.id));
  for (const each of fresh.querySelectorAll("details")) {
    each.open = open.has(each.id);
  }
  const before = document.importNode(fresh, true);
  if (before.innerHTML === main.innerHTML) {
    return;
  }
  const focused = main.contains(document.activeElement) && document.activeElement !== main ? pathTo(document.activeElement) : null;
  const scrolled = Array.from(main.querySelectorAll(".scroll"), (each) => each.scrollLeft);
  main.replaceChildren(...before.childNodes);
  main.querySelectorAll(".scroll").forEach((each, number) => { each.scrollLeft = scrolled[number] || 0; });
  if (focused !== null) {
    const found = focused.reduce((each, step) => each && each.children[step], main);
    (found || main).focus({ preventScroll: true });
  }
}

function follow() {
  if (source !== null || document.hidden) {
    return;
  }
  source = new EventSource(`${base}/changes`);
  source.onopen = () => { document.getElementById("live").textContent = "Changes arrive by themselves."; };
  source.onmessage = refresh;
  source.onerror = () => { document.getElementById("live").textContent = "The console does not answer: what you see may be outdated."; };
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden && source !== null) {
    // A browser opens few connections to one host: hidden pages take none.
    source.close();
    source = null;
  } else if (!document.hidden) {
    follow();
    refresh();
  }
});
document.addEventListener("focusout", () => { if (waiting) { setTimeout(refresh, pause); } });
follow();
