// The chart: stored size above, duration below, over the same time. What it shows is also said in a
// sentence and in a table, which page.js makes of the same points.

const NAMESPACE = "http://www.w3.org/2000/svg";
const PANEL = 92;
const GAP = 52;
const TOP = 32;
const LEFT = 64;
const RIGHT = 14;

function shape(name, attributes, text) {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  if (text !== undefined) made.textContent = text;
  return made;
}

// A round number that is not below the largest value, for the upper end of an axis.
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((end) => end >= value * 0.9999);
}

function panel(svg, points, { top, width, name, value, words, x }) {
  const known = points.filter((point) => value(point) !== null);
  const end = roundUp(Math.max(0, ...known.map(value)));
  const y = (amount) => top + PANEL - (amount / end) * PANEL;
  svg.append(shape("text", { x: 0, y: top - 16, class: "name" }, name));
  for (const amount of [0, end / 2, end]) {
    svg.append(shape("line", { x1: LEFT, x2: width - RIGHT, y1: y(amount), y2: y(amount), class: "grid" }));
    svg.append(shape("text", { x: LEFT - 8, y: y(amount) + 4, "text-anchor": "end" }, amount === 0 ? "0" : words(amount)));
  }
  const path = known.map((point, i) => `${i ? "L" : "M"}${x(point.at).toFixed(1)} ${y(value(point)).toFixed(1)}`);
  if (known.length > 1) svg.append(shape("path", { d: path.join(""), class: "line" }));
  // Hundreds of dots would hide the line.
  if (known.length <= 60) {
    for (const point of known) svg.append(shape("circle", { cx: x(point.at), cy: y(value(point)), r: 4, class: "dot" }));
  }
  return y;
}

// Draws `points`, oldest first: { at: Date, size, took, failed }, null where a number is not known.
export function drawChart(box, points, formats) {
  const width = Math.max(260, box.clientWidth);
  const lower = TOP + PANEL + GAP;
  const height = lower + PANEL + 28;
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-labelledby": "chart-words" });
  const [first, last] = [points[0].at.getTime(), points[points.length - 1].at.getTime()];
  const span = last - first;
  const inner = width - LEFT - RIGHT - 12;
  const x = (at) => LEFT + 6 + (span > 0 ? ((at.getTime() - first) / span) * inner : inner / 2);
  panel(svg, points, { top: TOP, width, name: "Stored size", value: (p) => p.size, words: formats.size, x });
  const y = panel(svg, points, { top: lower, width, name: "Duration", value: (p) => (p.failed ? null : p.took), words: formats.took, x });
  for (const point of points.filter((p) => p.failed)) {
    const [cx, cy] = [x(point.at), y(0) - 8];
    svg.append(shape("path", { d: `M${cx - 4} ${cy - 4}l8 8m0-8l-8 8`, class: "failed" }));
  }
  const labels = span > 0 ? [[first, "start"], [last, "end"]] : [[first, "middle"]];
  for (const [time, anchor] of labels) {
    const at = new Date(time);
    svg.append(shape("text", { x: x(at), y: height - 6, "text-anchor": anchor }, formats.moment(at)));
  }
  box.replaceChildren(svg);
}
