// Each term's loss against steps, on a log axis.

import { make } from "./elements.js";

const WIDTH = 300; // of the drawing, in its own units, as all that follow
const HEIGHT = 125;
const LEFT = 34; // of the axes
const BOTTOM = 16;
const MARGIN = 4;
const MOST_LINES = 5; // of the grid

const inRange = (value) => value >= 0.01 && value < 1e4;
const format = (value) =>
  value === 0 || inRange(value) ? value.toPrecision(3) : value.toExponential(1);

// What maps steps and losses to the drawing, and the powers of ten at the axis' ends.
function scales(steps, losses) {
  const low = Math.floor(Math.log10(Math.min(...losses)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...losses))));
  const last = Math.max(1, steps.at(-1));
  const width = WIDTH - LEFT - MARGIN;
  const height = HEIGHT - BOTTOM - MARGIN;
  return {
    low, high, last,
    x: (step) => LEFT + (width * step) / last,
    y: (loss) => MARGIN + (height * (high - Math.log10(loss))) / (high - low),
  };
}

// The grid and the labels of both axes.
function axes({ low, high, last, y }) {
  const right = WIDTH - MARGIN;
  const label = (text, x, y, anchor) => make("text", { x, y, "text-anchor": anchor }, text);
  const nodes = [
    label("0", LEFT, HEIGHT - 3, "start"),
    label(`step ${last}`, right, HEIGHT - 3, "end"),
  ];
  for (let power = low; power <= high; power += Math.ceil((high - low) / MOST_LINES)) {
    const height = y(10 ** power);
    nodes.push(make("line", { class: "nst-grid", x1: LEFT, x2: right, y1: height, y2: height }));
    nodes.push(label(`1e${power}`, LEFT - MARGIN, height + 3, "end"));
  }
  return nodes;
}

// The path of one curve; losses of 0, which the axis cannot show, are gaps.
function path(steps, losses, { x, y }) {
  let commands = "";
  let pen = "M";
  losses.forEach((loss, i) => {
    if (loss > 0) commands += `${pen}${x(steps[i]).toFixed(1)},${y(loss).toFixed(1)}`;
    pen = loss > 0 ? "L" : "M";
  });
  return commands;
}

// The curves and their legend, with dotted lines where weights were changed.
export function curves(model) {
  const legend = make("div", { class: "nst-legend" });
  const svg = make("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "xMinYMin",
    role: "img", "aria-label": "Loss of each term against steps, log axis",
  });
  const node = make("div", { class: "nst-curves" }, legend, svg);
  const update = () => {
    const { steps, series, marks, colours } = model.get("curves");
    const terms = Object.entries(series ?? {});
    legend.replaceChildren(...terms.map(([name, losses], i) =>
      make("span", { style: `--colour:${colours[i]}` }, `${name} ${format(losses.at(-1) ?? 0)}`)));
    const positive = terms.flatMap(([, losses]) => losses).filter((loss) => loss > 0);
    if (!positive.length) return svg.replaceChildren();
    const scale = scales(steps, positive);
    const mark = (step) => {
      const x = scale.x(step);
      return make("line", { class: "nst-mark", x1: x, x2: x, y1: MARGIN, y2: HEIGHT - BOTTOM });
    };
    const curve = ([, losses], i) =>
      make("path", { d: path(steps, losses, scale), stroke: colours[i] });
    svg.replaceChildren(...axes(scale), ...marks.map(mark), ...terms.map(curve));
  };
  return { node, update };
}
