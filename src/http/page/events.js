// What was heard: when, for how long, how sure and how loud.

import { clipUrl, get, remove, Refusal } from "./api.js";
import { announce, confirm, fill, h } from "./dom.js";
import * as words from "./words.js";

/** A screen or three. */
const PAGE = 100;
/** What is asked for at first. */
const DAY_MS = 86400000;

let only = "";

export function eventsView(store, address) {
  const body = h("div", { class: "stack" });
  const filter = h("select", { "aria-label": "Sound", onchange: () => { only = filter.value; load(); } });
  const older = h("button", { onclick: () => load(true) }, "Older");
  const element = h("div", { class: "stack" },
    h("div", { class: "head" }, h("div", {}, h("h1", {}, "Events"), h("p", { class: "hint" }, "A sound that reached its line in as many windows as its rule asks for.")), filter),
    body, h("div", { class: "row" }, older));
  let listed = [];
  let from = 0;
  let isStopped = false;

  function layFilter() {
    fill(filter, h("option", { value: "" }, "All sounds"), store.prompts.map((prompt) => h("option", { value: prompt.id, selected: prompt.id === only }, prompt.text ?? prompt.id)));
    filter.hidden = store.prompts.length < 2;
  }

  async function load(isMore = false) {
    const now = Math.floor(store.now) + 60000;
    if (!store.can.has("events")) {
      listed = [...store.events.values()].filter((event) => !only || event.prompt === only).sort((a, b) => b.started_at - a.started_at);
      older.hidden = true;
      show();
      return;
    }
    const to = isMore && listed.length ? listed.at(-1).started_at - 1 : now;
    // Further back at each step: a quiet house has few.
    from = isMore ? Math.min(from, to) - 7 * DAY_MS : to - DAY_MS;
    try {
      const found = await get("events", { source: store.source, prompt: only || null, from, to, limit: PAGE });
      if (isStopped) return;
      const kept = found.events.map((event) => store.keepEvent(event));
      listed = isMore ? [...listed, ...kept] : kept;
      if (kept.length === PAGE) from = kept.at(-1).started_at;
      older.hidden = isMore && !kept.length;
      show();
    } catch (fault) {
      if (!(fault instanceof Refusal)) throw fault;
      announce(fault.message, true);
    }
  }

  async function drop(event) {
    if (!await confirm(`Delete “${event.text}” of ${words.time(event.started_at)}${event.clip ? ", with its recording" : ""}?`, "Delete")) return;
    try {
      await remove(`events/${encodeURIComponent(event.id)}`);
      store.events.delete(event.id);
      listed = listed.filter((it) => it.id !== event.id);
      show();
      announce("Deleted.");
    } catch (fault) {
      announce(fault.message, true);
    }
  }

  function show() {
    const days = new Map();
    for (const event of listed) {
      const name = words.dayName(event.started_at);
      days.set(name, [...(days.get(name) ?? []), event]);
    }
    if (!days.size) {
      fill(body, h("section", { class: "card empty" },
        h("p", {}, only ? "This sound has not been heard in this time." : "No events in this time."),
        h("p", {}, store.prompts.length ? "They appear here as they start. If you expected one, see in " : "Nothing is listened for yet: ",
          h("a", { href: address(store.source, store.prompts.length ? "live" : "prompts") }, store.prompts.length ? "Live" : "describe a sound"),
          store.prompts.length ? " how near the sound came to its line." : ".")));
      return;
    }
    const hasLevel = listed.some((event) => Number.isFinite(event.lafmax));
    const hasClip = listed.some((event) => event.clip);
    const mayDelete = store.mayWrite && store.can.has("events/{id}");
    fill(body, [...days].map(([name, events]) => h("section", { class: "card", "aria-label": name }, h("h2", {}, name, " ", h("small", {}, words.count(events.length, "event"))),
      h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table" }, h("table", { class: "rows events" }, h("thead", {}, h("tr", {},
        h("th", { scope: "col" }, "Time"), h("th", { scope: "col" }, "Sound"), h("th", { scope: "col", class: "number" }, "Lasted"),
        h("th", { scope: "col", class: "number" }, "Peak score"), hasLevel && h("th", { scope: "col", class: "number" }, "Loudest"),
        hasClip && h("th", { scope: "col" }, "Recording"), mayDelete && h("th", {}, h("span", { class: "hidden" }, "Delete")))),
      h("tbody", {}, events.map((event) => h("tr", { class: event.ended_at === null && "on" },
        h("td", {}, h("time", { datetime: new Date(event.started_at).toISOString() }, words.time(event.started_at))),
        h("td", { class: "sound-name" }, event.text),
        h("td", { class: "number" }, event.ended_at === null ? "now" : words.duration(event.ended_at - event.started_at)),
        h("td", { class: "number" }, words.score(event.peak)),
        hasLevel && h("td", { class: "number" }, Number.isFinite(event.lafmax) ? `${words.decibels(event.lafmax)} dB` : "–"),
        hasClip && h("td", {}, event.clip && h("audio", { controls: true, preload: "none", src: clipUrl(event.clip), "aria-label": `${event.text}, ${words.time(event.started_at)}` })),
        mayDelete && h("td", { class: "number" }, h("button", { class: "plain", "aria-label": `Delete ${event.text} of ${words.time(event.started_at)}`, onclick: () => drop(event) }, "Delete"))))))))));
  }

  layFilter();
  load();
  return {
    element,
    title: "Events",
    update(kind) {
      if (kind === "prompts") layFilter();
      if (kind !== "event" && kind !== "past") return;
      if (!store.can.has("events")) {
        load();
        return;
      }
      const known = new Set(listed.map((event) => event.id));
      const all = [...store.events.values()].filter((event) => event.source === store.source && (!only || event.prompt === only));
      listed = [...all.filter((event) => !known.has(event.id) && event.started_at > (listed[0]?.started_at ?? 0)), ...listed]
        .map((event) => store.events.get(event.id) ?? event).sort((a, b) => b.started_at - a.started_at);
      show();
    },
    stop() { isStopped = true; },
  };
}
