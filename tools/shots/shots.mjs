// Pictures of the page for the documentation: `make shots`. The demonstration is what they show.

import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import path from "node:path";

const root = path.resolve(import.meta.dirname, "../..");
const { chromium } = createRequire(path.join(root, "tests/browser/package.json"))("playwright-core");
const folder = process.argv[2];
/** What a picture shows: a minute, by which it is full. */
const WAIT_MS = 62_000;
const SHOTS = [
  { name: "page-live-dark", view: "live", colorScheme: "dark", viewport: { width: 1040, height: 700 } },
  { name: "page-live-light", view: "live", colorScheme: "light", viewport: { width: 1040, height: 700 } },
  { name: "page-prompts-light", view: "prompts", colorScheme: "light", viewport: { width: 1040, height: 700 } },
  { name: "page-phone-dark", view: "live", colorScheme: "dark", viewport: { width: 390, height: 844 } },
  { name: "page-phone-light", view: "prompts", colorScheme: "light", viewport: { width: 390, height: 844 } },
];

const demo = spawn(process.env.CLAPD, ["demo", "--page"], { stdio: ["ignore", "pipe", "inherit"] });
const url = await new Promise((resolve) => {
  let text = "";
  demo.stdout.on("data", (data) => {
    text += data;
    const found = text.match(/http:\S+/);
    if (found) resolve(found[0]);
  });
});
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
try {
  while (!await fetch(url).then(() => true, () => false)) await new Promise((resolve) => setTimeout(resolve, 200));
  // One after the other: five pages at once are drawn by the processor here, which the model needs itself.
  for (const { name, view, ...options } of SHOTS.filter((shot) => !process.env.ONLY || shot.name === process.env.ONLY)) {
    const context = await browser.newContext(options);
    const page = await context.newPage();
    await page.goto(`${url}#/recording/${view}`);
    await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
    await page.screenshot({ path: path.join(folder, `${name}.png`) });
    console.log(path.join(folder, `${name}.png`));
    await context.close();
  }
} finally {
  await browser.close();
  demo.kill("SIGINT");
}
