// What was heard in the last minute or so. Everything has a fixed length, so that a page that is open for a year does not grow.

/** A minute of windows at the shortest hop, 0.1 s, and some minutes at a usual one. */
const WINDOWS = 1024;
/** How much of the spectrogram one column of the picture shows, in milliseconds: a pixel of a minute on a wide screen. */
export const SLOT_MS = 40;
/** More than a minute of them. */
export const SLOTS = 1600;

/** Scores of the newest windows, a column for each prompt. */
export class ScoreRing {
  constructor() {
    this.at = new Float64Array(WINDOWS);
    this.columns = new Map();
    this.next = 0;
    this.length = 0;
  }

  /** Keeps the columns of these prompts and forgets those of others. */
  setPrompts(ids) {
    for (const id of this.columns.keys()) if (!ids.includes(id)) this.columns.delete(id);
    for (const id of ids) if (!this.columns.has(id)) this.columns.set(id, new Float32Array(WINDOWS).fill(NaN));
  }

  get newest() {
    return this.length ? this.at[(this.next + WINDOWS - 1) % WINDOWS] : -Infinity;
  }

  /** Takes a window; one that is not newer than the newest is known already. */
  push(at, score) {
    if (!(at > this.newest)) return;
    this.at[this.next] = at;
    for (const [id, column] of this.columns) column[this.next] = score(id) ?? NaN;
    this.next = (this.next + 1) % WINDOWS;
    this.length = Math.min(this.length + 1, WINDOWS);
  }

  /** Calls `each(at, score)` for a prompt's scores since a time, and with the one before it, the oldest first. */
  since(id, from, each) {
    const column = this.columns.get(id);
    if (!column) return;
    let age = this.length;
    while (age > 1 && this.at[(this.next - age + 1 + WINDOWS) % WINDOWS] < from) age -= 1;
    for (; age > 0; age -= 1) {
      const place = (this.next - age + WINDOWS) % WINDOWS;
      each(this.at[place], column[place]);
    }
  }
}

/** Columns of the spectrogram. A slot is `SLOT_MS` of time and holds the loudest of each band in it. */
export class MelRing {
  constructor(bins) {
    this.bins = bins;
    this.values = new Uint8Array(SLOTS * bins);
    this.newest = -1;
    /** How often each value came lately: the picture's darkest and brightest follow the room. */
    this.counts = new Float32Array(256);
  }

  /** Takes columns of which the first begins at a time, and returns the oldest slot that has changed. */
  push(at, hop, columns) {
    let first = Infinity;
    const count = Math.floor(columns.length / this.bins);
    for (let column = 0; column < count; column += 1) {
      const slot = Math.floor((at + column * hop) / SLOT_MS);
      if (slot <= this.newest - SLOTS) continue;
      // What lies between was not heard.
      for (let gap = Math.max(this.newest + 1, slot - SLOTS + 1); gap <= slot; gap += 1) {
        const place = (gap % SLOTS) * this.bins;
        this.values.fill(0, place, place + this.bins);
        first = Math.min(first, gap);
      }
      this.newest = Math.max(this.newest, slot);
      first = Math.min(first, slot);
      const place = (slot % SLOTS) * this.bins;
      for (let bin = 0; bin < this.bins; bin += 1) {
        const value = columns[column * this.bins + bin];
        if (value > this.values[place + bin]) this.values[place + bin] = value;
        this.counts[value] += 1;
      }
    }
    return first;
  }

  /** The value that a share of all lately were below; older ones count less. */
  quantiles(shares) {
    let total = 0;
    for (let value = 0; value < 256; value += 1) total += this.counts[value];
    const found = shares.map(() => 255);
    let sum = 0;
    for (let value = 0; value < 256; value += 1) {
      sum += this.counts[value];
      shares.forEach((share, index) => { if (found[index] === 255 && sum >= share * total) found[index] = value; });
      this.counts[value] *= 0.97;
    }
    return found;
  }
}
