// Opens a connect link in a window of its own, and tells how it ended.
//
//   <script src="https://GATEWAY/api/connect/-/trunkline-connect.js"></script>
//   button.addEventListener("click", () =>
//     TrunklineConnect.open(fetch("/my/connect-link", { method: "POST" }).then((r) => r.json()))
//       .then(({ state, error }) => …));
//
// A failure is final once its window is closed, or its link is over: until then the person may try again there.
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

  const asked = (place, result, more, signal) =>
    fetch(`${place}/result?result=${encodeURIComponent(result)}${more}`, {
      signal,
      credentials: "omit",
      cache: "no-store",
      referrerPolicy: "no-referrer",
    });

  // The gateway's word, which counts. A closed window, a lost message or a cut opener change nothing of it.
  async function ask(place, result, signal, hear) {
    for (let failures = 0, seen = ""; !signal.aborted; ) {
      try {
        const answer = await asked(place, result, `&wait=${WAIT}${seen}`, signal);
        const told = await answer.json();
        if (answer.status === 404 || answer.status === 400) return hear({ state: "expired", result });
        if (answer.ok) hear(told);
        // A failure that is known is waited past: the person may try again.
        seen = answer.ok && told.state === "failed" ? "&seen=failed" : "";
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
      // The failure that stands, while the window offers to try again.
      let failed = null;
      // Whether the window looked closed while nothing had failed: a provider's page may have cut the tie, and from
      // then on its look says nothing.
      let cut = false;
      const done = ({ again, waited, ...told }) => {
        stop.abort();
        settle(told);
      };
      const hear = (told) => {
        if (stop.signal.aborted) return;
        if (FINAL.includes(told.state) && !told.again) return done(told);
        const news = told.state === "failed" && !failed;
        failed = told.state === "failed" ? told : null;
        if (news) options.onfailed?.({ state: told.state, error: told.error, result });
      };
      // Whether the gateway answered.
      const hearAgain = () =>
        asked(place, result, "", stop.signal)
          .then((answer) => answer.ok && answer.json().then((told) => (hear(told), true)))
          .catch(() => false);
      // A message says that it is time to ask, and nothing more: whoever sent it, the gateway answers.
      const nudge = (data) => {
        if (looked || data?.type !== "trunkline:connect" || data.result !== result) return;
        looked = true;
        hearAgain().then(() => (looked = false));
      };
      window.addEventListener("message", (event) => event.origin === address.origin && nudge(event.data), { signal: stop.signal });
      if ("BroadcastChannel" in window) {
        const channel = new BroadcastChannel(CHANNEL);
        channel.onmessage = (event) => nudge(event.data);
        stop.signal.addEventListener("abort", () => channel.close());
      }
      // Closed, or back at a page of the application by `return_to`, which is told apart where it has an origin of its own.
      const own = window.location.origin;
      const isLeft = () => {
        try {
          return popup.closed || (own !== address.origin && popup.location.origin === own);
        } catch {
          return false;
        }
      };
      let closed = false;
      const look = setInterval(() => {
        // A hint for the page's wording. It is no failure: a provider's page can make an open window look closed.
        if (popup.closed && !closed) options.onclosed?.();
        closed ||= popup.closed;
        if (cut || !isLeft()) return;
        const standing = failed;
        if (!standing) cut = popup.closed;
        // Nobody tries again in a window that is gone, unless they have begun to.
        else hearAgain().then((heard) => heard && failed && !stop.signal.aborted && done(failed));
      }, 500);
      stop.signal.addEventListener("abort", () => clearInterval(look));
      options.signal?.addEventListener("abort", () => (stop.abort(), fail(options.signal.reason)), { once: true });
      ask(place, result, stop.signal, hear);
    });
  }

  window.TrunklineConnect = Object.freeze({ open });
})();
