// Brings the page up to date: fetches it again and changes what has changed. Without it the page is complete, and as old as its footer says.
"use strict";
(() => {
  const seconds = Number(document.body.dataset.refresh);
  const place = document.getElementById("refreshing");
  if (!(seconds > 0) || !place) return;
  let paused = false, timer = 0;

  const said = document.createElement("span");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain";
  const say = (text) => { said.textContent = text; };
  const label = () => {
    button.textContent = paused ? "Refresh by itself" : "Stop refreshing";
    say(paused ? "not refreshed · " : `refreshed every ${seconds} s · `);
  };
  button.addEventListener("click", () => { paused = !paused; label(); plan(); });
  place.append("· ", said, button);
  label();

  const reading = () => {
    const chosen = document.getSelection();
    return chosen !== null && !chosen.isCollapsed;
  };

  // What a reader did to the page stays: open details by their place, focus by link, pictures as they are loaded.
  const replace = (old, fresh) => {
    const kept = [...old.querySelectorAll("details")].map((one) => one.open);
    fresh.querySelectorAll("details").forEach((one, index) => { if (index < kept.length) one.open = kept[index]; });
    const loaded = new Map([...old.querySelectorAll("img")].map((one) => [one.getAttribute("src"), one]));
    fresh.querySelectorAll("img").forEach((one) => { const same = loaded.get(one.getAttribute("src")); if (same) one.replaceWith(same); });
    const focus = old.contains(document.activeElement) ? document.activeElement : null;
    const links = (root) => [...root.querySelectorAll("a, summary")];
    const index = focus ? links(old).indexOf(focus) : -1;
    old.replaceChildren(...fresh.childNodes);
    const again = index >= 0 ? links(old)[index] : undefined;
    if (again && again.getAttribute("href") === focus.getAttribute("href")) again.focus({ preventScroll: true });
  };

  const look = async () => {
    if (!paused && !document.hidden && !reading()) {
      try {
        const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "error" });
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        const main = fresh.getElementById("content"), asOf = fresh.getElementById("as-of");
        if (!main || !asOf) throw new Error("not our page");
        replace(document.getElementById("content"), main);
        document.getElementById("as-of").replaceChildren(...asOf.childNodes);
        label();
      } catch {
        say("the node does not answer · ");
      }
    }
    plan();
  };
  const plan = () => {
    clearTimeout(timer);
    if (!paused) timer = setTimeout(look, seconds * 1000);
  };
  plan();
})();
