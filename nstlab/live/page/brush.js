// Photo and painting under the colours of their regions (see brush.py), and a brush. What is
// painted is sent when it is used.

import { make } from "./elements.js";

const UNDO = 20; // strokes that can be taken back
const FIRST_REGION = 8; // that the brush has at first
const JPEG = { type: "image/jpeg" };
const PNG = { type: "image/png" };

// A picture, and over it a canvas of its size with the labels. Nothing is drawn with soft edges,
// which would be colours of their own.
function sheet(brush) {
  const img = make("img", { alt: "", draggable: "false" });
  const canvas = make("canvas", { width: 1, height: 1 });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const chooser = make("input", { type: "file", accept: PNG.type });
  const caption = make("span");
  const node = make("figure", {},
    make("div", {}, img, canvas),
    make("figcaption", {}, caption, make("label", {}, "Open a label picture", chooser)));
  let last; // [x, y], where the stroke has come to
  let name = "";
  let url = "";
  let newest = 0; // number of the newest pictures

  const draw = (bitmap) => {
    context.imageSmoothingEnabled = false;
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  };
  const remember = () => {
    brush.undo.push([context, context.getImageData(0, 0, canvas.width, canvas.height)]);
    if (brush.undo.length > UNDO) brush.undo.shift();
  };
  const open = async (file) => {
    const bitmap = await createImageBitmap(file).catch(() => null);
    caption.textContent = bitmap ? name : `${file.name} is no picture`;
    if (!bitmap) return;
    remember();
    draw(bitmap);
  };
  const dab = (x, y) => {
    const radius = Math.max(0.5, (brush.size * canvas.width) / 200);
    context.fillStyle = brush.colour;
    for (let dy = Math.ceil(-radius); dy <= radius; dy++) {
      const half = Math.floor(Math.sqrt(radius * radius - dy * dy));
      context.fillRect(Math.round(x) - half, Math.round(y) + dy, 2 * half + 1, 1);
    }
  };
  const stroke = (event) => {
    if (!event.buttons) return;
    const { left, top, width, height } = canvas.getBoundingClientRect();
    const x = ((event.clientX - left) * canvas.width) / width;
    const y = ((event.clientY - top) * canvas.height) / height;
    const [fromX, fromY] = last ?? [x, y];
    const dabs = last ? Math.ceil(Math.hypot(x - fromX, y - fromY)) : 1;
    for (let i = 1; i <= dabs; i++) {
      dab(fromX + ((x - fromX) * i) / dabs, fromY + ((y - fromY) * i) / dabs);
    }
    last = [x, y];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = undefined;
    remember();
    stroke(event);
  });
  canvas.addEventListener("pointermove", stroke);
  chooser.addEventListener("change", () => {
    if (chooser.files.length) open(chooser.files[0]);
    chooser.value = "";
  });

  const release = () => {
    if (url) URL.revokeObjectURL(url);
  };
  const show = async (entry) => {
    const number = ++newest;
    const picture = new Blob([entry.picture], JPEG);
    const { width, height } = await createImageBitmap(picture);
    let labels = null;
    if (entry.labels?.byteLength) labels = await createImageBitmap(new Blob([entry.labels], PNG));
    if (number !== newest) return; // others have come meanwhile
    release();
    brush.undo = [];
    name = entry.name;
    url = URL.createObjectURL(picture);
    img.src = url;
    Object.assign(canvas, { width, height });
    context.fillStyle = brush.palette[0];
    context.fillRect(0, 0, width, height);
    canvas.setAttribute("aria-label", `Regions of ${name}`);
    caption.textContent = name;
    if (labels) draw(labels);
  };
  const png = async () => {
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, PNG.type));
    return blob.arrayBuffer();
  };
  return { node, show, png, release };
}

// A row of buttons, one for each region, that choose the brush's colour.
function palette(brush) {
  const swatches = brush.palette.map((colour, i) =>
    make("button", {
      style: `--colour:${colour}`, title: `Region ${i + 1}, ${colour}`,
      "aria-label": `Region ${i + 1}`, onclick: () => choose(i),
    }));
  const choose = (index) => {
    brush.colour = brush.palette[index];
    swatches.forEach((swatch, i) => swatch.setAttribute("aria-pressed", i === index));
  };
  choose(FIRST_REGION);
  return make("div", { class: "nst-brush" }, ...swatches);
}

function render({ model, el }) {
  const brush = { palette: model.get("palette"), colour: "", size: 12, undo: [] };
  const sheets = [sheet(brush), sheet(brush)];
  const size = make("input", {
    type: "range", min: 1, max: 40, value: brush.size, "aria-label": "Size of the brush",
    oninput: () => {
      brush.size = size.value;
    },
  });
  const undo = () => {
    if (!brush.undo.length) return;
    const [context, pixels] = brush.undo.pop();
    context.putImageData(pixels, 0, 0);
  };
  const use = async () => {
    const labels = await Promise.all(sheets.map((sheet) => sheet.png()));
    model.send({ do: "regions" }, undefined, labels);
  };
  const button = (label, title, onclick) => make("button", { title, onclick }, label);
  const buttons = make("div", { class: "nst-brush" },
    button(
      "Use these regions", "Paint with these regions, and keep them as label pictures", use),
    button("Undo", "Take the last stroke back", undo),
    button("No regions", "Paint without regions", () => model.send({ do: "no regions" })));
  el.classList.add("nst-regions");
  el.append(
    palette(brush), make("label", {}, "brush ", size), ...sheets.map(({ node }) => node), buttons);

  const update = () => model.get("pictures").forEach((entry, i) => sheets[i].show(entry));
  model.on("change:pictures", update);
  update();
  const observer = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    model.send({ do: "look" });
  });
  observer.observe(el);
  return () => {
    model.off("change:pictures", update);
    observer.disconnect();
    sheets.forEach((sheet) => sheet.release());
  };
}

export default { render };
