// Drives a real Chromium through the connect flow, as a person does, and prints what came of it as JSON.
//
// Its one argument is JSON: `chromium` (the program), `app`, `hostile` and `service` (ports on 127.0.0.1 to listen
// at: the application's page, a page of someone else, the service people sign in at), `gateway` (its origin),
// `links` (by scenario: `url` and `result`), `shots` (a directory for pictures, or null), `seen` (a port that is asked
// once a code for another device is shown, or null).

import { createServer } from 'node:http';
import { once } from 'node:events';
import { chromium } from 'playwright-core';

const options = JSON.parse(process.argv[2]);
const { gateway, links } = options;
const app = `http://127.0.0.1:${options.app}`;
const hostile = `http://127.0.0.1:${options.hostile}`;

const page = (title, body) =>
  `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title><link rel="icon" href="data:,">${body}</html>`;

async function listen(port, answer) {
  const server = createServer((request, response) => {
    const url = new URL(request.url, 'http://127.0.0.1');
    const { headers = {}, body } = answer(url);
    response.writeHead(200, { 'content-type': 'text/html; charset=utf-8', ...headers });
    response.end(body);
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

// The application: a button, the library, and what it was told.
const appPage = (scenario) =>
  page(
    'App',
    `<script src="${gateway}/api/connect/-/trunkline-connect.js"></script>
<button id="go">Connect</button><pre id="told"></pre>
<script>
  const told = document.getElementById("told");
  const link = ${JSON.stringify(links[scenario] ?? null)};
  window.closedSeen = 0;
  window.failures = [];
  window.messages = [];
  addEventListener("message", (event) => window.messages.push({ origin: event.origin, data: event.data }));
  const start = () => TrunklineConnect.open(Promise.resolve(link), { onclosed: () => window.closedSeen++, onfailed: (failed) => window.failures.push(failed.error) })
    .then((end) => (told.textContent = JSON.stringify(end)));
  document.getElementById("go").addEventListener("click", start);
  if (${JSON.stringify(scenario)} === "blocked") setTimeout(start, 100);
</script>`,
  );

const hostilePage = (scenario) =>
  page(
    'Hostile',
    `<button id="go">Free prize</button><iframe id="frame" src="${links[scenario].url}"></iframe>
<script>
  window.messages = [];
  addEventListener("message", (event) => window.messages.push(event.data));
  document.getElementById("go").addEventListener("click", () => { window.popup = open(${JSON.stringify(links[scenario].url)}); });
  window.asks = () => fetch("${gateway}/api/connect/hub/result?result=" + encodeURIComponent(${JSON.stringify(links[scenario].result)}))
    .then((answer) => answer.text(), (error) => "refused");
</script>`,
  );

const servers = [
  await listen(options.app, (url) =>
    url.pathname === '/done' ? { body: page('Done', '<h1>Back at the application</h1>') } : { body: appPage(url.searchParams.get('scenario')) }),
  await listen(options.hostile, (url) => ({ body: hostilePage(url.searchParams.get('scenario')) })),
  await listen(options.service, (url) => {
    const back = (extra) => `${gateway}/api/auth/callback/hub?state=${encodeURIComponent(url.searchParams.get('state'))}&${extra}`;
    const coop = url.searchParams.get('coop');
    return {
      headers: coop ? { 'cross-origin-opener-policy': coop } : {},
      body: page('Service', `<h1>Service</h1><a id="allow" href="${back('code=the-code')}">Allow</a> <a id="deny" href="${back('error=access_denied')}">Deny</a>`),
    };
  }),
];

const browser = await chromium.launch({
  executablePath: options.chromium,
  args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'],
  // Windows without a click are blocked for people, so they are blocked here.
  ignoreDefaultArgs: ['--disable-popup-blocking'],
});

const TIMEOUT = 30000;
const faults = [];
function watch(context, name) {
  context.setDefaultTimeout(TIMEOUT);
  context.on('console', (message) => {
    if (message.type() === 'error' && message.page()?.url().startsWith(gateway)) faults.push(`${name}: ${message.text()}`);
  });
  context.on('request', (request) => {
    const from = request.frame()?.url() ?? '';
    const loaded = request.isNavigationRequest() ? null : new URL(request.url()).origin;
    if (from.startsWith(gateway) && loaded && loaded !== gateway) faults.push(`${name}: ${from} loads ${request.url()}`);
  });
}

// Through the pages that the popup, or the tab, shows.
async function consent(window, choice, before = async () => {}) {
  await window.waitForURL((url) => url.href.startsWith(`${gateway}/api/connect/hub?`));
  await window.getByRole('button', { name: /Continue to/ }).click();
  await window.waitForURL((url) => url.port === String(options.service));
  await before();
  await window.locator(choice).click();
  await window.waitForURL((url) => url.pathname === '/api/connect/hub/outcome', { waitUntil: 'commit' }).catch(() => {});
}

async function opened(name, scenario = name, choice = '#allow') {
  const context = await browser.newContext();
  watch(context, name);
  const tab = await context.newPage();
  await tab.goto(`${app}/?scenario=${scenario}`);
  const waiting = context.waitForEvent('page');
  await tab.locator('#go').click();
  const popup = await waiting;
  // The page looks now and then whether the window is closed; here it must have looked before the outcome is there.
  const looked = () => tab.waitForFunction(() => window.closedSeen > 0);
  await consent(popup, choice, scenario === 'severed' ? looked : undefined);
  if (choice === '#deny') {
    // The failure is told at once, and is not the end while the window offers to try again.
    await tab.waitForFunction(() => window.failures.length > 0);
    await popup.getByRole('link', { name: 'Try again' }).waitFor();
    if ((await tab.locator('#told').textContent()) !== '') throw new Error('the failure is final though it may be tried again');
    if (scenario === 'again') {
      await popup.getByRole('link', { name: 'Try again' }).click();
      await consent(popup, '#allow');
    } else {
      await popup.close();
    }
  }
  await tab.waitForFunction(() => document.getElementById('told').textContent !== '');
  const end = JSON.parse(await tab.locator('#told').textContent());
  const messages = await tab.evaluate(() => window.messages);
  const closedSeen = await tab.evaluate(() => window.closedSeen);
  const failures = await tab.evaluate(() => window.failures);
  const closes = choice === '#allow' ? await popup.waitForEvent('close', { timeout: 8000 }).then(() => true, () => popup.isClosed()) : popup.isClosed();
  await context.close();
  return { end, messages, closedSeen, closes, failures };
}

const scenarios = {
  popup: () => opened('popup'),
  denied: () => opened('denied', 'denied', '#deny'),
  again: () => opened('again', 'again', '#deny'),
  severed: () => opened('severed'),
  // Nobody clicks, so no window opens: the whole page goes there and comes back.
  async blocked() {
    const context = await browser.newContext();
    watch(context, 'blocked');
    const tab = await context.newPage();
    await tab.goto(`${app}/?scenario=blocked`);
    await consent(tab, '#allow');
    await tab.waitForURL((url) => url.pathname === '/done');
    const pages = context.pages().length;
    const back = tab.url();
    await context.close();
    return { pages, back };
  },
  // A page that is not the user's own opens the link, frames it, listens and asks.
  async hostile() {
    const context = await browser.newContext();
    context.setDefaultTimeout(TIMEOUT);
    const tab = await context.newPage();
    await tab.goto(`${hostile}/?scenario=hostile`);
    // The browser's own page about a refused frame speaks of connecting too: our style sheet tells ours.
    const ours = async (frame) => (await frame.content().catch(() => '')).includes('/connect.css');
    const framed = (await Promise.all(tab.frames().slice(1).map(ours))).includes(true);
    const waiting = context.waitForEvent('page');
    await tab.locator('#go').click();
    const popup = await waiting;
    await popup.waitForURL((url) => url.href.startsWith(`${gateway}/api/connect/hub?`));
    if (!(await ours(popup))) throw new Error('a page of ours has no style sheet of ours');
    await consent(popup, '#allow');
    await popup.waitForLoadState().catch(() => {});
    await new Promise((done) => setTimeout(done, 500));
    const asked = await tab.evaluate(() => window.asks());
    const messages = await tab.evaluate(() => window.messages);
    await context.close();
    return { messages, asked, framed };
  },
  // Without scripts the same pages do the same.
  async scriptless() {
    const context = await browser.newContext({ javaScriptEnabled: false });
    watch(context, 'scriptless');
    const tab = await context.newPage();
    await tab.goto(links.scriptless.url);
    await consent(tab, '#allow');
    await tab.waitForURL((url) => url.pathname === '/api/connect/hub/outcome');
    const heading = await tab.locator('h1').textContent();
    await tab.getByRole('link', { name: 'Return to the application' }).click();
    await tab.waitForURL((url) => url.pathname === '/done');
    await context.close();
    return { heading };
  },
  // With the keyboard alone; and no page is wider than a narrow window.
  async keyboard() {
    const context = await browser.newContext({ viewport: { width: 320, height: 640 } });
    watch(context, 'keyboard');
    const tab = await context.newPage();
    await tab.goto(links.keyboard.url);
    const order = [];
    const wide = [];
    const measure = async (name) => {
      if (await tab.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth)) wide.push(name);
    };
    await measure('permission');
    for (let step = 0; step < 12; step++) {
      await tab.keyboard.press('Tab');
      const focused = await tab.evaluate(() => {
        const at = document.activeElement;
        return at.labels?.[0]?.textContent.trim() ?? at.textContent.trim();
      });
      order.push(focused);
      if (focused.startsWith('Continue')) break;
      if (order.length === 1) await tab.keyboard.press('Space');
    }
    await tab.keyboard.press('Enter');
    await tab.waitForURL((url) => url.port === String(options.service));
    await tab.locator('#deny').click();
    await tab.waitForURL((url) => url.pathname === '/api/connect/hub/outcome');
    await measure('failure');
    await tab.getByRole('link', { name: 'Try again' }).press('Enter');
    await consent(tab, '#allow');
    await tab.waitForURL((url) => url.pathname === '/api/connect/hub/outcome' || url.pathname === '/done');
    await context.close();
    return { order, wide };
  },
  // A code for another device is shown, and the page goes on by itself once the person has consented there.
  async device() {
    const context = await browser.newContext({ viewport: { width: 320, height: 640 } });
    watch(context, 'device');
    const tab = await context.newPage();
    await tab.goto(links.device.url);
    await tab.getByRole('button', { name: /^(Connect|Continue)/ }).click();
    await tab.waitForURL((url) => url.pathname === '/api/connect/screen/device');
    const code = await tab.locator('code').first().textContent();
    const leads = await tab.getByRole('link', { name: /^Open/ }).getAttribute('href');
    const wide = await tab.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
    // The page has nothing but the server's word to go on.
    await fetch(`http://127.0.0.1:${options.seen}/`);
    await tab.waitForURL((url) => url.pathname === '/api/connect/screen/outcome');
    const heading = await tab.locator('h1').textContent();
    await context.close();
    return { code, leads, wide, heading };
  },
  // Every page in every look, for people to see.
  async pictures() {
    if (!options.shots) return {};
    for (const scheme of ['light', 'dark']) {
      for (const width of [320, 1280]) {
        const name = `pictures-${scheme}-${width}`;
        const context = await browser.newContext({ viewport: { width, height: 800 }, colorScheme: scheme });
        context.setDefaultTimeout(TIMEOUT);
        const tab = await context.newPage();
        const shot = (which) => tab.screenshot({ path: `${options.shots}/${which}-${scheme}-${width}.png`, fullPage: true });
        await tab.goto(links[name].url);
        await shot('permission');
        await tab.locator('select, input[type=text]').first().fill('Not A Site').catch(() => {});
        await tab.getByRole('button', { name: /Continue to/ }).click();
        await shot('permission-wrong');
        await tab.goto(links[name].url);
        await consent(tab, '#deny');
        await tab.waitForURL((url) => url.pathname === '/api/connect/hub/outcome');
        await shot('denied');
        await tab.getByRole('link', { name: 'Try again' }).click();
        await consent(tab, '#allow');
        await shot('connected');
        await tab.goto(`${gateway}/api/auth/callback/hub?state=x&code=y`);
        await shot('refused');
        await context.close();
      }
    }
    return {};
  },
};

const ends = {};
for (const [name, run] of Object.entries(scenarios)) {
  if (!links[name] && name !== 'pictures') continue;
  try {
    ends[name] = await run();
  } catch (error) {
    ends[name] = { fault: String(error.stack ?? error) };
  }
}
console.log(JSON.stringify({ ends, faults }));
await browser.close();
for (const server of servers) server.close();
process.exit(0);
