// Elements by function, and what is said to everybody at once.

/** An element: `h("p", { class: "x", onclick }, "text", child)`. What is null or false is left out. */
export function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && !name.includes("-") && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
}

/** Replaces what is in an element. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

/** Sets a text only where it is another: a screen reader and the browser's layout are spared the rest. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

let fading = 0;

/** Says a line to screen readers alone, when they have time. */
export function tell(text) {
  say(document.getElementById("news"), text);
}

/** Shows a line for some seconds, and says it. */
export function announce(text, isFault = false) {
  const news = document.getElementById("news");
  news.classList.toggle("fault", isFault);
  tell(text);
  news.classList.add("shown");
  clearTimeout(fading);
  // Long enough to read two lines; a fault is read twice.
  fading = setTimeout(() => news.classList.remove("shown"), isFault ? 9000 : 5000);
}

/** A group of radio buttons that looks like one control. */
export function choice(label, options, chosen, choose) {
  const name = `choice-${Math.random().toString(36).slice(2)}`;
  return h("fieldset", { class: "choice" }, h("legend", { class: "hidden" }, label), options.map(([value, text]) =>
    h("label", {}, h("input", { type: "radio", name, value: String(value), checked: value === chosen, onchange: () => choose(value) }),
      h("span", {}, text))));
}

/** Asks before something that can't be undone. */
export function confirm(question, action) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-label": question, onclose: () => { dialog.remove(); resolve(dialog.returnValue === "yes"); } },
      h("form", { method: "dialog" }, h("p", {}, question),
        h("div", { class: "row end" }, h("button", { value: "no" }, "Keep"), h("button", { value: "yes", class: "danger" }, action))));
    document.body.append(dialog);
    dialog.showModal();
  });
}
