// Refreshes the changing part of the front page: often while a build runs, otherwise rarely, and never while the page is hidden.
"use strict";

const RUNNING_MS = 3000, IDLE_MS = 30000;
const live = document.getElementById("live"), lost = document.getElementById("lost");
let timer = 0;

function show(text) {
  const chosen = document.getSelection();
  if (chosen && !chosen.isCollapsed && live.contains(chosen.anchorNode)) return; // replacing the page would undo the user's selection
  const focused = live.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  live.innerHTML = text; // safe: the same server made it and escaped every name in it
  if (focused) live.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
}

async function refresh() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    const answer = await fetch("/live");
    if (answer.ok) show(await answer.text());
    lost.hidden = answer.ok;
  } catch {
    lost.hidden = false;
  }
  schedule();
}

function schedule() {
  clearTimeout(timer);
  timer = setTimeout(refresh, live.querySelector("[data-running]") ? RUNNING_MS : IDLE_MS);
}

document.addEventListener("visibilitychange", refresh);
schedule();
