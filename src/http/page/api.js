// Requests. All addresses are relative, so that they work below any path.

const BASE = "api/v1/";

/** What the device answered instead of what was asked for. `status` is 0 where it did not answer. */
export class Refusal extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch {
    throw new Refusal(0, "The device does not answer.");
  }
  const text = await response.text();
  let body = null;
  try {
    body = text && JSON.parse(text);
  } catch { /* A proxy's own page. */ }
  if (!response.ok) throw new Refusal(response.status, body?.error ?? `The device answered ${response.status}.`);
  return body;
}

export function get(name, query) {
  const pairs = Object.entries(query ?? {}).filter(([, value]) => value !== null && value !== undefined);
  return ask(BASE + name + (pairs.length ? `?${new URLSearchParams(pairs)}` : ""));
}

export function post(name, body) {
  const headers = { "Content-Type": "application/json" };
  return ask(BASE + name, { method: "POST", headers, body: JSON.stringify(body ?? {}) });
}

export function remove(name) {
  return ask(BASE + name, { method: "DELETE" });
}

/** Carries out a command, as over MQTT. */
export async function request(command, body) {
  return (await post(`request/${command}`, body)).data;
}

/** What this device can do: an older or a smaller one has less, and what it has not is not shown. */
export async function capabilities() {
  const { paths } = await ask("openapi.json");
  const has = (name) => `/${BASE}${name}` in paths;
  return { has, takes: (command) => has(`request/${command}`) };
}

export const streamUrl = (source) => `${BASE}stream${source ? `?source=${encodeURIComponent(source)}` : ""}`;
export const clipUrl = (id) => `${BASE}clips/${encodeURIComponent(id)}`;
