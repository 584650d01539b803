// What is listened for: sentences are tried on the past, and a threshold is dragged over it before it is saved.

import { get, request } from "./api.js";
import { Past } from "./past.js";
import { announce, choice, confirm, fill, h, say } from "./dom.js";
import * as words from "./words.js";

const RANGES = [[1, "1 hour"], [3, "3 hours"], [6, "6 hours"], [24, "24 hours"]];
/** A hand that drags asks a few times a second, not at every pixel. */
const ASK_MS = 200;
/** The past grows; a curve of hours looks the same for a while. */
const REFRESH_MS = 30000;

/** What clapd takes for `stop` where only `start` is written. */
const defaultStop = (start) => Math.round(10 * (start < 3 ? start / 2 : start - 1.5)) / 10;

let hours = 3;

export function promptsView(store) {
  const cards = new Map();
  const list = h("div", { class: "stack" });
  const ranges = h("div", { class: "row" });
  const trial = tryCard(store);
  const element = h("div", { class: "stack" },
    h("div", { class: "head" }, h("div", {}, h("h1", {}, "Prompts"), h("p", { class: "hint" },
      store.mayWrite ? "Each is a sound in plain words. Drag its line to where you want events to start." : "Each is a sound in plain words, with its scores and the line at which events start.")), ranges),
    trial.element, list);
  let timer = 0;
  let isStopped = false;
  let past = null;

  async function load() {
    const to = Math.floor(store.now);
    const from = to - hours * 3600000;
    const [scores, events] = await Promise.all([
      store.can.has("scores") ? get("scores", { source: store.source, from, to }).catch(() => null) : null,
      store.can.has("events") ? get("events", { source: store.source, from, to, limit: 1000 }).catch(() => null) : null,
    ]);
    if (isStopped) return;
    past = { from, to, scores, events: events?.events ?? [...store.events.values()] };
    for (const card of cards.values()) card.show(past);
  }

  let laidOut = null;

  function lay() {
    for (const [id, card] of cards) {
      if (store.prompt(id)) continue;
      card.stop();
      cards.delete(id);
    }
    for (const prompt of store.prompts) {
      const card = cards.get(prompt.id) ?? promptCard(store, prompt);
      cards.set(prompt.id, card);
      card.set(prompt);
      if (past) card.show(past);
    }
    // What is laid out anew loses the focus, and with it the next key that is pressed.
    const order = JSON.stringify(store.prompts.map(({ id }) => id));
    if (order === laidOut) return;
    laidOut = order;
    fill(list, store.prompts.length ? store.prompts.map(({ id }) => cards.get(id).element) :
      h("section", { class: "card empty" }, h("p", {}, "Nothing is listened for yet."), store.mayWrite && h("p", {}, "Describe a sound above, and try it on what was heard.")));
  }

  fill(ranges, store.can.has("scores") && choice("How far back", RANGES, hours, (value) => {
    hours = value;
    load();
    trial.again();
  }));
  lay();
  load();
  timer = setInterval(load, REFRESH_MS);

  return {
    element,
    title: "Prompts",
    update(kind) {
      if (kind === "prompts") {
        lay();
        load();
      } else if (kind === "window") {
        for (const card of cards.values()) card.now(store.window);
      }
    },
    stop() {
      isStopped = true;
      clearInterval(timer);
      trial.stop();
      for (const card of cards.values()) card.stop();
    },
  };
}

/** A sentence is typed, and answered from the past. */
function tryCard(store) {
  const input = h("input", { id: "sentence", name: "sentence", maxlength: "200", autocomplete: "off", placeholder: "a kettle whistling", required: true });
  const answer = h("div", { class: "answer", hidden: true });
  const canAsk = store.can.has("ask");
  let chart = null;
  let asked = "";

  async function ask() {
    asked = input.value.trim();
    if (!asked) return;
    const to = Math.floor(store.now);
    const from = to - hours * 3600000;
    answer.hidden = false;
    if (!chart) fill(answer, h("p", { class: "hint" }, "Asking the past…"));
    try {
      const found = await get("ask", { source: store.source, text: asked, from, to });
      show(found, from, to);
    } catch (fault) {
      chart?.stop();
      chart = null;
      fill(answer, h("p", { class: "fault", role: "alert" }, fault.message));
    }
  }

  function show(found, from, to) {
    chart?.stop();
    chart = new Past({ start: 6, isFixed: true, name: found.text });
    const [best] = found.best;
    fill(answer,
      h("p", {}, best ? h("span", {}, h("b", {}, `“${found.text}”`), ` would have scored ${words.score(best.score)} at best, at ${words.time(best.at)}.`) : "Nothing was heard in this time yet. Come back in a minute."),
      best && chart.element,
      found.best.length > 1 && h("p", { class: "hint" }, "Best moments: ", found.best.map((it, index) => [index > 0 && ", ", `${words.time(it.at)} (${words.score(it.score)})`]), "."),
      store.mayWrite && h("div", { class: "row" }, h("button", { class: "primary", type: "button", onclick: add }, "Listen for it"),
        h("button", { class: "plain", type: "button", onclick: close }, "Never mind")));
    if (best) chart.show({ from, to, at: found.at, scores: found.scores, events: [] });
  }

  function close() {
    asked = "";
    answer.hidden = true;
    chart?.stop();
    chart = null;
    input.value = "";
  }

  async function add() {
    const text = input.value.trim() || asked;
    if (!text) {
      input.focus();
      return;
    }
    try {
      await request("prompts/set", { merge: [{ text }] });
      announce(`It listens for “${text}” from now on.`);
      close();
    } catch (fault) {
      announce(fault.message, true);
    }
  }

  const element = h("form", { class: "card", "aria-label": "Try a sound", onsubmit: (event) => {
    event.preventDefault();
    if (canAsk) ask();
    else add();
  } }, h("label", { for: "sentence" }, canAsk ? "Did you hear …?" : "Describe a sound"),
  h("div", { class: "row ask" }, input, h("button", { class: "primary" }, canAsk ? "Try it on the past" : "Listen for it"),
    canAsk && store.mayWrite && h("button", { type: "button", onclick: add }, "Listen for it")), answer);
  element.hidden = !canAsk && !store.mayWrite;
  return {
    element,
    again() { if (asked && canAsk) ask(); },
    stop() { chart?.stop(); },
  };
}

/** A prompt with its past, its line and its rule. */
function promptCard(store, first) {
  let prompt = first;
  let draft = null;
  let waiting = 0;
  let question = 0;
  let range = null;
  const mayWrite = store.mayWrite;
  const chart = new Past({ start: prompt.start, isFixed: !mayWrite, name: prompt.text, move: (start) => change({ start, stop: defaultStop(start) + offset() }) });
  const title = h("h2", {});
  const score = h("b", { class: "value" }, "–");
  const said = h("p", { class: "what", "aria-live": "polite" });
  const save = h("button", { class: "primary", onclick: store_ }, "Save");
  const undo = h("button", { onclick: () => set(prompt) }, "Undo");
  const buttons = h("div", { class: "row" }, save, undo);
  const rule = mayWrite ? ruleForm() : null;
  const element = h("section", { class: "card prompt" },
    h("div", { class: "head" }, h("div", {}, title, h("small", {}, prompt.id)), score),
    chart.element, h("div", { class: "foot" }, said, buttons), rule?.element);

  /** How far its stop is from the usual one: that stays while the start is dragged. */
  function offset() {
    return Math.round(10 * ((prompt.stop ?? defaultStop(prompt.start)) - defaultStop(prompt.start))) / 10;
  }

  function change(part) {
    draft = { ...(draft ?? prompt), ...part };
    draft.stop = Math.max(0, Math.min(draft.stop ?? defaultStop(draft.start), draft.start));
    chart.setRule(draft.start, draft.stop);
    rule?.set(draft);
    buttons.hidden = false;
    clearTimeout(waiting);
    waiting = setTimeout(whatIf, ASK_MS);
  }

  async function whatIf() {
    if (!draft || !range || !store.can.has("whatif")) {
      say(said, draft ? `Starts at ${words.score(draft.start)} instead of ${words.score(prompt.start)}, once it is saved.` : "");
      return;
    }
    const number = ++question;
    const { start, stop, confirm, cooldown_s } = draft;
    try {
      const found = await get("whatif", { source: store.source, prompt: prompt.id, start, stop, confirm: confirm?.join(","), cooldown_s, from: range.from, to: range.to });
      if (number !== question || !draft) return;
      chart.suppose(found.events);
      const parts = [found.new && `${found.new} new`, found.gone && `${found.gone} gone`].filter(Boolean);
      say(said, `In these ${words.span(hours * 60)} it would have been ${words.count(found.count, "event")}${parts.length ? `: ${parts.join(", ")}` : ", the same as now"}.`);
    } catch (fault) {
      say(said, fault.message);
    }
  }

  async function store_() {
    save.disabled = true;
    try {
      await request("prompts/set", { merge: [draft] });
      announce(`Saved: ${prompt.text} starts at ${words.score(draft.start)}.`);
      draft = null;
    } catch (fault) {
      announce(fault.message, true);
    }
    save.disabled = false;
    if (!draft) set(store.prompt(prompt.id) ?? prompt);
  }

  async function drop() {
    if (!await confirm(`Stop listening for “${prompt.text}”?`, "Remove")) return;
    try {
      await request("prompts/set", { remove: [prompt.id] });
      announce(`Removed: ${prompt.text}.`);
    } catch (fault) {
      announce(fault.message, true);
    }
  }

  function ruleForm() {
    const number = (name, text, hint, step, least, most) => {
      const input = h("input", { type: "number", id: `${prompt.id}-${name}`, step: String(step), min: String(least), max: String(most) });
      return [input, h("div", {}, h("label", { for: input.id }, text), input, h("small", {}, hint))];
    };
    const text = h("input", { id: `${prompt.id}-text`, maxlength: "200" });
    const [stop, stopField] = number("stop", "Ends below", "a score, lower than the start", 0.1, 0, 10);
    const [needed, neededField] = number("needed", "Windows that agree", "so many …", 1, 1, 100);
    const [among, amongField] = number("among", "… of the last", "windows", 1, 1, 100);
    const [cool, coolField] = number("cool", "Pause after an event", "in seconds", 1, 0, 86400);
    const contrast = h("textarea", { id: `${prompt.id}-contrast`, rows: "2", placeholder: "people talking" });
    const take = () => change({
      text: text.value.trim() || undefined,
      stop: +stop.value,
      confirm: [+needed.value || 1, Math.max(+needed.value || 1, +among.value || 1)],
      cooldown_s: +cool.value,
      contrast: contrast.value.split("\n").map((line) => line.trim()).filter(Boolean),
    });
    const form = h("div", { class: "rule", onchange: take },
      h("div", { class: "wide" }, h("label", { for: text.id }, "Words"), text), stopField, neededField, amongField, coolField,
      h("div", { class: "wide" }, h("label", { for: contrast.id }, "Not to be taken for"), contrast, h("small", {}, "one sound a line; where one of them scores higher, there is no event")),
      h("div", { class: "wide row end" }, h("button", { class: "danger", type: "button", onclick: drop }, "Remove this prompt")));
    return {
      element: h("details", { class: "more" }, h("summary", {}, "Words and rule"), form),
      set(it) {
        text.value = it.text ?? "";
        stop.value = it.stop ?? defaultStop(it.start);
        [needed.value, among.value] = it.confirm ?? [2, 3];
        cool.value = it.cooldown_s ?? 10;
        contrast.value = (it.contrast ?? []).join("\n");
      },
    };
  }

  function set(next) {
    prompt = next;
    draft = null;
    say(title, prompt.text ?? prompt.id);
    buttons.hidden = true;
    chart.setRule(prompt.start, prompt.stop ?? defaultStop(prompt.start));
    chart.suppose(null);
    rule?.set(prompt);
    told();
  }

  function told() {
    if (draft || !range) return;
    const own = range.events.filter((event) => event.prompt === prompt.id && event.started_at >= range.from);
    say(said, `${own.length ? words.count(own.length, "event") : "No event"} in these ${words.span(hours * 60)}, with a start at ${words.score(prompt.start)}.`);
  }

  return {
    element,
    set(next) { if (!draft) set(next); },
    now(window) {
      const value = window?.scores[prompt.id];
      say(score, words.score(value));
      element.classList.toggle("on", store.isOn(prompt.id));
    },
    show(past) {
      range = past;
      const { scores } = past;
      if (scores) chart.show({ from: past.from, to: past.to, at: scores.at, scores: scores.prompts[prompt.id] ?? [], events: past.events.filter((it) => it.prompt === prompt.id) });
      else {
        // A device without a history: the last minutes that this page has seen itself.
        const at = [];
        const values = [];
        store.scores.since(prompt.id, 0, (time, value) => { at.push(time); values.push(value); });
        chart.show({ from: at[0] ?? past.to - 60000, to: past.to, at, scores: values, events: past.events.filter((it) => it.prompt === prompt.id) });
      }
      if (draft) whatIf();
      else told();
    },
    stop() {
      clearTimeout(waiting);
      chart.stop();
    },
  };
}
