// How loud it is: now as a bar, and in the last hours as a curve where the device keeps levels.

import { get } from "./api.js";
import { fill, h, say } from "./dom.js";
import { FONT, begin, onTheme, theme, ticks } from "./paint.js";
import { decibels, shortTime } from "./words.js";

/** The bar's foot in dB below full scale: the noise of a good microphone. */
const FLOOR_DB = -80;
const HOURS = 6;

/** What a level message says: a level below full scale for the bar, and the number that is written, in dB(A) where it is calibrated. */
function reading({ db, peak_db, laeq, unit }) {
  const isCalibrated = Number.isFinite(laeq) && unit === "dBA";
  return { db, peak: peak_db, number: isCalibrated ? laeq : db, unit: isCalibrated ? "dB(A)" : "dB" };
}

export function levelNow() {
  const bar = h("div", { class: "bar", role: "meter", "aria-label": "Sound level", "aria-valuemin": String(FLOOR_DB), "aria-valuemax": "0", "aria-valuenow": String(FLOOR_DB) },
    h("i"), h("u"));
  const number = h("b", {}, "–");
  const unit = h("small", {}, "dB");
  const element = h("div", { class: "meter" }, bar, h("div", {}, number, " ", unit));
  return {
    element,
    show(level) {
      const { db, peak, number: value, unit: name } = reading(level);
      const share = (db) => Math.max(0, Math.min(1, 1 - db / FLOOR_DB));
      bar.style.setProperty("--level", share(db));
      bar.style.setProperty("--peak", share(peak));
      bar.classList.toggle("loud", peak > -1);
      bar.setAttribute("aria-valuenow", Math.round(db));
      bar.setAttribute("aria-valuetext", `${Math.round(value)} ${name}`);
      say(number, decibels(value));
      say(unit, name);
    },
  };
}

/** A card with the level by minute; hidden where the device keeps none. */
export function levelPast(store) {
  const canvas = h("canvas", { class: "levels", role: "img" });
  const said = h("p", { class: "hint" });
  const element = h("section", { class: "card", "aria-labelledby": "levels-title" }, h("h2", { id: "levels-title" }, "Sound level"), canvas, said);
  element.hidden = true;
  let data = null;
  let timer = 0;

  async function load() {
    const to = Math.floor(store.now);
    try {
      data = await get("levels", { source: store.source, from: to - HOURS * 3600000, to, by: "minute" });
    } catch {
      data = null;
    }
    element.hidden = !data?.at.length;
    draw();
  }

  function draw() {
    const frame = data && begin(canvas);
    if (!frame || !data.at.length) return;
    const { context, width, height } = frame;
    const colours = theme();
    const bottom = height - 18;
    const to = data.at.at(-1) + 60000;
    const from = Math.max(data.at[0], to - HOURS * 3600000);
    const all = [...data.laeq, ...(data.la90 ?? [])].filter(Number.isFinite);
    const low = Math.floor((Math.min(...all) - 4) / 10) * 10;
    const high = Math.ceil((Math.max(...(data.la10 ?? data.laeq).filter(Number.isFinite), low + 20) + 2) / 10) * 10;
    const x = (at) => 28 + ((at - from) / Math.max(60000, to - from)) * (width - 30);
    const y = (level) => 4 + (1 - (level - low) / (high - low)) * (bottom - 4);
    context.font = FONT;
    context.textBaseline = "middle";
    for (let level = low; level <= high; level += high - low > 40 ? 20 : 10) {
      context.fillStyle = colours.line;
      context.fillRect(28, y(level), width - 28, 1);
      context.fillStyle = colours.muted;
      context.fillText(String(level), 0, y(level));
    }
    if (data.la10 && data.la90) {
      context.beginPath();
      data.at.forEach((at, index) => context.lineTo(x(at), y(data.la10[index])));
      for (let index = data.at.length - 1; index >= 0; index -= 1) context.lineTo(x(data.at[index]), y(data.la90[index]));
      context.fillStyle = colours["accent-soft"];
      context.fill();
    }
    context.beginPath();
    data.at.forEach((at, index) => context.lineTo(x(at), y(data.laeq[index])));
    context.strokeStyle = colours.accent;
    context.lineWidth = 1.5;
    context.stroke();
    context.fillStyle = colours.muted;
    context.textAlign = "center";
    for (const at of ticks(from, to, width, 70).times) if (x(at) > 40 && x(at) < width - 16) context.fillText(shortTime(at), x(at), height - 7);
    context.textAlign = "start";
    const unit = data.unit === "dBA" ? "dB(A)" : "dB below full scale, A-weighted";
    say(said, `LAeq by minute in ${unit}${data.la10 ? "; the band is from L90 to L10" : ""}.${data.calibrated ? "" : " Not calibrated."}`);
    const last = data.laeq.at(-1);
    canvas.setAttribute("aria-label", `Sound level: ${Math.round(last)} ${data.unit} in the last minute, ${Math.round(Math.min(...all))} to ${Math.round(Math.max(...all))} since ${shortTime(from)}`);
  }

  const forget = onTheme(draw);
  const resized = new ResizeObserver(draw);
  resized.observe(canvas);
  if (store.can.has("levels")) {
    load();
    timer = setInterval(load, 60000);
  }
  return {
    element,
    stop() {
      clearInterval(timer);
      resized.disconnect();
      forget();
    },
  };
}
