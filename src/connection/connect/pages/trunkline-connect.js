// Opens a connect link in a window of its own, and tells how it ended.
//
//   <script src="https://GATEWAY/api/connect/-/trunkline-connect.js"></script>
//   button.addEventListener("click", () =>
//     TrunklineConnect.open(fetch("/my/connect-link", { method: "POST" }).then((r) => r.json()))
//       .then(({ state, error }) => …));
//
// Call it inside the click: browsers open windows for clicks only. See docs/CONNECT.md.
"use strict";
(() => {
  const CHANNEL = "trunkline-connect";
  const FINAL = ["connected", "failed", "expired"];
  const FEATURES = "popup,width=560,height=720";
  const WAIT = 20;
  const pause = (ms, signal) =>
    new Promise((done) => {
      const timer = setTimeout(done, ms);
      signal.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
    });

  // The gateway's word, which counts. A closed window, a lost message or a cut opener change nothing of it.
  async function ask(place, result, signal, settle) {
    for (let failures = 0; !signal.aborted; ) {
      try {
        const target = `${place}/result?result=${encodeURIComponent(result)}&wait=${WAIT}`;
        const answer = await fetch(target, { signal, credentials: "omit", cache: "no-store", referrerPolicy: "no-referrer" });
        const told = await answer.json();
        if (answer.ok && FINAL.includes(told.state)) return settle(told);
        if (answer.status === 404 || answer.status === 400) return settle({ state: "expired", result });
        failures = answer.ok ? 0 : failures + 1;
        if (answer.ok && !told.waited) await pause(1000, signal);
      } catch {
        failures += 1;
      }
      if (failures > 0) await pause(Math.min(1000 * 2 ** failures, 30000), signal);
    }
  }

  function open(link, options = {}) {
    // Opened empty, now, because the click does not last until the link is there.
    const popup = window.open("", "trunkline-connect", FEATURES);
    return Promise.resolve(link).then(
      ({ url, result }) => {
        const address = new URL(url, window.location.href);
        if (!popup) {
          // Blocked: go there with the whole page; `return_to` leads back.
          window.location.assign(address);
          return new Promise(() => {});
        }
        popup.location.replace(address);
        popup.focus();
        return follow(address, result, popup, options);
      },
      (error) => {
        popup?.close();
        throw error;
      },
    );
  }

  function follow(address, result, popup, options) {
    const stop = new AbortController();
    const place = address.origin + address.pathname;
    return new Promise((settle, fail) => {
      let looked = false;
      const done = (told) => {
        stop.abort();
        settle(told);
      };
      // A message says that it is time to ask, and nothing more: whoever sent it, the gateway answers.
      const nudge = (data) => {
        if (looked || data?.type !== "trunkline:connect" || data.result !== result) return;
        looked = true;
        fetch(`${place}/result?result=${encodeURIComponent(result)}`, { credentials: "omit", cache: "no-store", referrerPolicy: "no-referrer" })
          .then((answer) => answer.json())
          .then((told) => (FINAL.includes(told.state) ? done(told) : (looked = false)))
          .catch(() => (looked = false));
      };
      window.addEventListener("message", (event) => event.origin === address.origin && nudge(event.data), { signal: stop.signal });
      if ("BroadcastChannel" in window) {
        const channel = new BroadcastChannel(CHANNEL);
        channel.onmessage = (event) => nudge(event.data);
        stop.signal.addEventListener("abort", () => channel.close());
      }
      if (options.onclosed) {
        // A hint for the page's wording. It is no failure: a provider's page can make an open window look closed.
        const look = setInterval(() => popup.closed && (clearInterval(look), options.onclosed()), 500);
        stop.signal.addEventListener("abort", () => clearInterval(look));
      }
      options.signal?.addEventListener("abort", () => (stop.abort(), fail(options.signal.reason)), { once: true });
      ask(place, result, stop.signal, done);
    });
  }

  window.TrunklineConnect = Object.freeze({ open });
})();
