// What the page knows of the device. Everything in it has a bound.

import { capabilities, get } from "./api.js";
import { MelRing, ScoreRing } from "./rings.js";

/** Of a source: more than a day of a noisy home, and a list that a person reads. */
const MAX_EVENTS = 300;
/** Windows that are listed with their reasons. */
const MAX_REASONS = 24;

/** A time as a number, which events have as text over MQTT. */
const millis = (time) => (typeof time === "string" ? Date.parse(time) : time ?? null);

export class Store {
  constructor() {
    this.info = null;
    this.can = { has: () => false, takes: () => false };
    this.health = { sources: {}, remedies: [] };
    this.prompts = [];
    this.sources = [];
    this.source = null;
    this.isLive = false;
    this.forget();
  }

  /** Another source is looked at. */
  forget() {
    this.scores = new ScoreRing();
    this.scores.setPrompts(this.prompts.map((prompt) => prompt.id));
    this.mel = null;
    this.window = null;
    this.reasons = [];
    this.level = null;
    this.heard = [];
    this.events = new Map();
    /** The device's clock before this one's, as the quickest message shows it. */
    this.lag = Infinity;
  }

  get mayWrite() {
    return this.info?.role === "write";
  }

  /** What the device's own clock says now. */
  get now() {
    return Date.now() - (Number.isFinite(this.lag) ? this.lag : 0);
  }

  prompt(id) {
    return this.prompts.find((prompt) => prompt.id === id);
  }

  /** The source that is shown, as `sources` lists it, with the newest of its health. */
  get current() {
    return this.sources.find((source) => source.id === this.source);
  }

  /** What is quiet of this source now: quiet hours and snoozes. */
  get quiet() {
    return (this.health.quiet ?? []).filter((it) => !it.sources || it.sources.includes(this.source));
  }

  get isSnoozed() {
    return this.quiet.some((it) => it.by === "snooze" && !it.prompts);
  }

  async load() {
    this.info = await get("info");
    const [can, health, prompts, sources] = await Promise.all([capabilities(), get("health"), get("prompts"), get("sources")]);
    this.can = can;
    this.sources = sources.sources;
    this.setHealth(health);
    this.setPrompts(prompts);
  }

  /** What a minute of the source's past was, where the device remembers it. */
  async loadPast() {
    const source = this.source;
    const [scores, events] = await Promise.all([
      this.can.has("scores") ? get("scores", { source, from: Math.floor(this.now - 70000) }).catch(() => null) : null,
      this.can.has("events") ? get("events", { source, from: Math.floor(this.now - 86400000), limit: 100 }).catch(() => null) : null,
    ]);
    if (this.source !== source) return;
    for (const event of events?.events ?? []) this.keepEvent(event);
    if (!scores || this.scores.length) return;
    scores.at.forEach((at, index) => this.scores.push(at, (id) => scores.prompts[id]?.[index]));
  }

  setPrompts({ prompts, from }) {
    this.prompts = prompts ?? [];
    this.promptsFrom = from;
    this.scores.setPrompts(this.prompts.map((prompt) => prompt.id));
  }

  setHealth(health) {
    this.health = { ...health, remedies: health.remedies ?? [] };
    for (const source of this.sources) {
      const found = health.sources?.[source.id];
      if (!found) continue;
      source.paused = found.state === "paused";
      source.state = found.state;
      source.level_db = found.level_db;
      source.warnings = found.warnings ?? [];
    }
  }

  /** An event of the stream, which has its prompt's words as `prompt`, or of REST, which has the id there. */
  keepEvent(raw) {
    const event = {
      ...this.events.get(raw.id),
      ...raw,
      source: raw.source ?? this.source,
      prompt: raw.prompt_id ?? raw.prompt,
      started_at: millis(raw.started_at),
      ended_at: millis(raw.ended_at),
    };
    event.text = this.prompt(event.prompt)?.text ?? (raw.prompt_id ? raw.prompt : event.text) ?? event.prompt;
    this.events.set(event.id, event);
    if (this.events.size > MAX_EVENTS) {
      const oldest = [...this.events.values()].reduce((a, b) => (a.started_at < b.started_at ? a : b));
      this.events.delete(oldest.id);
    }
    return event;
  }

  /** Takes a message of the stream; false where it is about another source. */
  take(kind, data) {
    if (kind === "prompts") {
      this.setPrompts(data);
      return true;
    }
    if (kind === "health") {
      this.setHealth(data);
      return true;
    }
    if (data.source !== undefined && data.source !== this.source) return false;
    if (kind === "event") {
      this.keepEvent(data);
    } else if (kind === "level") {
      this.level = data;
    } else if (kind === "mel") {
      const columns = Uint8Array.from(atob(data.columns), (letter) => letter.charCodeAt(0));
      if (this.mel?.bins !== data.bands) this.mel = new MelRing(data.bands);
      this.melChanged = this.mel.push(millis(data.at), data.hop_ms, columns);
    } else if (kind === "window") {
      this.#takeWindow(data);
    }
    return true;
  }

  #takeWindow(data) {
    const window = {
      at: millis(data.ended_at),
      gated: data.gated,
      scores: Object.fromEntries(data.prompts.map(({ id, score }) => [id, score])),
      verdicts: Object.fromEntries(data.prompts.map(({ id, verdict, why }) => [id, { name: verdict, why }])),
    };
    // The clocks may drift apart: a message that came later than the quickest moves it by a hundredth.
    const lag = Date.now() - window.at;
    this.lag = lag < this.lag || lag - this.lag > 5000 ? lag : this.lag + 0.01 * (lag - this.lag);
    this.window = window;
    this.scores.push(window.at, (id) => window.scores[id]);
    if (data.heard) this.heard = data.heard;
    this.reasons.unshift(window);
    this.reasons.length = Math.min(this.reasons.length, MAX_REASONS);
  }

  /** Of the prompts in a window, the one that is nearest to an event. */
  nearest(window) {
    let best = null;
    for (const prompt of this.prompts) {
      const value = window?.scores[prompt.id];
      if (value === undefined) continue;
      const distance = value - prompt.start;
      if (!best || distance > best.distance) best = { prompt, value, distance, verdict: window.verdicts[prompt.id] };
    }
    return best;
  }

  /** Whether the newest window is within an event of a prompt. */
  isOn(id) {
    return ["started", "open"].includes(this.window?.verdicts[id]?.name);
  }

  /** Events that go on, by what the newest window says. */
  get open() {
    return this.prompts.filter((prompt) => this.isOn(prompt.id)).map((prompt) => {
      const event = [...this.events.values()].find((it) => it.prompt === prompt.id && it.ended_at === null);
      return { prompt, event };
    });
  }
}
