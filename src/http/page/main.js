// The page's frame: which source and which view the address names, who is logged in, and whether the device answers.

import { Refusal, get, post } from "./api.js";
import { announce, fill, h, say, tell } from "./dom.js";
import { deviceView } from "./device.js";
import { eventsView } from "./events.js";
import { liveView } from "./live.js";
import { promptsView } from "./prompts.js";
import { Store } from "./store.js";
import { Stream } from "./stream.js";
import { shortTime } from "./words.js";

const VIEWS = { live: ["Live", liveView], prompts: ["Prompts", promptsView], events: ["Events", eventsView], device: ["Device", deviceView] };
/** A connection that is away for less is not worth a word. */
const AWAY_MS = 4000;

const main = document.getElementById("main");
const banner = document.getElementById("banner");
const views = document.getElementById("views");
const controls = document.getElementById("controls");
const store = new Store();
let view = null;
let route = {};
let away = 0;

const stream = new Stream(hear, connected);

/** Where the address leads: `#/mic/live`. */
function readRoute() {
  const [source, name] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const known = store.sources.some((it) => it.id === source);
  return { source: known ? source : store.sources[0]?.id ?? null, name: name in VIEWS ? name : "live" };
}

const address = (source, name) => `#/${encodeURIComponent(source ?? "")}/${name}`;

function show() {
  const next = readRoute();
  const isOther = next.source !== route.source;
  const isSame = !isOther && next.name === route.name;
  if (isSame && view) return;
  route = next;
  if (isOther || !view) {
    store.source = next.source;
    store.forget();
    store.loadPast().then(() => view?.update("past"));
    stream.watch(next.source);
  }
  view?.stop();
  view = VIEWS[next.name][1](store, address);
  document.title = `${view.title} · ${store.info.node} · clapd`;
  showFrame();
  fill(main, view.element);
  scrollTo(0, 0);
}

function showFrame() {
  say(document.getElementById("node"), store.info.node);
  views.hidden = false;
  fill(views, Object.entries(VIEWS).map(([name, [title]]) =>
    h("a", { href: address(route.source, name), class: `to-${name}`, "aria-current": name === route.name && "page" }, title)));
  fill(controls,
    store.sources.length > 1 && h("label", { class: "pick" }, h("span", { class: "hidden" }, "Source"),
      h("select", { onchange: (event) => { location.hash = address(event.target.value, route.name); } },
        store.sources.map(({ id }) => h("option", { value: id, selected: id === route.source }, id)))),
    store.info.login && store.info.access !== "off" && !store.mayWrite && h("button", { onclick: () => askToken() }, "Log in"));
}

/** What is said above everything: that the device is away, asleep or in need of something. */
function showBanner() {
  let text = "";
  let isBad = false;
  const { remedies } = store.health;
  const [quiet] = store.quiet;
  if (away) {
    text = "The device does not answer. What you see is old; it is asked again every few seconds.";
    isBad = true;
  } else if (quiet) {
    const until = shortTime(Date.parse(quiet.until));
    const whom = quiet.prompts ? `no events of ${quiet.prompts.map((id) => store.prompt(id)?.text ?? id).join(", ")}` : "no events are reported";
    text = `${quiet.by === "snooze" ? "Snoozing" : "Quiet hours"} until ${until}: scores go on, and ${whom}.`;
  } else if (remedies.length) {
    const { source, text: advice } = remedies[0];
    text = `${source ? `${source}: ` : ""}${advice}`;
    isBad = true;
  }
  banner.classList.toggle("bad", isBad);
  banner.hidden = !text;
  if (remedies.length > 1 && !away && !quiet) text += ` (and ${remedies.length - 1} more, see Device)`;
  say(banner, text);
}

function hear(kind, data) {
  if (!store.take(kind, data)) return;
  if (kind === "event") {
    const { text } = store.events.get(data.id);
    // On Live it is seen.
    if (data.event_type === "started") (route.name === "live" ? tell : announce)(`${text}: started`);
  }
  if (kind === "health" || kind === "prompts") showBanner();
  view?.update(kind);
}

let leaving = 0;

function connected(isOpen, status) {
  if (status === 401) {
    start();
    return;
  }
  if (isOpen === store.isLive) return;
  store.isLive = isOpen;
  clearTimeout(leaving);
  if (isOpen) {
    // What happened meanwhile.
    if (away) store.loadPast().then(() => view?.update("past"));
    away = 0;
    showBanner();
  } else {
    leaving = setTimeout(goAway, AWAY_MS);
  }
}

function goAway() {
  away = Date.now();
  showBanner();
}

function tokenForm(said) {
  const fault = h("p", { class: "fault", role: "alert" });
  const input = h("input", { type: "password", name: "token", id: "token", autocomplete: "current-password", required: true });
  return h("form", { class: "token", onsubmit: async (event) => {
    event.preventDefault();
    fault.textContent = "";
    try {
      await post("login", { token: input.value.trim() });
    } catch ({ message }) {
      fault.textContent = message;
      input.select();
      return;
    }
    document.querySelector("dialog")?.close();
    start();
  } }, h("p", {}, said), h("input", { name: "username", autocomplete: "username", value: store.info?.node ?? "clapd", hidden: true }), h("label", { for: "token" }, "Token"), input, fault, h("div", { class: "row end" }, h("button", { class: "primary" }, "Log in")));
}

function askToken() {
  const dialog = h("dialog", { "aria-label": "Log in", onclose: () => dialog.remove() },
    tokenForm("To change something here, show the write token of this device."));
  document.body.append(dialog);
  dialog.showModal();
}

/** Asks the device who we are and what there is, and begins. */
async function start() {
  view?.stop();
  view = null;
  try {
    await store.load();
  } catch (fault) {
    if (!(fault instanceof Refusal)) throw fault;
    stream.stop();
    views.hidden = true;
    fill(controls);
    if (fault.status === 401) {
      fill(main, h("section", { class: "card door" }, h("h1", {}, "Who is there?"), tokenForm("This device shows what it hears to whoever has its token.")));
      return;
    }
    fill(main, h("section", { class: "card door" }, h("h1", {}, "The device does not answer"), h("p", {}, "Is it switched on, and is clapd running? It is asked again every few seconds.")));
    setTimeout(start, 3000 + 2000 * Math.random());
    return;
  }
  show();
  showBanner();
}

addEventListener("hashchange", () => store.info && show());
/** Health changes without a message where a number counts on; what the Device view shows is asked for now and then. */
setInterval(async () => {
  if (document.hidden || !store.info) return;
  try {
    store.setHealth(await get("health"));
  } catch ({ status }) {
    // A proxy may hold a stream open whose other end is gone.
    if (status === 401) start();
    else goAway();
    return;
  }
  if (store.isLive) away = 0;
  showBanner();
  view?.update("health");
}, 15000);

start();
