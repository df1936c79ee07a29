// A student: opens a player page (or an MPD) in Chromium and does what its standard input asks, a JSON command a line, one JSON reply a line.
// node watch.mjs LOGFILE; the commands and their fields are the functions of `commands` below. Ends with its standard input.
import { createWriteStream, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import puppeteer from 'puppeteer-core';

const here = dirname(fileURLToPath(import.meta.url));
const log = createWriteStream(process.argv[2] ?? '/dev/null', { flags: 'a' });
const note = (kind, text) => log.write(`${new Date().toISOString()} ${kind}: ${text}\n`);
const profile = mkdtempSync(join(tmpdir(), 'lectern-browser-'));

const browser = await puppeteer.launch({
  executablePath: process.env.LECTERN_CHROMIUM ?? '/usr/bin/chromium',
  headless: true,
  userDataDir: profile,
  protocolTimeout: 300_000,
  defaultViewport: { width: 1280, height: 800 },
  args: [
    '--no-sandbox', '--disable-gpu', '--autoplay-policy=no-user-gesture-required', '--disable-background-networking', '--disable-quic',
    '--no-first-run', '--disable-component-update', '--disable-sync', '--disable-default-apps', '--disable-extensions',
    '--disable-features=Translate,OptimizationHints,MediaRouter',
  ],
});
const page = await browser.newPage();
page.on('console', (message) => note(`console.${message.type()}`, message.text()));
page.on('pageerror', (error) => note('pageerror', error.stack ?? String(error)));
page.on('requestfailed', (request) => note('requestfailed', `${request.url()} ${request.failure()?.errorText}`));
page.on('response', (response) => { if (response.status() >= 400 || /captions/.test(response.url())) note('response', `${response.status()} ${response.url()}`); });
// What the page asked for, of late: each path with its query and the answer's status.
const requests = [];
page.on('response', (response) => {
  const url = new URL(response.url());
  requests.push([url.pathname + url.search, response.status()]);
  if (requests.length > 5000) requests.shift();
});
await page.evaluateOnNewDocument(readFileSync(join(here, 'probe.js'), 'utf8'));

// A page with a video element and a script of ours. It is in the place of a refusal by the source's own server: Chromium lets no page from
// elsewhere (about:blank) fetch from a private address, and a refusal has no policy.
async function bare(source, script, withinMs) {
  await page.goto(new URL('/a-page-of-the-tests', source).href, { timeout: withinMs });
  await page.setContent('<!doctype html><video id="video" muted playsinline style="width: 640px"></video>');
  await page.addScriptTag({ path: join(here, script) });
}

async function inTime(loaded, source, withinMs) {
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error(`${source} is not loaded within ${withinMs} ms`)), withinMs).unref());
  return Promise.race([loaded, late]);
}

const commands = {
  // Opens a page and waits for its `window.lectern`; `source` replaces what the page plays.
  async open({ url, source, withinMs }) {
    const opened = Date.now();
    const response = await page.goto(url, { waitUntil: 'domcontentloaded', timeout: withinMs });
    if (!response.ok()) throw new Error(`${url} answers ${response.status()}`);
    // page.waitForFunction makes a function of a string, which the player page's content security policy forbids.
    while (!(await page.evaluate(() => Boolean(window.lectern?.hls && window.lectern.video)))) {
      if (Date.now() - opened > withinMs) throw new Error(`${url} loads no playlist within ${withinMs} ms`);
      await new Promise((next) => setTimeout(next, 50));
    }
    if (source) await page.evaluate((from) => window.lectern.hls.loadSource(from), source);
    return { openedAt: opened };
  },
  // Plays an MPD or a playlist with shaka-player on a page that is written here; `window.lectern` has no hls then.
  async openShaka({ source, withinMs }) {
    const opened = Date.now();
    await bare(source, 'node_modules/shaka-player/dist/shaka-player.compiled.js', withinMs);
    const loaded = page.evaluate(async (from) => {
      const video = document.getElementById('video');
      const shaka = new window.shaka.Player();
      shaka.addEventListener('error', ({ detail }) => {
        console.error(`shaka-player: ${detail.code} ${JSON.stringify(detail.data)}`);
        if (detail.severity === window.shaka.util.Error.Severity.CRITICAL) window.lectern.failed ??= detail.code; // what follows is of its making
      });
      // A part that was hinted at and never came, because the lecture ended before it, is a 404: by itself shaka-player asks
      // again only for as long as the lecture is live (docs/playback.md).
      shaka.configure('streaming.failureCallback', ({ code }) => { if (code === window.shaka.util.Error.Code.BAD_HTTP_STATUS) shaka.retryStreaming(0.5); });
      const said = [];
      shaka.addEventListener('metadata', ({ startTime, payload: { key, description, data } }) => {
        if (key === 'TXXX') said.push({ name: description, value: data, time: startTime });
      });
      window.lectern = { hls: null, shaka, video, said };
      await shaka.attach(video);
      await shaka.load(from).catch((error) => { throw new Error(`shaka-player: ${error.code} ${JSON.stringify(error.data)}`); });
      return shaka.getManifestType() + (shaka.isLive() ? ', live' : '');
    }, source);
    return { openedAt: opened, kind: await inTime(loaded, source, withinMs) };
  },
  // Plays an MPD with dash.js and its defaults on a page that is written here; `window.lectern` has no hls then.
  async openDash({ source, withinMs }) {
    const opened = Date.now();
    await bare(source, 'node_modules/dashjs/dist/legacy/umd/dash.all.min.js', withinMs);
    const loaded = page.evaluate((from) => new Promise((resolve) => {
      const video = document.getElementById('video');
      const dash = window.dashjs.MediaPlayer().create();
      dash.on('error', ({ error }) => console.error(`dash.js: ${error?.code} ${error?.message}`));
      // It plays by itself. Who plays the element before dash.js listens keeps it from ever loading the MPD again.
      dash.on('playbackPlaying', () => resolve(`DASH${dash.isDynamic() ? ', live' : ''}${dash.getLowLatencyModeEnabled() ? ', low latency' : ''}`));
      // It hands out the tag as it is: ten bytes of its head and ten of its frame's, the encoding, the description, a zero, the value.
      const said = [];
      dash.on('https://aomedia.org/emsg/ID3', ({ event }) => {
        const [name, value] = new TextDecoder().decode(event.messageData.subarray(21)).split('\0');
        said.push({ name, value, time: event.calculatedPresentationTime ?? event.presentationTime });
      }, null, { mode: window.dashjs.MediaPlayer.events.EVENT_MODE_ON_RECEIVE });
      dash.initialize(video, from, true);
      window.lectern = { hls: null, dash, video, said };
    }), source);
    return { openedAt: opened, kind: await inTime(loaded, source, withinMs) };
  },
  // Plays a playlist with hls.js as it comes, on a page that is written here: for the peers of benchmarks.
  async openHls({ source, withinMs }) {
    const opened = Date.now();
    await bare(source, 'hls.min.js', withinMs);
    await page.evaluate(async (from, until) => {
      // hls.js itself gives up at a 404.
      while (!(await fetch(from, { cache: 'no-store' })).ok) {
        if (Date.now() > until) throw new Error(`${from} is not there`);
        await new Promise((next) => setTimeout(next, 100));
      }
      const video = document.getElementById('video');
      const hls = new window.Hls();
      hls.loadSource(from);
      hls.attachMedia(video);
      window.lectern = { hls, video };
    }, source, opened + withinMs);
    return { openedAt: opened };
  },
  // What a student would press.
  async press({ selector, withinMs }) {
    const found = await page.waitForSelector(selector, { visible: true, timeout: withinMs });
    await found.click();
  },
  // The requests whose path and query match, and what they were answered.
  requests: async ({ pattern }) => requests.filter(([path]) => new RegExp(pattern).test(path)),
  // Every command that is not here is a function of probe.js, run in the page.
  async screenshot({ path }) {
    await page.screenshot({ path });
    return { path };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  let reply;
  try {
    const { do: name, ...fields } = JSON.parse(line);
    const run = commands[name] ?? ((job) => page.evaluate((what, given) => window.probe[what](given), name, job));
    reply = { ok: (await run(fields)) ?? null };
  } catch (error) {
    const state = await page.evaluate(() => window.probe?.state()).catch(() => null);
    reply = { error: String(error.message ?? error), state };
  }
  note('command', `${line} -> ${JSON.stringify(reply).slice(0, 200_000)}`);
  process.stdout.write(`${JSON.stringify(reply)}\n`);
}
await browser.close();
rmSync(profile, { recursive: true, force: true, maxRetries: 3 });
