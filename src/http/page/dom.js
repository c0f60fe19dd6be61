// Small helpers: elements by hand, and text that stays text. Nothing here makes markup of a string.

import * as say from "/words.js";

export const by = (id) => document.getElementById(id);

export function put(element, text) {
  // Unchanged text is left alone: what has been read aloud is not read again.
  if (element.textContent !== text) element.textContent = text;
}

export function show(element, isShown) {
  element.hidden = !isShown;
}

export function make(name, properties = {}, ...children) {
  const { role, label, ...rest } = properties;
  const made = Object.assign(document.createElement(name), rest);
  if (role) made.setAttribute("role", role);
  if (label) made.dataset.label = label;
  made.append(...children);
  return made;
}

// A time as its reader's clock has it; pointing at it shows it in UTC.
export function moment(at, words = say.moment) {
  return make("time", { dateTime: at, title: at, textContent: words(new Date(at)) });
}

// Shows the first `max` children of a list, and a button for the rest.
export function foldable(list, button, max) {
  let isOpen = false;
  const fold = () => {
    const children = [...list.children];
    const rest = children.length - max;
    children.forEach((child, i) => show(child, isOpen || i < max));
    show(button, rest > 0);
    put(button, isOpen ? "Show fewer" : `Show ${rest} more`);
    button.ariaExpanded = String(isOpen);
  };
  button.addEventListener("click", () => { isOpen = !isOpen; fold(); });
  return fold;
}
