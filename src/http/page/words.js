// Numbers, times and reasons as a person reads them.

const one = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const hourMinute = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { weekday: "long", day: "numeric", month: "long" });

export const score = (value) => (Number.isFinite(value) ? one.format(value) : "–");
/** A level in decibels, with a true minus. */
export const decibels = (value) => (Number.isFinite(value) ? `${Math.round(value)}`.replace("-", "\u2212") : "–");
export const time = (ms) => clock.format(ms);
export const shortTime = (ms) => hourMinute.format(ms);
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
export const count = (number, thing) => `${number} ${thing}${number === 1 ? "" : "s"}`;

/** "Today", "Yesterday", or the day by its name. */
export function dayName(ms) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (ms >= midnight) return "Today";
  return ms >= new Date(midnight - 1).setHours(0, 0, 0, 0) ? "Yesterday" : day.format(ms);
}

export function duration(ms) {
  const seconds = Math.max(0, ms / 1000);
  if (seconds < 9.95) return `${one.format(seconds)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

/** Minutes as one says them: "15 minutes", "3 hours". */
export const span = (minutes) => (minutes < 60 ? count(minutes, "minute") : count(Math.round(minutes / 60), "hour"));

/** Why a window started no event, or what it did: `verdict` has its name, and what the device says of it. */
export function verdict(verdict, prompt, value) {
  const why = verdict?.why ?? "";
  switch (verdict?.name) {
    case "below": return `${value > prompt.start - 1 ? "just " : ""}below its start of ${score(prompt.start)}`;
    case "contrasted": return `a contrast scored higher${/^\d/.test(why) ? `; alone it would be ${why.split(" ")[0]}` : ""}`;
    case "confirming": return `high enough, and ${why || "more windows have to agree"}`;
    case "cooling": return `too soon after the last event${/\d+ s$/.test(why) ? `; ready in ${why.match(/\d+ s$/)[0]}` : ""}`;
    case "gated": return "silence, not scored";
    case "lost": return "part of the sound was lost, so it does not count";
    case "started": return "starts now";
    case "open": return "goes on";
    case "ended": return "has ended";
    case "quiet": return "would have started, but it is quiet time";
    default: return why;
  }
}

/** A source's state: what it is called, what it means, and how it looks. */
export function state(source) {
  if (source?.paused) return ["Paused", "Its sound is dropped until you resume it.", "idle"];
  switch (source?.state) {
    case "live": return ["Listening", "", "good"];
    case "starting": return ["Starting", "It is being opened.", "idle"];
    case "silent": return ["Silent", "Samples come, and not even noise is in them. Is it muted or unplugged?", "bad"];
    case "clipping": return ["Too loud", "The sound is cut off at full scale. Lower its capture volume.", "bad"];
    case "stalled": return ["Stalled", "The device is there and delivers nothing. It is opened again and again.", "bad"];
    case "lost": return ["Away", "The device is unplugged or can't be opened. It is waited for.", "bad"];
    case "recovering": return ["Coming back", "It was away and is being opened again.", "idle"];
    case "ended": return ["Ended", "The recording has been heard to its end.", "idle"];
    case "failing": return ["Failing", "Its sound comes, and the model fails with every window. The log says how.", "bad"];
    case "paused": return ["Paused", "Its sound is dropped until you resume it.", "idle"];
    default: return [capital(source?.state ?? "unknown"), "", "idle"];
  }
}
