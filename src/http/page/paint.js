// What is drawn: colours of the theme, the spectrogram's map, axes and curves.

const scheme = matchMedia("(prefers-color-scheme: dark)");
const repaints = new Set();
let colours = null;
let map = null;

scheme.addEventListener("change", () => {
  colours = map = null;
  for (const repaint of repaints) repaint();
});

/** Calls `repaint` where the theme changes, until what it returns is called. */
export function onTheme(repaint) {
  repaints.add(repaint);
  return () => repaints.delete(repaint);
}

/** The style sheet's colours by name. */
export function theme() {
  if (!colours) {
    const style = getComputedStyle(document.documentElement);
    const names = ["ink", "muted", "line", "card", "accent", "accent-soft", "event", "event-soft"];
    colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  }
  return colours;
}

/** From OKLab, in which equal steps look equal. */
function rgb(lightness, a, b) {
  const [l, m, s] = [
    lightness + 0.3963377774 * a + 0.2158037573 * b,
    lightness - 0.1055613458 * a - 0.0638541728 * b,
    lightness - 0.0894841775 * a - 1.291485548 * b,
  ].map((value) => value ** 3);
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((value) => {
    const linear = Math.min(1, Math.max(0, value));
    return Math.round(255 * (linear <= 0.0031308 ? 12.92 * linear : 1.055 * linear ** (1 / 2.4) - 0.055));
  });
}

/** 256 colours of evenly rising contrast to the ground: lightness alone says it, so that nobody's eyes matter. */
export function spectrogramMap() {
  if (map) return map;
  map = new Uint32Array(256);
  const bytes = new Uint8ClampedArray(map.buffer);
  for (let value = 0; value < 256; value += 1) {
    const share = value / 255;
    // Night: from the ground over blue and teal to a pale yellow. Day: from white over teal to a deep blue.
    const lightness = scheme.matches ? 0.185 + 0.775 * share : 0.985 - 0.74 * share;
    const hue = ((scheme.matches ? 245 - 145 * share : 185 + 75 * share) * Math.PI) / 180;
    const chroma = 0.012 + 0.105 * Math.sin(Math.PI * share ** 0.9) ** 1.2;
    bytes.set([...rgb(lightness, chroma * Math.cos(hue), chroma * Math.sin(hue)), 255], 4 * value);
  }
  return map;
}

/** A canvas's context at the screen's own resolution, cleared, in CSS pixels; none while it is not shown. */
export function begin(canvas) {
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (!width || !height) return null;
  const scale = Math.min(devicePixelRatio || 1, 3);
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600];

/** Times at which a clock shows a round number, a good hand's width apart. */
export function ticks(from, to, width, apart = 90) {
  const seconds = ((to - from) / 1000) * (apart / width);
  const step = 1000 * (STEPS_S.find((step) => step >= seconds) ?? 43200);
  const zone = new Date(to).getTimezoneOffset() * 60000;
  const times = [];
  for (let time = Math.ceil((from - zone) / step) * step + zone; time <= to; time += step) times.push(time);
  return { times, isFine: step < 60000 };
}

export const FONT = "12px Inter, system-ui, sans-serif";
export const BOLD = "600 12px Inter, system-ui, sans-serif";

/** A word on a plate that can be read over anything. */
export function label(context, text, x, y, ground, ink) {
  context.font = BOLD;
  const width = context.measureText(text).width + 12;
  context.fillStyle = ground;
  context.beginPath();
  context.roundRect(x, y, width, 20, 5);
  context.fill();
  context.fillStyle = ink;
  context.textBaseline = "middle";
  context.fillText(text, x + 6, y + 10.5);
  return width;
}
