// The scores of hours with the line at which events start: the line is dragged with the mouse, a finger or the keyboard.

import { fill, h, say } from "./dom.js";
import { FONT, begin, onTheme, theme, ticks } from "./paint.js";
import { duration, score, shortTime, time } from "./words.js";

/** Half of the slider's thumb: the plot leaves as much above and below, so that the thumb stands at the line's height. */
const EDGE = 11;
const AXIS = 20;
const LEFT = 24;

export class Past {
  /** `move(start)` hears where the line is dragged to. */
  constructor({ start, isFixed, name, move }) {
    this.start = start;
    this.stop_ = start - 1.5;
    this.data = null;
    this.supposed = null;
    this.canvas = h("canvas", { class: "past", role: "img" });
    this.readout = h("output", { class: "readout" });
    this.table = h("table", { class: "hidden" });
    this.slider = isFixed ? null : h("input", { type: "range", min: "0", max: "10", step: "0.1", value: String(start), "aria-label": `${name}: score at which an event starts`,
      oninput: () => this.#moved(+this.slider.value) });
    this.mark = h("b", { class: "mark" });
    this.element = h("div", { class: "curve" }, h("div", { class: "plot" }, this.canvas, this.readout), this.slider && h("div", { class: "slide" }, this.slider, this.mark), this.table);
    this.move = move;
    this.name = name;
    this.forget = onTheme(() => this.draw());
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(this.canvas);
    if (move && !isFixed) this.#drag();
    this.#read();
  }

  stop() {
    this.forget();
    this.resized.disconnect();
  }

  setRule(start, stop) {
    this.start = start;
    this.stop_ = stop;
    if (this.slider) {
      this.slider.value = start;
      this.slider.setAttribute("aria-valuetext", `${score(start)} of 10`);
      say(this.mark, score(start));
      this.mark.style.setProperty("--share", start / 10);
    }
    this.draw();
  }

  /** What another rule would have made of the same sound; null: as it was. */
  suppose(events) {
    this.supposed = events;
    this.draw();
  }

  /** `at` and `scores` are columns; events have `started_at` and `ended_at`. */
  show(data) {
    this.data = data;
    this.envelope = null;
    this.draw();
    this.#describe();
  }

  #moved(start) {
    this.setRule(start, this.stop_);
    this.move(start);
  }

  #drag() {
    const at = (event) => {
      const box = this.canvas.getBoundingClientRect();
      const share = 1 - (event.clientY - box.top - EDGE) / (box.height - AXIS - 2 * EDGE);
      return Math.round(Math.max(0, Math.min(10, share * 10)) * 10) / 10;
    };
    let isDragging = false;
    this.canvas.addEventListener("pointerdown", (event) => {
      // A finger on the curve scrolls the page; one on the line drags it.
      if (Math.abs(at(event) - this.start) > 0.9) return;
      isDragging = true;
      this.canvas.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    this.canvas.addEventListener("pointermove", (event) => {
      this.canvas.classList.toggle("grab", isDragging || Math.abs(at(event) - this.start) < 0.6);
      if (isDragging) this.#moved(at(event));
    });
    for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, () => { isDragging = false; });
    this.canvas.addEventListener("touchstart", (event) => {
      const touch = event.touches[0];
      if (Math.abs(at(touch) - this.start) <= 0.9) event.preventDefault();
    }, { passive: false });
  }

  /** What the pointer is at. */
  #read() {
    const show = (event) => {
      const { data } = this;
      if (!data?.at.length) return;
      const box = this.canvas.getBoundingClientRect();
      const pixel = event.clientX - box.left;
      if (pixel < LEFT) return;
      const wanted = data.from + ((pixel - LEFT) / (box.width - LEFT)) * (data.to - data.from);
      // The highest beneath the pointer: a peak is narrower than a pixel.
      const reach = (data.to - data.from) / box.width * 2;
      let best = -1;
      for (let index = lowerBound(data.at, wanted - reach); index < data.at.length && data.at[index] <= wanted + reach; index += 1) {
        if (data.scores[index] !== null && (best < 0 || data.scores[index] > data.scores[best])) best = index;
      }
      this.readout.hidden = best < 0;
      if (best < 0) return;
      const found = data.events.find((it) => it.started_at <= data.at[best] && (it.ended_at ?? data.to) >= data.at[best]);
      say(this.readout, `${time(data.at[best])}  ${score(data.scores[best])}${found ? ` · event, ${duration((found.ended_at ?? data.to) - found.started_at)}` : ""}`);
      this.readout.style.left = `${Math.min(pixel, box.width - 150)}px`;
    };
    this.readout.hidden = true;
    this.canvas.addEventListener("pointermove", show);
    this.canvas.addEventListener("pointerleave", () => { this.readout.hidden = true; });
  }

  /** The curve for those who do not see it: its highest in twelve parts. */
  #describe() {
    const { from, to, at, scores, events } = this.data;
    const parts = 12;
    const highest = new Array(parts).fill(-Infinity);
    at.forEach((when, index) => {
      const part = Math.min(parts - 1, Math.floor(((when - from) / (to - from)) * parts));
      if (part >= 0 && scores[index] > highest[part]) highest[part] = scores[index];
    });
    const top = Math.max(...highest);
    this.canvas.setAttribute("aria-label", `Scores of ${this.name} from ${shortTime(from)} to ${shortTime(to)}: ${Number.isFinite(top) ? `highest ${score(top)}` : "nothing heard"}, ${events.length} events`);
    fill(this.table, h("caption", {}, `Scores of ${this.name}`), h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "From"), h("th", { scope: "col" }, "Highest score"))),
      h("tbody", {}, highest.map((value, part) => h("tr", {}, h("td", {}, shortTime(from + (part * (to - from)) / parts)), h("td", {}, score(value))))));
  }

  draw() {
    const frame = this.data && begin(this.canvas);
    if (!frame) return;
    const { context, width, height } = frame;
    const { from, to, events } = this.data;
    const colours = theme();
    const bottom = height - AXIS - EDGE;
    const x = (at) => LEFT + ((at - from) / (to - from)) * (width - LEFT);
    const y = (value) => EDGE + (1 - Math.max(0, Math.min(10, value)) / 10) * (bottom - EDGE);
    this.#drawAxes(context, x, y, width, height, colours);
    const isNew = (event) => event.new === true;
    for (const event of this.supposed ?? events) {
      const left = x(event.started_at);
      const right = Math.max(left + 3, x(event.ended_at ?? to));
      context.fillStyle = colours["event-soft"];
      context.fillRect(left, EDGE, right - left, bottom - EDGE);
      context.fillStyle = isNew(event) ? colours.accent : colours.event;
      context.fillRect(left, bottom, right - left, 5);
      if (isNew(event)) {
        context.beginPath();
        context.arc((left + right) / 2, bottom + 2.5, 4.5, 0, 7);
        context.fill();
      }
    }
    this.#drawCurve(context, x, y, width, colours);
    context.setLineDash([2, 4]);
    line(context, y(this.stop_), width, colours.muted, 1);
    context.setLineDash([]);
    line(context, y(this.start), width, colours.event, 1.5);
    if (!this.slider) {
      context.fillStyle = colours.event;
      context.font = FONT;
      context.textAlign = "right";
      context.fillText(`start ${score(this.start)}`, width - 4, y(this.start) - 8);
      context.textAlign = "start";
    }
  }

  #drawAxes(context, x, y, width, height, colours) {
    const { from, to } = this.data;
    context.font = FONT;
    context.textBaseline = "middle";
    for (const value of [0, 5, 10]) {
      context.fillStyle = colours.line;
      context.fillRect(LEFT, Math.round(y(value)), width - LEFT, 1);
      context.fillStyle = colours.muted;
      context.fillText(String(value), value === 10 ? 0 : 7, y(value));
    }
    context.textAlign = "center";
    const { times, isFine } = ticks(from, to, width, 90);
    for (const at of times) if (x(at) > LEFT + 24 && x(at) < width - 24) context.fillText(isFine ? time(at) : shortTime(at), x(at), height - 8);
    context.textAlign = "start";
  }

  /** The lowest and the highest of each pixel: no peak is left out, however many hours there are. */
  #drawCurve(context, x, y, width, colours) {
    const { at, scores } = this.data;
    const top = new Map();
    let previous = null;
    const pieces = [];
    for (let index = 0; index < at.length; index += 1) {
      const value = scores[index];
      if (value === null || !Number.isFinite(value)) continue;
      const pixel = Math.round(x(at[index]) * 2) / 2;
      if (previous === null || at[index] - previous > 30000) pieces.push(top.size);
      previous = at[index];
      const seen = top.get(pixel);
      if (seen === undefined || value > seen) top.set(pixel, value);
    }
    if (!top.size) {
      context.fillStyle = colours.muted;
      context.fillText("Nothing heard in this time yet.", LEFT + 12, y(5) - 12);
      return;
    }
    const points = [...top];
    pieces.push(points.length);
    for (let piece = 0; piece + 1 < pieces.length; piece += 1) {
      const part = points.slice(pieces[piece], pieces[piece + 1]);
      if (!part.length) continue;
      context.beginPath();
      for (const [pixel, value] of part) context.lineTo(pixel, y(value));
      context.strokeStyle = colours.accent;
      context.lineWidth = 1.25;
      context.lineJoin = "round";
      context.stroke();
      context.lineTo(part.at(-1)[0], y(0));
      context.lineTo(part[0][0], y(0));
      context.fillStyle = colours["accent-soft"];
      context.fill();
    }
  }
}

function line(context, y, width, colour, thick) {
  context.strokeStyle = colour;
  context.lineWidth = thick;
  context.beginPath();
  context.moveTo(LEFT, y);
  context.lineTo(width, y);
  context.stroke();
}

/** The first place whose value is not below `wanted`. */
function lowerBound(sorted, wanted) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}
