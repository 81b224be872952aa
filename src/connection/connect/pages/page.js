// Tells the page that opened this window how the sign-in ended. What it says is a result id and a word,
// never a secret; the page asks the gateway for the rest.
"use strict";
(() => {
  const DISPLAY = "trunkline-display";
  // The provider's page may cut window.opener; this tab still remembers how it began.
  const remember = () => {
    try {
      if (!sessionStorage.getItem(DISPLAY)) sessionStorage.setItem(DISPLAY, window.opener ? "popup" : "page");
      return sessionStorage.getItem(DISPLAY);
    } catch {
      return window.opener ? "popup" : "page";
    }
  };
  const display = remember();
  // While a code is shown, the gateway is asked how it went. What it does not answer is asked again.
  const device = document.getElementById("device");
  const follow = async ({ base, result }) => {
    for (;;) {
      try {
        const answer = await fetch(`${base}/result?result=${encodeURIComponent(result)}&wait=20`);
        const { state, waited } = await answer.json();
        if (state && state !== "started") {
          const page = state === "choosing" ? "choose" : "outcome";
          window.location.replace(`${base}/${page}?result=${encodeURIComponent(result)}`);
          return;
        }
        if (!waited) await new Promise((done) => setTimeout(done, 3000));
      } catch {
        await new Promise((done) => setTimeout(done, 5000));
      }
    }
  };
  if (device) follow(device.dataset);
  const outcome = document.getElementById("outcome");
  if (!outcome) return;
  const { result, state, origin, back } = outcome.dataset;
  if (state !== "connected" && state !== "failed") return;
  const message = { type: "trunkline:connect", result, state };
  if (origin && window.opener) window.opener.postMessage(message, origin);
  if ("BroadcastChannel" in window) new BroadcastChannel("trunkline-connect").postMessage(message);
  if (state !== "connected" || document.querySelector(".alert")) return;
  // Time to read the line; a failure stays until the person closes it.
  if (display === "popup") setTimeout(() => window.close(), 1500);
  else if (back) setTimeout(() => window.location.replace(back), 1500);
})();
