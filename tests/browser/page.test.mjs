// The page in Debian's Chromium, against a real daemon that hears the bundled recording: `make browser`.
//
// CLAPD names the program, CHROMIUM the browser. `QUICK=1` runs the first test alone, as `make test` does.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

const root = path.resolve(import.meta.dirname, "../..");
const CLAPD = process.env.CLAPD;
const READ = "read-0123456789abcdef";
const WRITE = "write-0123456789abcdef";
const QUICK = Boolean(process.env.QUICK);
/** The dog barks from here to there in the recording, in seconds: tests/audio/demo.csv. */
const DOG = [7.55, 12.55];
/** A busy machine starts a daemon and a browser slowly; nothing here waits for a time, but for what is seen. */
const PATIENCE = 120_000;

let browser;
const ends = [];

const freePort = () => new Promise((resolve) => {
  const server = net.createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});

async function until(condition, what) {
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    const value = await condition();
    if (value) return value;
    assert.ok(Date.now() < deadline, `waited for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** A daemon that plays the recording round and round; `began` is when its first sample was heard, as near as the log shows. */
async function daemon(access = "off") {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "clapd-browser-"));
  const port = await freePort();
  fs.writeFileSync(path.join(folder, "read"), READ, { mode: 0o600 });
  fs.writeFileSync(path.join(folder, "write"), WRITE, { mode: 0o600 });
  const tokens = access === "off" ? "" : 'read_token_file = "read"\nwrite_token_file = "write"\n';
  fs.writeFileSync(path.join(folder, "clapd.toml"), `[node]
id = "attic"
[[source]]
id = "mic"
file = ${JSON.stringify(path.join(root, "tests/audio/demo.ogg"))}
loop = true
realtime = true
[scoring]
hop_s = 0.5
[[prompt]]
id = "dog"
text = "a dog barking"
[[prompt]]
id = "siren"
text = "a siren wailing"
[http]
listen = "127.0.0.1:${port}"
access = "${access}"
${tokens}`);
  const environment = { ...process.env, STATE_DIRECTORY: path.join(folder, "state") };
  const child = spawn(CLAPD, ["run", "--config", path.join(folder, "clapd.toml")], { env: environment, stdio: ["ignore", "ignore", "pipe"] });
  let log = "";
  let began = 0;
  child.stderr.on("data", (data) => {
    log += data;
    if (!began && log.includes("mic: listening")) began = Date.now();
  });
  const ended = new Promise((resolve) => child.on("exit", resolve));
  const stop = async () => {
    child.kill("SIGTERM");
    await ended;
    fs.rmSync(folder, { recursive: true, force: true });
  };
  ends.push(stop);
  const url = `http://127.0.0.1:${port}/`;
  await until(() => {
    assert.equal(child.exitCode, null, log);
    return began && fetch(`${url}api/v1/info`).then(() => true, () => false);
  }, "the daemon");
  return { url, port, stop, get began() { return began; } };
}

/** A page that fails the test where it complains. */
async function open(url, { context, ...options } = {}) {
  const own = context ?? await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await own.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.complaints = [];
  page.on("console", (message) => page.complaints.push(message.text()));
  page.on("pageerror", (error) => page.complaints.push(error.stack));
  await page.goto(url);
  return page;
}

const lane = (page, text) => page.locator(".lane", { hasText: text });

before(async () => {
  assert.ok(CLAPD, "CLAPD names no program; run `make browser`");
  const options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: options, timeout: PATIENCE });
});

after(async () => {
  await browser?.close();
  for (const end of ends) await end();
});

test("the dog's curve crosses its line, and an event appears at the right time", async () => {
  const served = await daemon();
  const page = await open(served.url);
  await lane(page, "a dog barking").locator(".value").waitFor();
  await until(async () => Number(await lane(page, "a dog barking").locator(".value").textContent()) >= 6, "a score above the line");
  await until(async () => (await page.locator("h1").textContent()).includes("A dog barking"), "the headline");
  const item = page.locator(".recent li", { hasText: "a dog barking" }).last();
  const seen = await until(async () => (await item.locator("small").textContent()).match(/^(\d\d:\d\d:\d\d)/)?.[1], "the event");
  // Within its sound and two windows, however often the recording has been played.
  const midnight = new Date(served.began).setHours(0, 0, 0, 0);
  const [hours, minutes, seconds] = seen.split(":").map(Number);
  const length = 116.737;
  const place = ((midnight / 1000 + hours * 3600 + minutes * 60 + seconds - served.began / 1000) % length + length) % length;
  assert.ok(place > DOG[0] - 2.5 && place < DOG[1] + 2.5, `the dog is said to bark at ${place} s`);
  assert.match(await lane(page, "a siren wailing").locator("small").textContent(), /below its start|high enough|a contrast/);
  // The picture has sound in it: not one colour.
  const colours = await page.evaluate(() => {
    const canvas = document.querySelector("canvas.sound");
    const { data } = canvas.getContext("2d").getImageData(canvas.width - 200, 0, 180, canvas.height / 2);
    return new Set(new Uint32Array(data.buffer)).size;
  });
  assert.ok(colours > 30, `${colours} colours`);
  assert.deepEqual(page.complaints, []);
  await page.context().close();
  await served.stop();
});

test("a threshold is dragged and saved, a prompt added and removed", { skip: QUICK }, async () => {
  const served = await daemon();
  const page = await open(`${served.url}#/mic/prompts`);
  const card = page.locator(".prompt", { hasText: "a dog barking" });
  const slider = card.getByRole("slider", { name: /a dog barking/ });
  assert.equal(await slider.inputValue(), "6");
  await slider.focus();
  for (let step = 0; step < 10; step += 1) await page.keyboard.press("ArrowDown");
  assert.equal(await slider.inputValue(), "5");
  await card.locator(".what", { hasText: /would have been|instead of/ }).waitFor();
  await card.getByRole("button", { name: "Save" }).click();
  const prompts = async () => (await (await fetch(`${served.url}api/v1/prompts`)).json()).prompts;
  const dog = await until(async () => (await prompts()).find((it) => it.id === "dog" && it.start === 5), "the saved start");
  assert.equal(dog.stop, 3.5);
  // With the mouse, by the line itself.
  const box = await card.locator("canvas").boundingBox();
  const y = (score) => box.y + 11 + (1 - score / 10) * (box.height - 20 - 22);
  await page.mouse.move(box.x + 300, y(5));
  await page.mouse.down();
  await page.mouse.move(box.x + 300, y(8), { steps: 4 });
  await page.mouse.up();
  assert.ok(Math.abs(await slider.inputValue() - 8) < 0.3);
  await card.getByRole("button", { name: "Undo" }).click();
  assert.equal(await slider.inputValue(), "5");
  await page.locator("#sentence").fill("thunder");
  const ask = page.getByRole("button", { name: "Try it on the past" });
  if (await ask.count()) {
    await ask.click();
    await page.locator(".answer", { hasText: "would have scored" }).waitFor();
  }
  await page.getByRole("button", { name: "Listen for it" }).first().click();
  const added = page.locator(".prompt", { hasText: "thunder" });
  await added.waitFor();
  await added.locator("summary").click();
  await added.getByRole("button", { name: "Remove this prompt" }).click();
  await page.getByRole("button", { name: "Remove", exact: true }).click();
  await added.waitFor({ state: "detached" });
  assert.deepEqual((await prompts()).map((it) => it.id), ["dog", "siren"]);
  assert.deepEqual(page.complaints, []);
  await page.context().close();
  await served.stop();
});

test("the read token reads, the write token writes, and nobody else enters", { skip: QUICK }, async () => {
  const served = await daemon("token");
  const page = await open(served.url);
  const enter = async (token) => {
    await page.getByLabel("Token").fill(token);
    await page.getByRole("button", { name: "Log in" }).click();
  };
  await enter("wrong-wrong-wrong-wrong");
  await page.getByRole("alert").filter({ hasText: "not one of this node's" }).waitFor();
  await enter(READ);
  await lane(page, "a dog barking").waitFor();
  await until(async () => /\d/.test(await lane(page, "a dog barking").locator(".value").textContent()), "a score");
  assert.equal(await page.getByRole("button", { name: "Pause" }).count(), 0);
  await page.getByRole("link", { name: "Prompts" }).click();
  await page.locator(".prompt").first().waitFor();
  assert.equal(await page.getByRole("slider").count() + await page.getByRole("button", { name: "Save" }).count(), 0);
  await page.locator(".controls").getByRole("button", { name: "Log in" }).click();
  await page.getByRole("dialog").getByLabel("Token").fill(WRITE);
  await page.getByRole("dialog").getByRole("button", { name: "Log in" }).click();
  await page.getByRole("slider").first().waitFor();
  await page.getByRole("link", { name: "Live" }).click();
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByRole("heading", { name: "Paused" }).waitFor();
  await page.getByRole("button", { name: "Resume" }).click();
  await page.getByRole("button", { name: "Pause" }).waitFor();
  // The browser itself names each refusal.
  assert.deepEqual(page.complaints.filter((it) => !it.includes("401")), []);
  await page.context().close();
  await served.stop();
});

test("it works below any path, and says when the device is away", { skip: QUICK }, async () => {
  const served = await daemon();
  const proxy = http.createServer((request, response) => {
    if (!request.url.startsWith("/a/b/")) {
      response.writeHead(404).end();
      return;
    }
    const options = { host: "127.0.0.1", port: served.port, path: request.url.slice(4), method: request.method, headers: request.headers };
    const up = http.request(options, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    up.on("error", () => response.destroy());
    response.on("close", () => up.destroy());
    request.pipe(up);
  });
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  const page = await open(`http://127.0.0.1:${proxy.address().port}/a/b/`);
  await until(async () => /\d/.test(await lane(page, "a dog barking").locator(".value").textContent()), "a score");
  for (const name of ["Prompts", "Events", "Device", "Live"]) {
    await page.getByRole("link", { name, exact: true }).click();
    await page.getByRole("heading", { level: 1 }).waitFor();
  }
  assert.deepEqual(page.complaints, []);
  await served.stop();
  await page.locator("#banner", { hasText: "does not answer" }).waitFor();
  await page.context().close();
  proxy.closeAllConnections();
  proxy.close();
});

test("axe finds nothing in either theme", { skip: QUICK }, async () => {
  const served = await daemon();
  const axe = fs.readFileSync(path.join(import.meta.dirname, "node_modules/axe-core/axe.min.js"), "utf8");
  for (const colorScheme of ["light", "dark"]) {
    for (const viewport of [{ width: 1280, height: 900 }, { width: 390, height: 844 }]) {
      const page = await open(served.url, { colorScheme, viewport });
      await until(async () => /\d/.test(await lane(page, "a dog barking").locator(".value").textContent()), "a score");
      await page.evaluate(axe);
      for (const name of ["Live", "Prompts", "Events", "Device"]) {
        await page.getByRole("link", { name, exact: true }).click();
        await page.getByRole("heading", { level: 1 }).waitFor();
        for (const summary of await page.locator("summary").all()) await summary.click();
        const { violations } = await page.evaluate(() => globalThis.axe.run());
        const found = violations.map((it) => `${it.id}: ${it.nodes[0].html}`);
        assert.deepEqual(found, [], `${name}, ${colorScheme}, ${viewport.width}`);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(wide <= 0, `${name} is ${wide} pixels too wide at ${viewport.width}`);
      }
      assert.deepEqual(page.complaints, []);
      await page.context().close();
    }
  }
  await served.stop();
});

test("seven tabs share one stream", { skip: QUICK }, async () => {
  const served = await daemon();
  const context = await browser.newContext();
  const pages = [];
  for (let tab = 0; tab < 7; tab += 1) pages.push(await open(served.url, { context }));
  for (const page of pages) {
    await until(async () => /\d/.test(await lane(page, "a dog barking").locator(".value").textContent()), "a score in each tab");
  }
  const viewers = async () => Number((await (await fetch(`${served.url}metrics`)).text()).match(/^clapd_viewers (\d+)/m)[1]);
  await until(async () => await viewers() === 1, "one stream");
  // Whoever has it goes: another takes over.
  for (const page of pages.splice(0, 6)) await page.close();
  await until(async () => await viewers() === 1, "one stream again");
  const [last] = pages;
  const before = await last.locator(".meter b").textContent();
  await until(async () => await last.locator(".meter b").textContent() !== before, "a level that moves");
  assert.deepEqual(last.complaints, []);
  await context.close();
  await until(async () => await viewers() === 0, "nobody");
  await served.stop();
});

test("a day in a tab does not grow", { skip: QUICK }, async () => {
  const served = await daemon();
  const page = await open(`${served.url}#/mic/device`);
  await page.getByRole("heading", { name: "Sources" }).waitFor();
  const sizes = await page.evaluate(async () => {
    const { Store } = await import("./store.js");
    const store = new Store();
    await store.load();
    store.source = "mic";
    const count = () => {
      let bytes = store.mel.values.byteLength + store.scores.at.byteLength;
      for (const column of store.scores.columns.values()) bytes += column.byteLength;
      return [bytes, store.events.size, store.reasons.length, store.scores.length];
    };
    const columns = btoa(String.fromCharCode(...new Uint8Array(64 * 25).fill(80)));
    const began = Date.now();
    const hours = (from, to) => {
      // A window a second, columns four times a second, an event a minute.
      for (let second = from * 3600; second < to * 3600; second += 1) {
        const at = new Date(began + second * 1000).toISOString();
        store.take("window", { source: "mic", ended_at: at, gated: false, prompts: [{ id: "dog", score: second % 10, verdict: "below" }] });
        for (let part = 0; part < 4; part += 1) {
          store.take("mel", { source: "mic", at: new Date(began + second * 1000 + part * 250).toISOString(), hop_ms: 10, bands: 64, columns });
        }
        if (second % 60 === 0) store.take("event", { source: "mic", id: String(second), prompt: "a dog barking", prompt_id: "dog", event_type: "started", started_at: at, peak: 7 });
      }
      return count();
    };
    return [hours(0, 6), hours(6, 24)];
  });
  assert.deepEqual(sizes[0], sizes[1]);
  assert.ok(sizes[1][0] < 400_000, `${sizes[1][0]} bytes`);
  await page.context().close();
  await served.stop();
});
