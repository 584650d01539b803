// How the device is doing: what to do about what is amiss, its sources, and what runs on it.

import { get, post, request } from "./api.js";
import { announce, fill, h } from "./dom.js";
import * as words from "./words.js";

const KINDS = { device: "microphone", file: "recording", stdin: "standard input", url: "stream", listen: "socket" };

export function deviceView(store) {
  const state = h("section", { class: "card", "aria-labelledby": "state-title" });
  const sources = h("section", { class: "card", "aria-labelledby": "sources-title" });
  const facts = h("section", { class: "card", "aria-labelledby": "facts-title" });
  const element = h("div", { class: "stack" }, h("h1", {}, "Device"), state, sources, facts);

  const command = (name, body, said) => async () => {
    try {
      await request(name, body);
      announce(said);
      store.setHealth(await get("health"));
      show();
    } catch (fault) {
      announce(fault.message, true);
    }
  };

  function showState() {
    const { remedies } = store.health;
    fill(state, h("h2", { id: "state-title" }, remedies.length ? `${words.capital(words.count(remedies.length, "thing"))} to look at` : h("span", { class: "state good" }, "All is well")),
      remedies.length ? h("ul", { class: "remedies" }, remedies.map(({ source, text }) => h("li", {}, source && h("b", {}, source, " "), text))) :
        h("p", { class: "hint" }, "Every source is heard, and nothing was lost."));
  }

  function showSources() {
    fill(sources, h("h2", { id: "sources-title" }, "Sources"), h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table" }, h("table", { class: "rows" },
      h("thead", {}, h("tr", {}, ["Source", "State"].map((name) => h("th", { scope: "col" }, name)),
        ["Level", "Windows", "Skipped", "Events"].map((name) => h("th", { scope: "col", class: "number" }, name)), store.mayWrite && h("th", {}, h("span", { class: "hidden" }, "Pause")))),
      h("tbody", {}, store.sources.map((source) => {
        const health = store.health.sources?.[source.id] ?? {};
        const [name, meaning, look] = words.state(source);
        return h("tr", {}, h("th", { scope: "row", class: "source" }, source.id, h("small", {}, KINDS[source.kind] ?? source.kind)),
          h("td", {}, h("span", { class: `state ${look}` }, name), meaning && h("small", { class: "meaning" }, meaning)),
          h("td", { class: "number" }, Number.isFinite(source.level_db) ? `${words.decibels(source.level_db)} dB` : "–"),
          h("td", { class: "number" }, (health.windows_scored ?? 0).toLocaleString("en")),
          h("td", { class: "number" }, (health.windows_skipped ?? 0).toLocaleString("en")),
          h("td", { class: "number" }, (health.events_started ?? 0).toLocaleString("en")),
          store.mayWrite && h("td", { class: "number" }, source.paused ?
            h("button", { onclick: command("resume", { source: source.id }, `${source.id} is listened to again.`), "aria-label": `Resume ${source.id}` }, "Resume") :
            h("button", { onclick: command("pause", { source: source.id }, `${source.id} is paused: its sound is dropped.`), "aria-label": `Pause ${source.id}` }, "Pause")));
      })))));
  }

  function showFacts() {
    const { info, health } = store;
    const fact = (name, value) => [h("dt", {}, name), h("dd", {}, value)];
    const waiting = health.events_waiting ? `${words.count(health.events_waiting, "event")} wait for the broker` : "no event waits for the broker";
    fill(facts, h("h2", { id: "facts-title" }, info.node), h("dl", {},
      fact("Runs for", words.duration(1000 * (health.uptime_s ?? 0))),
      fact("Program", `clapd ${info.version}`), fact("Model", `${info.bundle} ${info.bundle_version}`),
      fact("A score each", words.duration(1000 * info.hop_s)),
      fact("Prompts", `${store.prompts.length}, ${store.promptsFrom === "file" ? "from the configuration" : "as they were set here or over MQTT"}`),
      fact("Outbox", waiting),
      fact("You may", store.mayWrite ? "read and change everything here" : "read")),
    h("p", { class: "row" }, h("a", { href: "openapi.json" }, "REST"), h("a", { href: "metrics" }, "Metrics"),
      info.login && info.access !== "off" && h("button", { class: "plain", onclick: async () => {
        await post("logout").catch(() => {});
        location.reload();
      } }, "Log out")));
  }

  function show() {
    showState();
    // A button that has the focus keeps it.
    if (!sources.contains(document.activeElement)) showSources();
    showFacts();
  }

  show();
  return {
    element,
    title: "Device",
    update(kind) { if (kind === "health" || kind === "prompts") show(); },
    stop() {},
  };
}
