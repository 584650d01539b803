// The picture of the sound: what is loud at which pitch, with the events over it.

import { BOLD, FONT, begin, label, onTheme, spectrogramMap, theme, ticks } from "./paint.js";
import { SLOTS, SLOT_MS } from "./rings.js";
import { shortTime, time } from "./words.js";

/** Below the picture, for the clock. */
const AXIS = 22;
const MARKS_HZ = [125, 250, 500, 1000, 2000, 4000, 8000, 16000];
/** A room at rest has noise of its own: less than so many steps from quiet to loud is not spread further. */
const LEAST_SPAN = 95;

export class Spectrogram {
  constructor(canvas, store) {
    this.canvas = canvas;
    this.store = store;
    this.low = 0;
    this.high = 255;
    this.forget = onTheme(() => this.#paintAll());
  }

  stop() {
    this.forget();
  }

  /** Columns since a slot are new. */
  update(first) {
    const { mel } = this.store;
    if (!mel) return;
    if (this.mel !== mel) {
      this.mel = mel;
      this.picture = document.createElement("canvas");
      this.picture.width = SLOTS;
      this.picture.height = mel.bins;
      this.column = new ImageData(1, mel.bins);
      this.pixels = new Uint32Array(this.column.data.buffer);
      this.measured = 0;
      first = mel.newest - SLOTS + 1;
    }
    if (performance.now() - this.measured > 1500) {
      this.measured = performance.now();
      if (this.#measure()) first = mel.newest - SLOTS + 1;
    }
    const from = Math.max(first, mel.newest - SLOTS + 1);
    for (let slot = from; slot <= mel.newest; slot += 1) this.#paint(((slot % SLOTS) + SLOTS) % SLOTS);
  }

  /** Follows the room; whether the colours are others now. */
  #measure() {
    const [quiet, loud] = this.mel.quantiles([0.15, 0.998]);
    const low = Math.max(0, quiet - 3);
    const high = Math.min(255, Math.max(loud, low + LEAST_SPAN));
    if (Math.abs(low - this.low) < 5 && Math.abs(high - this.high) < 8) return false;
    this.low = low;
    this.high = high;
    return true;
  }

  #paintAll() {
    if (this.mel) this.update(this.mel.newest - SLOTS + 1);
  }

  #paint(place) {
    const { bins, values } = this.mel;
    const map = spectrogramMap();
    const scale = 255 / (this.high - this.low);
    for (let bin = 0; bin < bins; bin += 1) {
      const value = values[place * bins + bin];
      this.pixels[bins - 1 - bin] = map[Math.min(255, Math.max(0, (value - this.low) * scale)) | 0];
    }
    this.picture.getContext("2d").putImageData(this.column, place, 0);
  }

  /** Where a frequency is, as a share of the height from below. */
  #place(hz) {
    const centres = this.store.info.spectrogram?.bands_hz;
    const { bins } = this.mel;
    if (centres?.length !== bins) return -1;
    let bin = 0;
    while (bin < bins - 1 && centres[bin + 1] < hz) bin += 1;
    if (hz < centres[0] || bin === bins - 1) return -1;
    return (bin + 0.5 + (hz - centres[bin]) / (centres[bin + 1] - centres[bin])) / bins;
  }

  /** Draws what was heard from one time to another. */
  draw(from, to) {
    const frame = begin(this.canvas);
    if (!frame) return;
    const { context, width } = frame;
    const height = frame.height - AXIS;
    const colours = theme();
    const x = (at) => ((at - from) / (to - from)) * width;
    const empty = `#${[0, 1, 2].map((i) => ((spectrogramMap()[0] >> (8 * i)) & 255).toString(16).padStart(2, "0")).join("")}`;
    context.fillStyle = empty;
    context.fillRect(0, 0, width, height);
    context.save();
    context.beginPath();
    context.rect(0, 0, width, height);
    context.clip();
    if (this.mel) this.#drawSound(context, from, to, x, height);
    this.#drawBands(context, from, to, x, width, height);
    context.restore();
    this.#drawAxes(context, from, to, x, width, height, colours);
  }

  #drawSound(context, from, to, x, height) {
    const { newest, bins } = this.mel;
    const last = Math.min(newest, Math.ceil(to / SLOT_MS));
    let slot = Math.max(Math.floor(from / SLOT_MS), newest - SLOTS + 1);
    while (slot <= last) {
      const place = slot % SLOTS;
      const count = Math.min(SLOTS - place, last - slot + 1);
      context.drawImage(this.picture, place, 0, count, bins, x(slot * SLOT_MS), 0, x((slot + count) * SLOT_MS) - x(slot * SLOT_MS), height);
      slot += count;
    }
  }

  #drawBands(context, from, to, x, width, height) {
    const colours = theme();
    const shown = [...this.store.events.values()].filter((event) =>
      event.source === this.store.source && (event.ended_at ?? to) > from && event.started_at < to);
    shown.sort((a, b) => a.started_at - b.started_at);
    context.font = BOLD;
    for (const event of shown) {
      const left = x(event.started_at);
      const right = Math.max(left + 3, x(event.ended_at ?? to));
      context.fillStyle = colours["event-soft"];
      context.fillRect(left, 0, right - left, height);
      context.fillStyle = colours.event;
      context.fillRect(left, 0, 1.5, height);
      if (event.ended_at) context.fillRect(right - 1.5, 0, 1.5, height);
    }
    const rows = [];
    for (const event of shown) {
      const at = Math.max(4, Math.min(x(event.started_at) + 4, width - context.measureText(event.text).width - 16));
      // A word may be longer than its event: the next one then stands below it.
      const place = rows.findIndex((end) => end < at);
      const row = place < 0 ? rows.length : place;
      rows[row] = at + label(context, event.text, at, 5 + 23 * row, colours.event, colours.card) + 4;
    }
  }

  #drawAxes(context, from, to, x, width, height, colours) {
    context.font = FONT;
    context.textBaseline = "middle";
    if (this.mel) {
      for (const hz of MARKS_HZ) {
        const y = height * (1 - this.#place(hz));
        if (y < 30 || y > height - 8) continue;
        const text = hz < 1000 ? `${hz} Hz` : `${hz / 1000} kHz`;
        context.globalAlpha = 0.85;
        context.fillStyle = colours.card;
        context.beginPath();
        context.roundRect(4, y - 9, context.measureText(text).width + 8, 18, 4);
        context.fill();
        context.globalAlpha = 1;
        context.fillStyle = colours.ink;
        context.fillText(text, 8, y + 0.5);
      }
    }
    context.fillStyle = colours.muted;
    context.textAlign = "center";
    const { times, isFine } = ticks(from, to, width, 110);
    for (const at of times) {
      const place = x(at);
      context.fillRect(place, height, 1, 4);
      if (place > 30 && place < width - 30) context.fillText(isFine ? time(at) : shortTime(at), place, height + 13);
    }
    context.textAlign = "start";
  }
}
