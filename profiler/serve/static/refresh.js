// Asks for what changes while somebody looks: often while a build runs, else seldom. A hidden page asks for nothing.
"use strict";

const RUNNING_MS = 3000, IDLE_MS = 30000;
const live = document.getElementById("live"), lost = document.getElementById("lost");
let timer = 0;

function show(text) {
  const chosen = document.getSelection();
  if (chosen && !chosen.isCollapsed && live.contains(chosen.anchorNode)) return; // somebody is copying something
  const focused = live.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  live.innerHTML = text; // a page of the same server, with every name in it escaped
  if (focused) live.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
}

async function look() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    const answer = await fetch("/live");
    if (answer.ok) show(await answer.text());
    lost.hidden = answer.ok;
  } catch {
    lost.hidden = false;
  }
  wait();
}

function wait() {
  clearTimeout(timer);
  timer = setTimeout(look, live.querySelector("[data-running]") ? RUNNING_MS : IDLE_MS);
}

document.addEventListener("visibilitychange", look);
wait();
