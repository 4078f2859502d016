// Keeps an open page up to date: asks for it again when the server says that something changed, and lets times go on.
"use strict";

(() => {
  const liveFor = document.querySelector("[data-live]");
  const state = document.getElementById("live-state");
  const button = document.getElementById("live-button");
  const quiet = 1500; // milliseconds between two renewals
  const fallback = 15000; // without a stream
  let paused = false;
  let wanted = false;
  let busy = false;
  let stream = null;
  let poll = null;

  // Times: the server's clock, and the same words as the server's.
  let ahead = 0;

  function setClock(place) {
    ahead = Number(place.dataset.now) - Date.now() / 1000;
  }

  function span(seconds) {
    seconds = Math.max(seconds, 0);
    if (seconds < 120) return `${seconds.toFixed(0)} s`;
    if (seconds < 7200) return `${(seconds / 60).toFixed(0)} min`;
    if (seconds < 172800) return `${(seconds / 3600).toFixed(1).replace(/\.0$/, "")} h`;
    return `${(seconds / 86400).toFixed(1).replace(/\.0$/, "")} d`;
  }

  function tick() {
    const now = Date.now() / 1000 + ahead;
    for (const time of document.querySelectorAll("time[data-at]")) {
      const at = Number(time.dataset.at);
      const text = at > now ? `in ${span(at - now)}` : `${span(now - at)} ago`;
      const said = time.dataset.form === "span" ? span(Math.abs(now - at)) : text;
      if (time.textContent !== said) time.textContent = said;
    }
  }

  function say(text) {
    if (state.textContent !== text) state.textContent = text;
  }

  // What the reader has opened, reached or scrolled stays so.
  function kept() {
    const active = document.activeElement;
    return {
      open: [...document.querySelectorAll("details[open][id]")].map((each) => each.id),
      focus: active && active.id && liveFor.contains(active) ? active.id : "",
      scrolled: [...document.querySelectorAll(".scroll[id]")].map((each) => [each.id, each.scrollLeft]),
    };
  }

  function restore(before) {
    for (const id of before.open) document.getElementById(id)?.setAttribute("open", "");
    for (const [id, left] of before.scrolled) {
      const region = document.getElementById(id);
      if (region) region.scrollLeft = left;
    }
    if (before.focus) document.getElementById(before.focus)?.focus({ preventScroll: true });
  }

  function occupied() {
    const active = document.activeElement;
    const typing = active && liveFor.contains(active) && ["INPUT", "SELECT"].includes(active.tagName);
    const marking = !document.getSelection().isCollapsed;
    return typing || marking;
  }

  async function renew() {
    if (busy || paused || document.hidden || occupied()) {
      wanted = true;
      return;
    }
    busy = true;
    wanted = false;
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.statusText);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-live]");
      if (fresh && !paused && !occupied()) {
        const before = kept();
        liveFor.replaceChildren(...fresh.childNodes);
        setClock(fresh);
        restore(before);
        tick();
      }
      if (!paused) say(stream && stream.readyState === EventSource.OPEN ? "Live" : "Renewed now and then");
    } catch {
      say("No answer; trying again");
    }
    setTimeout(() => {
      busy = false;
      if (wanted) renew();
    }, quiet);
  }

  function listen() {
    stream = new EventSource("/live");
    stream.addEventListener("open", () => {
      clearInterval(poll);
      poll = null;
      if (!paused) say("Live");
      renew(); // nobody tells of what changed before, or while there was no stream
    });
    stream.addEventListener("changed", renew);
    stream.addEventListener("error", () => {
      if (!paused) say("No live connection; trying again");
      if (stream.readyState === EventSource.CLOSED && !poll) poll = setInterval(renew, fallback);
    });
  }

  setClock(document.querySelector("[data-now]"));
  setInterval(tick, 1000);
  tick();
  if (!liveFor) return;
  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    say(paused ? "Paused" : "Live");
    if (!paused) renew();
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && wanted) renew();
  });
  document.addEventListener("focusout", () => {
    if (wanted) setTimeout(renew, 50);
  });
  addEventListener("pagehide", () => stream && stream.close());
  addEventListener("pageshow", (event) => {
    if (event.persisted) listen();
  });
  listen();
})();
