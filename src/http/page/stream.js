// One stream for all tabs of a browser: it has six connections to an address, and the seventh tab would wait for ever.
//
// Tabs agree over a channel: one of them leads, holds the stream and hands on what comes. Web Locks would do it, but browsers have them on
// encrypted pages only. A tab that nobody sees leaves, so that nothing is computed for it.

import { get, streamUrl } from "./api.js";

const KINDS = ["window", "mel", "level", "event", "health", "prompts"];
/** How often the leader says that it is there; the others miss three of these before one takes over. */
const BEAT_MS = 1000;
const PATIENCE_MS = 3200;
/** An answer of another tab takes some milliseconds. */
const FIRST_WAIT_MS = 250;
/** A tab that is left for a moment keeps its picture without a gap. */
const HIDDEN_MS = 15000;
/** After a refusal, times 2 for each further one, up to 30 s; half of it is by chance, so that many viewers come back one by one. */
const RETRY_MS = 2000;
const MAX_RETRY_MS = 30000;

export class Stream {
  /** `deliver(kind, data)` gets what happens; `changed(isOpen, status)` hears how the connection is. */
  constructor(deliver, changed) {
    this.deliver = deliver;
    this.changed = changed;
    this.id = Math.random().toString(36).slice(2);
    this.source = null;
    this.wanted = new Map();
    this.events = null;
    this.isActive = false;
    this.failures = 0;
    document.addEventListener("visibilitychange", () => this.#seen());
    addEventListener("pagehide", () => this.#leave());
    addEventListener("pageshow", (event) => event.persisted && this.#seen());
  }

  /** Watches a source from now on. */
  watch(source) {
    this.source = source;
    this.#enter();
    this.#want();
  }

  stop() {
    this.#leave();
    this.source = null;
  }

  #seen() {
    clearTimeout(this.hiding);
    if (document.hidden) this.hiding = setTimeout(() => this.#leave(), HIDDEN_MS);
    else if (this.source !== null) this.#enter();
  }

  #enter() {
    if (this.isActive) return;
    this.isActive = true;
    this.channel = new BroadcastChannel(`clapd ${location.pathname}`);
    this.channel.onmessage = ({ data }) => this.#hear(data);
    this.#wait(FIRST_WAIT_MS);
    this.ticking = setInterval(() => this.#tick(), BEAT_MS);
    this.#send({ type: "hello" });
    this.#want();
  }

  #leave() {
    if (!this.isActive) return;
    this.isActive = false;
    clearInterval(this.ticking);
    clearTimeout(this.retrying);
    if (this.events) this.#send({ type: "bye" });
    this.#close();
    this.channel.close();
  }

  #send(message) {
    this.channel.postMessage({ from: this.id, ...message });
  }

  #wait(least) {
    this.deadline = performance.now() + least * (1 + Math.random() / 2);
  }

  #tick() {
    if (this.leads) {
      this.#send({ type: "beat", isOpen: this.isOpen });
      const now = performance.now();
      for (const [id, { at }] of this.wanted) if (now - at > 3 * PATIENCE_MS) this.wanted.delete(id);
      this.#choose();
    } else {
      this.#want();
    }
    // The first wait is shorter than a tick.
    if (!this.leads) setTimeout(() => this.#lead(), Math.max(0, Math.min(BEAT_MS, this.deadline - performance.now())));
  }

  #want() {
    if (this.isActive && this.source !== null) this.#send({ type: "want", source: this.source });
    if (this.leads) this.#choose();
    else if (this.isActive) setTimeout(() => this.#lead(), this.deadline - performance.now() + 1);
  }

  #lead() {
    if (!this.isActive || this.leads || performance.now() < this.deadline) return;
    this.leads = true;
    this.#choose();
  }

  #hear(message) {
    if (!this.isActive) return;
    switch (message.type) {
      case "hello":
        if (this.leads) this.#send({ type: "beat", isOpen: this.isOpen });
        break;
      case "want":
        if (this.leads) {
          this.wanted.set(message.from, { source: message.source, at: performance.now() });
          this.#choose();
        }
        break;
      case "beat":
        // Two began at once: one of them gives way.
        if (this.leads && message.from > this.id) break;
        if (this.leads) this.#close();
        this.#wait(PATIENCE_MS);
        this.#tell(message.isOpen, message.status);
        break;
      case "bye":
        this.#wait(0);
        setTimeout(() => this.#lead(), Math.random() * 200);
        break;
      case "data":
        if (!this.leads) this.#take(message.kind, message.text);
        break;
    }
  }

  #take(kind, text) {
    let data;
    try {
      data = JSON.parse(text);
    } catch {
      return;
    }
    this.deliver(kind, data);
  }

  /** Opens the stream of the one source that all tabs show, or that of all. */
  #choose() {
    const sources = new Set([...this.wanted.values()].map((it) => it.source).concat(this.source));
    const url = streamUrl(sources.size === 1 ? this.source : null);
    if (this.events && this.url === url) return;
    if (this.retrying && this.url === url) return;
    this.#open(url);
  }

  #open(url) {
    this.events?.close();
    clearTimeout(this.retrying);
    this.retrying = 0;
    this.url = url;
    const events = new EventSource(url);
    this.events = events;
    for (const kind of KINDS) {
      events.addEventListener(kind, ({ data }) => {
        this.#send({ type: "data", kind, text: data });
        this.#take(kind, data);
      });
    }
    events.onopen = () => {
      this.failures = 0;
      this.#state(true);
    };
    events.onerror = () => {
      this.#state(false);
      // The browser tries again by itself, unless the device has refused.
      if (events.readyState === EventSource.CLOSED && this.events === events) this.#retry();
    };
  }

  async #retry() {
    const wait = Math.min(RETRY_MS * 2 ** this.failures, MAX_RETRY_MS);
    this.failures += 1;
    this.events.close();
    this.retrying = setTimeout(() => this.#open(this.url), wait * (0.5 + Math.random() / 2));
    try {
      await get("info");
    } catch ({ status }) {
      this.#state(false, status);
    }
  }

  #state(isOpen, status) {
    this.isOpen = isOpen;
    if (this.isActive) this.#send({ type: "beat", isOpen, status });
    this.#tell(isOpen, status);
  }

  #tell(isOpen, status) {
    this.changed(Boolean(isOpen), status);
  }

  #close() {
    this.leads = false;
    clearTimeout(this.retrying);
    this.retrying = 0;
    this.events?.close();
    this.events = null;
    this.wanted.clear();
  }
}
