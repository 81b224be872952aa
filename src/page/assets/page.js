// The keyboard, copying, times and the live list. Every screen works without this file.
(() => {
  "use strict";

  const show = (id, shown) => document.getElementById(id)?.toggleAttribute("hidden", !shown);
  // A box takes no letters. One that was in a dialog keeps the focus for a moment after the dialog has closed.
  const typing = (element) => element.matches("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]");

  // Moves the focus among the links that rows open by.
  function step(by) {
    const rows = [...document.querySelectorAll("[data-row]")];
    const next = rows.indexOf(document.activeElement) + by;
    const row = rows[Math.max(0, Math.min(next, rows.length - 1))];
    if (row) row.focus();
  }

  // Keys of one letter would act on what is dictated: they can be turned off, in this browser and until they are wanted.
  const KEPT = "trunkline.keys";
  let acting = true;
  try {
    acting = localStorage.getItem(KEPT) !== "off";
  } catch {
    // A browser that keeps nothing has them.
  }

  function tellKeys() {
    const box = document.getElementById("keys-act");
    if (box) box.checked = acting;
    show("keys-hint", acting);
  }

  function turnKeys(on) {
    acting = on;
    try {
      localStorage.setItem(KEPT, on ? "on" : "off");
    } catch {
      // Then it holds for this page.
    }
    tellKeys();
  }

  const keys = {
    "/": () => document.querySelector("input[type=search]")?.focus(),
    "?": () => document.getElementById("keys")?.showModal(),
    j: () => step(1),
    k: () => step(-1),
    t: () => turnTimes(),
  };

  document.addEventListener("keydown", (event) => {
    if (!acting || event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    if (document.querySelector("dialog[open]")) return;
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  function copy(button) {
    navigator.clipboard.writeText(button.dataset.copy).then(() => {
      const label = button.textContent;
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = label), 1500);
    });
  }

  document.addEventListener("change", (event) => {
    if (event.target.id === "keys-act") turnKeys(event.target.checked);
  });

  document.addEventListener("click", (event) => {
    if (event.target.id === "keys-show") keys["?"]();
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
    if (event.target.matches("time") && !event.target.closest("a")) turnTimes();
    if (event.target.id === "live-new") put(true);
  });

  // Times grow old while they are shown, by the gateway's clock; on demand they are moments.
  const skew = Date.parse(document.body.dataset.now) - Date.now();
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  let moments = false;

  function said(time) {
    const ahead = (Date.parse(time.dateTime) - Date.now() - skew) / 1000;
    const size = Math.abs(ahead);
    const unit = units.find(([seconds]) => size >= seconds);
    if (!unit) return "now";
    const span = `${Math.floor(size / unit[0])} ${unit[1]}`;
    return ahead > 0 ? `in ${span}` : `${span} ago`;
  }

  function tellTimes() {
    for (const time of document.querySelectorAll("time[title]")) {
      const text = moments ? time.title : said(time);
      if (time.textContent !== text) time.textContent = text;
    }
  }

  function turnTimes() {
    moments = !moments;
    tellTimes();
  }

  setInterval(tellTimes, 5000);

  // The live list: what comes waits while someone reads, and a page that watches for days does not grow.
  const MOST = 500;
  const waiting = [];

  const isRead = (rows) =>
    rows.matches(":hover") || rows.contains(document.activeElement) || rows.getBoundingClientRect().top < 0;

  function put(wanted) {
    const rows = document.getElementById("rows");
    const button = document.getElementById("live-new");
    if (!rows || !button) return;
    if (wanted || !isRead(rows)) {
      const come = document.createElement("template");
      come.innerHTML = waiting.splice(0).reverse().join("");
      rows.prepend(come.content);
      rows.querySelectorAll(`:scope > tr:nth-child(n + ${MOST + 1})`).forEach((row) => row.remove());
      tellTimes();
    }
    if (wanted) rows.closest(".scroll").scrollIntoView();
    button.hidden = !waiting.length;
    button.textContent = `${waiting.length} new`;
  }

  document.addEventListener("htmx:sse:before:message", (event) => {
    const { message } = event.detail;
    if (message.event) return;
    event.detail.cancelled = true;
    waiting.push(message.data);
    if (waiting.length > MOST) waiting.shift();
    put();
  });
  setInterval(() => waiting.length && put(), 500);

  // What the stream tells besides rows, and whether there is one.
  for (const name of ["gap", "slow"]) document.addEventListener(name, () => show(`live-${name}`, true));
  function isLive(live) {
    show("live-on", live);
    show("live-off", !live);
  }
  document.addEventListener("htmx:sse:after:connection", () => isLive(true));
  document.addEventListener("htmx:sse:error", (event) => (event.detail.status === 401 ? location.reload() : isLive(false)));
  for (const name of ["htmx:error", "htmx:response:error"]) {
    document.addEventListener(name, (event) => event.target.id === "live" && isLive(false));
  }

  const reveal = (root) => {
    if (navigator.clipboard) root.querySelectorAll("[data-copy]").forEach((button) => (button.hidden = false));
  };
  reveal(document);
  show("keys-show", true);
  tellKeys();
  document.addEventListener("htmx:after:swap", () => {
    // Another filter is another stream.
    waiting.length = 0;
    reveal(document);
    tellTimes();
  });
})();
