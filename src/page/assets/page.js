// The keyboard, copying, and windows for connect links. Every screen works without this file.
(() => {
  "use strict";

  const typing = (element) => element.matches("input, textarea, select, [contenteditable]");

  // Moves the focus among the links that rows open by.
  function step(by) {
    const rows = [...document.querySelectorAll("[data-row]")];
    const next = rows.indexOf(document.activeElement) + by;
    const row = rows[Math.max(0, Math.min(next, rows.length - 1))];
    if (row) row.focus();
  }

  const keys = {
    "/": () => document.querySelector("input[type=search]")?.focus(),
    "?": () => document.getElementById("keys")?.showModal(),
    j: () => step(1),
    k: () => step(-1),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
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

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
  });

  // What the live stream tells besides rows; and a page that watches for days does not grow.
  for (const name of ["gap", "slow"]) {
    document.addEventListener(name, () => document.getElementById(`live-${name}`)?.removeAttribute("hidden"));
  }
  document.addEventListener("htmx:sse:after:message", () => {
    document.querySelectorAll("#rows > tr:nth-child(n + 501)").forEach((row) => row.remove());
  });

  const reveal = (root) => {
    if (navigator.clipboard) root.querySelectorAll("[data-copy]").forEach((button) => (button.hidden = false));
  };
  reveal(document);
  document.addEventListener("htmx:after:swap", () => reveal(document));
})();
