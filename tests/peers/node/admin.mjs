// Drives a real Chromium through the admin page, and prints what came of it as JSON.
//
// Its one argument is JSON: `chromium` (the program), `gateway` (the admin door's origin), `name` and `password` (of
// someone who may sign in), `paths` (every screen), `shots` (a directory for pictures, or null).

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

const options = JSON.parse(process.argv[2]);
const { gateway, paths } = options;
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const TAGS = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];

const browser = await chromium.launch({
  executablePath: options.chromium,
  args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'],
});
const faults = [];

function watch(context, name) {
  context.setDefaultTimeout(30000);
  context.on('console', (message) => {
    if (message.type() === 'error') faults.push(`${name}: ${message.text()}`);
  });
  context.on('weberror', (error) => faults.push(`${name}: ${error.error()}`));
  context.on('request', (request) => {
    if (!request.url().startsWith('data:') && new URL(request.url()).origin !== gateway) faults.push(`${name}: loads ${request.url()}`);
  });
}

async function signIn(page) {
  await page.goto(`${gateway}/sign-in`);
  await page.getByLabel('Name').fill(options.name);
  await page.getByLabel('Password or token').fill(options.password);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.waitForURL((url) => url.pathname !== '/sign-in');
}

// axe is put in from outside the page, so that the page's policy stays as it is.
async function violations(page) {
  await page.evaluate(axe);
  const found = await page.evaluate((tags) => globalThis.axe.run(document, { runOnly: tags }), TAGS);
  return found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => `${node.html} ${node.failureSummary}`).slice(0, 2).join(' | ')}`);
}

const wide = (page) => page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);

async function look(scheme, width) {
  const context = await browser.newContext({ colorScheme: scheme, viewport: { width, height: 900 } });
  const name = `${scheme}-${width}`;
  watch(context, name);
  const page = await context.newPage();
  await page.goto(`${gateway}/sign-in`);
  const seen = [['sign-in', await violations(page), await wide(page)]];
  if (options.shots) await page.screenshot({ path: `${options.shots}/${name}-sign-in.png`, fullPage: true });
  await signIn(page);
  for (const path of paths) {
    await page.goto(gateway + path);
    seen.push([path, await violations(page), await wide(page)]);
    const file = path.replace(/[^a-z0-9]+/gi, '_').slice(0, 40);
    if (options.shots) await page.screenshot({ path: `${options.shots}/${name}-${file}.png`, fullPage: true });
  }
  await context.close();
  return seen.filter(([, found, scrolls]) => found.length || scrolls).map(([path, found, scrolls]) => `${name} ${path}: ${scrolls ? 'scrolls sideways; ' : ''}${found.join('; ')}`);
}

// Nothing but the keyboard: skip link, search, rows, keys, sign-out.
async function keyboard() {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  watch(context, 'keyboard');
  const page = await context.newPage();
  await page.goto(`${gateway}/sign-in`);
  await page.keyboard.press('Tab');
  await page.keyboard.type(options.name);
  await page.keyboard.press('Tab');
  await page.keyboard.type(options.password);
  await page.keyboard.press('Enter');
  await page.waitForURL((url) => url.pathname !== '/sign-in');
  await page.goto(`${gateway}/integrations`);
  const told = {};
  await page.keyboard.press('Tab');
  told.skip = await page.evaluate(() => document.activeElement.textContent);
  await page.keyboard.press('Enter');
  told.main = await page.evaluate(() => document.activeElement.id);
  await page.keyboard.press('/');
  told.search = await page.evaluate(() => document.activeElement.type);
  await page.keyboard.type('keyed');
  await page.waitForURL((url) => url.searchParams.get('q') === 'keyed');
  await page.waitForFunction(() => document.querySelectorAll('.card').length === 1);
  // The last answer to what was typed may still be on its way, and would take the focus with the old cards.
  await page.waitForLoadState('networkidle');
  told.focus = await page.evaluate(() => document.activeElement.type);
  await page.keyboard.press('Tab');
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press('j');
  told.row = await page.evaluate(() => document.activeElement.textContent);
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  told.visible = outline !== 'none';
  await page.keyboard.press('Enter');
  await page.waitForURL((url) => url.pathname === '/integrations/keyed');
  await page.keyboard.press('?');
  told.keys = await page.evaluate(() => document.getElementById('keys').open);
  await page.keyboard.press('Escape');
  told.closed = await page.evaluate(() => !document.getElementById('keys').open);
  // The box of the dialog keeps the focus until the next frame: it takes no letters from the page.
  told.again = await page.evaluate(() => {
    const box = document.getElementById('keys-act');
    box.dispatchEvent(new KeyboardEvent('keydown', { key: '?', bubbles: true }));
    return document.getElementById('keys').open;
  });
  // Turned off, no letter acts, also on the next screen; the button still shows them, and turns them on.
  await page.locator('#keys-act').uncheck();
  await page.keyboard.press('Escape');
  await page.reload();
  await page.keyboard.press('?');
  told.off = await page.evaluate(() => !document.getElementById('keys').open);
  await page.getByRole('button', { name: 'Keys', exact: true }).click();
  await page.locator('#keys-act').check();
  await page.keyboard.press('Escape');
  await page.keyboard.press('?');
  told.on = await page.evaluate(() => document.getElementById('keys').open);
  await page.keyboard.press('Escape');
  await page.goBack();
  told.back = new URL(page.url()).search;
  await context.close();
  return told;
}

// The key's form, where the answer is put into the page and what was typed stays.
async function entered() {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  watch(context, 'entered');
  const page = await context.newPage();
  await signIn(page);
  await page.goto(`${gateway}/integrations/keyed/connect`);
  await page.getByLabel('Secret key').fill('sk_wrong');
  await page.getByRole('button', { name: 'Test', exact: true }).click();
  await page.locator('#outcome .banner').waitFor();
  const told = { wrong: await page.locator('#outcome').textContent(), kept: await page.getByLabel('Secret key').inputValue() };
  await page.getByLabel('Secret key').fill('sk_good');
  await page.getByRole('button', { name: 'Test', exact: true }).click();
  await page.locator('#outcome .told').waitFor();
  told.right = await page.locator('#outcome').textContent();
  await page.getByLabel('What the connection is called').fill('typed');
  await page.getByRole('button', { name: 'Test and keep' }).click();
  await page.waitForURL((url) => url.pathname.startsWith('/connections/'));
  told.heading = await page.locator('h1').textContent();
  await context.close();
  return told;
}

// A secret that is asked for stands where it was asked for, and is gone when the screen is loaded again.
async function revealed() {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  watch(context, 'revealed');
  const page = await context.newPage();
  await signIn(page);
  const endpoint = paths.find((path) => /^\/webhooks\/whk_[^/]+$/.test(path));
  await page.goto(gateway + endpoint);
  await page.getByRole('button', { name: 'Show the secret' }).click();
  await page.locator('#secret dl').waitFor();
  const told = { stays: new URL(page.url()).pathname === endpoint, shown: await page.locator('#secret code').count() };
  await page.reload();
  told.left = await page.locator('#secret code').count();
  await context.close();
  return told;
}

// The live activity by a filter, while both kinds of calls happen; then paused; then all of it as a file.
async function activity() {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  watch(context, 'activity');
  const page = await context.newPage();
  await signIn(page);
  await page.goto(`${gateway}/activity/live?path=/live&outcome=error`);
  // Where the pointer is on a row, rows wait.
  await page.mouse.move(0, 0);
  const count = () => page.locator('#rows tr').count();
  const before = await count();
  await page.waitForFunction((least) => document.querySelectorAll('#rows tr').length >= least, before + 3);
  const told = { fine: await page.locator('#rows tr', { hasText: '/live/fine' }).count() };
  await page.waitForFunction(() => / ago$/.test(document.querySelector('#rows tr:last-child time').textContent));
  await page.keyboard.press('t');
  told.moment = await page.evaluate(() => [...document.querySelectorAll('#rows time')].every((time) => time.textContent === time.title));
  // What the pointer is on stays under it: the button that tells of more moves nothing.
  await page.locator('#rows tr').first().hover();
  const under = () => page.evaluate(() => document.querySelector('#rows tr:hover a')?.href);
  const pointed = await under();
  await page.waitForFunction(() => parseInt(document.getElementById('live-new').textContent) >= 3);
  told.under = Boolean(pointed) && (await under()) === pointed;
  await page.mouse.move(0, 0);
  await page.locator('#live-new').waitFor({ state: 'hidden' });
  // What is read stays where it is.
  const read = page.locator('#rows a').first();
  await read.focus();
  const place = await read.boundingBox();
  await page.locator('#live-new').waitFor();
  const waits = await count();
  await page.waitForFunction(() => parseInt(document.getElementById('live-new').textContent) >= 3);
  told.stays = (await count()) === waits && (await read.boundingBox()).y === place.y;
  await page.locator('#live-new').click();
  await page.waitForFunction((least) => document.querySelectorAll('#rows tr').length >= least, waits + 3);
  await page.evaluate(() => document.activeElement.blur());
  await page.mouse.move(0, 0);
  // Another filter is another stream.
  await page.locator('select[name=outcome]').selectOption('success');
  await page.waitForURL((url) => url.searchParams.get('outcome') === 'success');
  await page.waitForFunction(() => document.querySelectorAll('#rows tr').length >= 3 && !document.querySelector('#rows').textContent.includes('/live/bad'));
  const shown = await count();
  await page.waitForFunction((least) => document.querySelectorAll('#rows tr').length >= least, shown + 2);
  told.bad = await page.locator('#rows tr', { hasText: '/live/bad' }).count();
  await page.getByRole('link', { name: 'Pause' }).click();
  await page.waitForURL((url) => url.pathname === '/activity');
  told.paused = new URL(page.url()).search;
  await page.locator('#rows a').first().click();
  await page.waitForURL((url) => url.pathname.startsWith('/activity/act_'));
  told.entry = (await page.locator('h1').textContent()).startsWith('GET /live/fine');
  await page.goto(`${gateway}/activity?caller=exported`);
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('link', { name: /^CSV of all/ }).click()]);
  const lines = readFileSync(await download.path(), 'utf8').trimEnd().split('\r\n');
  told.rows = lines.length - 1;
  told.formulas = lines.slice(1).filter((line) => /(^|,)"?[=+\-@\t]/.test(line)).length;
  told.name = download.suggestedFilename();
  await context.close();
  return told;
}

// A filter that is half typed, and one that is typed after the session has ended.
async function refused() {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  watch(context, 'refused');
  const page = await context.newPage();
  await signIn(page);
  await page.goto(`${gateway}/activity?status=404`);
  await page.locator('input[name=status]').fill('4');
  await page.locator('#results.banner').waitFor();
  const told = { words: (await page.locator('#results').textContent()).includes('`4`'), address: new URL(page.url()).search };
  await page.locator('input[name=status]').fill('5xx');
  await page.waitForURL((url) => url.searchParams.get('status') === '5xx');
  told.results = await page.locator('#results .tabs').count();
  const kept = await context.cookies();
  await context.close();
  // What browsers say of an answer of 401 is no fault of the page.
  const ended = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  await ended.addCookies(kept);
  const other = await ended.newPage();
  await other.goto(`${gateway}/activity`);
  await ended.clearCookies();
  await other.locator('input[name=q]').fill('abc');
  await other.waitForURL((url) => url.pathname === '/sign-in');
  told.back = new URL(other.url()).searchParams.get('to').includes('q=abc');
  await ended.close();
  return told;
}

// Without scripts: filter by a form, follow a link, post a form.
async function scriptless() {
  const context = await browser.newContext({ javaScriptEnabled: false });
  const page = await context.newPage();
  await signIn(page);
  await page.goto(`${gateway}/integrations`);
  await page.getByLabel('Search by name, category or feature').fill('keyed');
  await page.getByRole('button', { name: 'Search' }).click();
  const cards = await page.locator('.card').count();
  await page.locator('.card a').first().click();
  const heading = await page.locator('h1').textContent();
  await page.goto(`${gateway}/configuration`);
  await page.getByRole('button', { name: 'Read the files again' }).click();
  const told = await page.locator('.told').textContent();
  const copies = await page.locator('[data-copy]:visible').count();
  await page.getByRole('button', { name: 'Sign out' }).click();
  const out = new URL(page.url()).pathname;
  await context.close();
  return { cards, heading, told: told.trim(), copies, out };
}

const found = [];
for (const scheme of ['light', 'dark']) for (const width of [320, 1280]) found.push(...(await look(scheme, width)));
const told = { found, keyboard: await keyboard(), entered: await entered(), revealed: await revealed(), activity: await activity(), refused: await refused(), scriptless: await scriptless(), faults };
await browser.close();
console.log(JSON.stringify(told));
