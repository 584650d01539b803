// What is heard now: the sound, the score of each prompt on the same time line, and why there was no event.

import { get, request } from "./api.js";
import { announce, fill, h, say } from "./dom.js";
import { levelNow, levelPast } from "./level.js";
import { begin, theme, ticks } from "./paint.js";
import { Spectrogram } from "./spectrogram.js";
import * as words from "./words.js";

/** How often the pictures move; a hand on the wall is still smoother than a score a second. */
const FRAME_MS = 50;
/** The stream's columns come four times a second: the picture is so much behind that it never waits for them. */
const BEHIND_MS = 600;
/** A screen reader's table is written anew so seldom that it does not jump while it is read. */
const TABLE_MS = 10000;

export function liveView(store) {
  const canvas = h("canvas", { class: "sound", role: "img", "aria-label": "Spectrogram of the last minute: pitch upwards, time to the right, loud is strong" });
  const headline = h("h1", {}, "Listening");
  const why = h("p", { class: "why" });
  const actions = h("div", { class: "row actions" });
  const meter = levelNow();
  const lanes = h("div", { class: "lanes" });
  const table = h("table", { class: "hidden" });
  const reasons = h("tbody");
  const heard = h("ol", { class: "heard" });
  const heardCard = h("section", { class: "card", "aria-labelledby": "heard-title" }, h("h2", { id: "heard-title" }, "What it hears"),
    h("p", { class: "hint" }, "The best of the sounds it knows by itself, whatever you listen for."), heard);
  const recent = h("ul", { class: "recent" });
  const past = levelPast(store);
  const element = h("div", { class: "live" },
    h("div", { class: "stack" },
      h("section", { class: "card", "aria-label": "Now" },
        h("div", { class: "now" }, h("div", { class: "said" }, headline, why), actions),
        h("div", { class: "line" }, h("div", { class: "name side" }, h("b", {}, "Sound"), h("small", {}, "pitch over time")), canvas, meter.element),
        lanes, table),
      h("details", { class: "card" }, h("summary", {}, h("h2", {}, "Window by window"), h("span", { class: "hint" }, "why there was no event")),
        h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table" }, h("table", { class: "rows" }, h("thead", {}, h("tr", {},
          h("th", { scope: "col" }, "Time"), h("th", { scope: "col" }, "Nearest sound"), h("th", { scope: "col", class: "number" }, "Score"),
          h("th", { scope: "col" }, "What it meant"))), reasons)))),
    h("div", { class: "stack" },
      h("section", { class: "card", "aria-labelledby": "recent-title" },
        h("h2", { id: "recent-title" }, "Last events"), recent, h("p", {}, h("a", { href: `#/${encodeURIComponent(store.source)}/events` }, "All events"))),
      heardCard, past.element));
  heardCard.hidden = true;

  const spectrogram = new Spectrogram(canvas, store);
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  let rows = [];
  let frame = 0;
  let drawn = 0;
  let tabled = 0;
  let isStopped = false;

  function layLanes() {
    rows = store.prompts.map((prompt) => {
      const chart = h("canvas", { role: "img", "aria-label": `Scores of ${prompt.text} in the last minute` });
      const value = h("b", { class: "value" }, "–");
      const verdict = h("small", {});
      const row = h("div", { class: "line lane" }, h("div", { class: "name" }, h("b", {}, prompt.text), verdict), chart, value);
      return { prompt, chart, value, verdict, row };
    });
    fill(lanes, rows.length ? rows.map(({ row }) => row) : h("div", { class: "empty" }, h("p", {}, "You listen for nothing yet."),
      store.mayWrite ? h("p", {}, h("a", { class: "button primary", href: `#/${encodeURIComponent(store.source)}/prompts` }, "Describe a sound")) :
        h("p", {}, "Whoever may change this device can add sounds here.")));
  }

  function showActions() {
    const source = store.current;
    const command = (name, body, said) => async () => {
      try {
        await request(name, body);
        announce(said);
      } catch (fault) {
        announce(fault.message, true);
      }
    };
    fill(actions, store.mayWrite && [
      store.can.takes("snooze") && (store.isSnoozed ?
        h("button", { onclick: command("snooze", { minutes: 0 }, "Events are reported again.") }, "End snooze") :
        h("select", { "aria-label": "Snooze: no events for a while", onchange: (event) => {
          const minutes = +event.target.value;
          event.target.value = "";
          command("snooze", { minutes }, `No events for ${words.span(minutes)}.`)();
        } }, h("option", { value: "" }, "Snooze…"), [15, 60, 180, 480].map((minutes) => h("option", { value: minutes }, words.span(minutes))))),
      source?.paused ?
        h("button", { class: "primary", onclick: command("resume", { source: store.source }, "It listens again.") }, "Resume") :
        h("button", { onclick: command("pause", { source: store.source }, "Paused: its sound is dropped.") }, "Pause"),
    ]);
  }

  function showNow() {
    const [state, meaning, look] = words.state(store.current);
    const open = store.open;
    element.classList.toggle("hearing", open.length > 0);
    if (look !== "good") {
      say(headline, state);
      say(why, meaning);
    } else if (!store.prompts.length) {
      say(headline, "Nothing to listen for");
      say(why, "Describe a sound in plain words, and it is scored from the next second on.");
    } else if (open.length) {
      say(headline, open.map(({ prompt }) => words.capital(prompt.text)).join(", "));
      say(why, open.map(({ event }) => (event ? `since ${words.time(event.started_at)}, for ${words.duration(store.now - event.started_at)}` : "now")).join("; "));
    } else {
      say(headline, store.isSnoozed ? "Snoozing" : "Listening");
      say(why, reason(store.window));
    }
  }

  /** Why a window started no event, in a sentence. */
  function reason(window) {
    if (!window) return "Waiting for the first second of sound.";
    if (window.gated) return "Too quiet to score: nothing reached the gate.";
    const best = store.nearest(window);
    if (!best) return "";
    return `Nearest is “${best.prompt.text}” with ${words.score(best.value)}: ${words.verdict(best.verdict, best.prompt, best.value)}.`;
  }

  function showWindow() {
    const { window } = store;
    for (const { prompt, value, verdict, row } of rows) {
      const score = window?.scores[prompt.id];
      say(value, words.score(score));
      say(verdict, words.verdict(window?.verdicts[prompt.id], prompt, score));
      row.classList.toggle("on", store.isOn(prompt.id));
      row.classList.toggle("near", score >= prompt.start - 1);
    }
    if (element.querySelector("details").open) {
      fill(reasons, store.reasons.map((window) => {
        const best = store.nearest(window);
        return h("tr", {}, h("td", {}, words.time(window.at)), h("td", {}, best?.prompt.text ?? "–"), h("td", { class: "number" }, words.score(best?.value)),
          h("td", {}, best ? words.verdict(best.verdict, best.prompt, best.value) : ""));
      }));
    }
    showHeard(store.heard);
    showNow();
  }

  function showHeard(captions) {
    heardCard.hidden = captions.length === 0;
    while (heard.children.length > captions.length) heard.lastChild.remove();
    captions.forEach(({ text, score }, index) => {
      const item = heard.children[index] ?? heard.appendChild(h("li", {}, h("span"), h("b"), h("i")));
      const [name, value, bar] = item.children;
      say(name, text);
      say(value, words.score(score));
      bar.style.setProperty("--share", Math.max(0, Math.min(1, score / 10)));
    });
  }

  function showEvents() {
    const latest = [...store.events.values()].filter((it) => it.source === store.source).sort((a, b) => b.started_at - a.started_at).slice(0, 6);
    fill(recent, latest.length ? latest.map((event) => h("li", {}, h("span", {}, event.text),
      h("small", {}, `${words.time(event.started_at)} · ${event.ended_at ? words.duration(event.ended_at - event.started_at) : "now"}`),
      h("b", { title: "peak score" }, words.score(event.peak)))) :
      h("li", { class: "hint" }, store.prompts.length ? "None yet. They appear here as they start." : "Events appear here once you listen for something."));
  }

  function showTable() {
    const from = store.now - 60000;
    fill(table, h("caption", {}, `The last minute at ${words.time(store.now)}`), h("thead", {}, h("tr", {},
      ["Sound", "Now", "Highest in the last minute", "Starts at", "Meaning"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, store.prompts.map((prompt) => {
        let highest = -Infinity;
        store.scores.since(prompt.id, from, (at, score) => { if (score > highest) highest = score; });
        const score = store.window?.scores[prompt.id];
        return h("tr", {}, h("th", { scope: "row" }, prompt.text), h("td", {}, words.score(score)), h("td", {}, words.score(highest)),
          h("td", {}, words.score(prompt.start)), h("td", {}, words.verdict(store.window?.verdicts[prompt.id], prompt, score)));
      })));
  }

  function draw(now) {
    if (isStopped) return;
    frame = requestAnimationFrame(draw);
    if (document.hidden || now - drawn < (calm.matches ? 1000 : FRAME_MS)) return;
    drawn = now;
    if (now - tabled > TABLE_MS) {
      tabled = now;
      showTable();
    }
    const to = store.now - BEHIND_MS;
    // As much as can be read: half a minute on a phone.
    const from = to - (canvas.clientWidth < 520 ? 30000 : 60000);
    spectrogram.draw(from, to);
    for (const row of rows) drawLane(row, from, to);
  }

  function drawLane({ prompt, chart }, from, to) {
    const frame = begin(chart);
    if (!frame) return;
    const { context, width, height } = frame;
    const colours = theme();
    const x = (at) => ((at - from) / (to - from)) * width;
    const y = (score) => height - 3 - (Math.max(0, Math.min(10, score)) / 10) * (height - 6);
    context.fillStyle = colours.line;
    for (const at of ticks(from, to, width, 110).times) context.fillRect(x(at), 0, 1, height);
    for (const event of store.events.values()) {
      if (event.prompt !== prompt.id || event.source !== store.source || (event.ended_at ?? to) < from) continue;
      context.fillStyle = colours["event-soft"];
      const left = x(event.started_at);
      context.fillRect(left, 0, Math.max(2, x(event.ended_at ?? to) - left), height);
      context.fillStyle = colours.event;
      context.fillRect(left, 0, Math.max(2, x(event.ended_at ?? to) - left), 2);
    }
    context.strokeStyle = colours.muted;
    context.lineWidth = 1;
    context.setLineDash([3, 4]);
    context.beginPath();
    context.moveTo(0, y(prompt.start));
    context.lineTo(width, y(prompt.start));
    context.stroke();
    context.setLineDash([]);
    curve(context, prompt, from, to, x, y, colours);
  }

  function curve(context, prompt, from, to, x, y, colours) {
    let last = null;
    let first = 0;
    const fillBelow = () => {
      context.stroke();
      context.lineTo(x(last), y(0));
      context.lineTo(first, y(0));
      context.fill();
    };
    context.strokeStyle = colours.accent;
    context.fillStyle = colours["accent-soft"];
    context.lineWidth = 1.75;
    context.lineJoin = "round";
    store.scores.since(prompt.id, from, (at, score) => {
      if (!Number.isFinite(score)) return;
      // Where windows are missing, the line is, too.
      const isGap = last === null || at - last > 4000 * (store.info.hop_s ?? 1);
      if (isGap) {
        if (last !== null) fillBelow();
        context.beginPath();
        first = x(at);
      }
      context.lineTo(x(at), y(score));
      last = at;
    });
    if (last !== null) fillBelow();
  }

  layLanes();
  showActions();
  showEvents();
  showWindow();
  frame = requestAnimationFrame(draw);
  element.querySelector("details").addEventListener("toggle", showWindow);
  if (store.can.has("heard") && !store.heard.length) {
    get("heard", { source: store.source }).then(({ captions }) => { if (!isStopped && captions) showHeard(captions.slice(0, 3)); }, () => {});
  }

  return {
    element,
    title: "Live",
    update(kind) {
      if (kind === "window") showWindow();
      else if (kind === "mel") spectrogram.update(store.melChanged);
      else if (kind === "level") meter.show(store.level);
      else if (kind === "event") showEvents();
      else if (kind === "prompts") {
        layLanes();
        showWindow();
        tabled = 0;
      } else {
        showActions();
        showNow();
        showEvents();
      }
    },
    stop() {
      isStopped = true;
      cancelAnimationFrame(frame);
      spectrogram.stop();
      past.stop();
    },
  };
}
