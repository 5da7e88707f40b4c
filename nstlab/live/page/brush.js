// Photo and painting under the colours of their regions (see brush.py), and a brush. What is
// painted is sent when it is used.

import { make } from "./elements.js";

const UNDO = 20; // strokes that can be taken back

// A picture, and over it a canvas of its size with the labels. Nothing is drawn with soft edges,
// which would be colours of their own.
function sheet(brush) {
  const img = make("img", { alt: "", draggable: "false" });
  const canvas = make("canvas", { width: 1, height: 1 });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const file = make("input", { type: "file", accept: "image/png" });
  const caption = make(
    "figcaption",
    {},
    make("span"),
    make("label", {}, "Open a label picture", file),
  );
  const node = make("figure", {}, make("div", {}, img, canvas), caption);
  let last,
    name = "",
    url = "",
    newest = 0;

  const draw = (bitmap) => {
    context.imageSmoothingEnabled = false;
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  };
  const open = async (file) => {
    const bitmap = await createImageBitmap(file).catch(() => null);
    caption.firstChild.textContent = bitmap ? name : `${file.name} is no picture`;
    if (bitmap) (remember(), draw(bitmap));
  };
  const dab = (x, y) => {
    const r = Math.max(0.5, (brush.size * canvas.width) / 200);
    context.fillStyle = brush.colour;
    for (let dy = Math.ceil(-r); dy <= r; dy++) {
      const half = Math.floor(Math.sqrt(r * r - dy * dy));
      context.fillRect(Math.round(x) - half, Math.round(y) + dy, 2 * half + 1, 1);
    }
  };
  const stroke = (event) => {
    if (!event.buttons) return;
    const { left, top, width, height } = canvas.getBoundingClientRect();
    const [x, y] = [
      ((event.clientX - left) * canvas.width) / width,
      ((event.clientY - top) * canvas.height) / height,
    ];
    const [from, count] = [
      last ?? [x, y],
      Math.ceil(last ? Math.hypot(x - last[0], y - last[1]) : 1),
    ];
    for (let i = 1; i <= count; i++)
      dab(from[0] + ((x - from[0]) * i) / count, from[1] + ((y - from[1]) * i) / count);
    last = [x, y];
  };
  const remember = () =>
    brush.undo.push([context, context.getImageData(0, 0, canvas.width, canvas.height)]) > UNDO &&
    brush.undo.shift();
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = undefined;
    remember();
    stroke(event);
  });
  canvas.addEventListener("pointermove", stroke);
  file.addEventListener(
    "change",
    () => (file.files.length && open(file.files[0]), (file.value = "")),
  );

  const show = async (shown) => {
    const number = ++newest;
    const blob = new Blob([shown.picture], { type: "image/jpeg" });
    const { width, height } = await createImageBitmap(blob);
    const labels =
      shown.labels?.byteLength &&
      (await createImageBitmap(new Blob([shown.labels], { type: "image/png" })));
    if (number !== newest) return; // others have come meanwhile
    release();
    brush.undo = [];
    name = shown.name;
    img.src = url = URL.createObjectURL(blob);
    Object.assign(canvas, { width, height });
    context.fillStyle = brush.palette[0];
    context.fillRect(0, 0, width, height);
    canvas.setAttribute("aria-label", `Regions of ${name}`);
    caption.firstChild.textContent = name;
    if (labels) draw(labels);
  };
  const png = () =>
    new Promise((done) =>
      canvas.toBlob(async (blob) => done(await blob.arrayBuffer()), "image/png"),
    );
  const release = () => url && URL.revokeObjectURL(url);
  return { node, show, png, release };
}

function render({ model, el }) {
  const palette = model.get("palette");
  const brush = { palette, colour: palette[8], size: 12, undo: [] };
  const sheets = [sheet(brush), sheet(brush)];
  const swatches = palette.map((colour, i) =>
    make("button", {
      style: `--colour:${colour}`,
      title: `Region ${i + 1}, ${colour}`,
      "aria-label": `Region ${i + 1}`,
      onclick: () => choose(i),
    }),
  );
  const choose = (i) => {
    brush.colour = palette[i];
    swatches.forEach((swatch, k) => swatch.setAttribute("aria-pressed", k === i));
  };
  choose(8);
  const size = make("input", {
    type: "range",
    min: 1,
    max: 40,
    value: brush.size,
    "aria-label": "Size of the brush",
    oninput: () => (brush.size = size.value),
  });
  const back = () =>
    brush.undo.length &&
    (([context, pixels]) => context.putImageData(pixels, 0, 0))(brush.undo.pop());
  const use = async () =>
    model.send({ do: "regions" }, undefined, await Promise.all(sheets.map((each) => each.png())));
  const buttons = make(
    "div",
    { class: "nst-brush" },
    make(
      "button",
      { title: "Paint with these regions, and keep them as label pictures", onclick: use },
      "Use these regions",
    ),
    make("button", { title: "Take the last stroke back", onclick: back }, "Undo"),
    make(
      "button",
      { title: "Paint without regions", onclick: () => model.send({ do: "no regions" }) },
      "No regions",
    ),
  );
  el.classList.add("nst-regions");
  el.append(
    make("div", { class: "nst-brush" }, ...swatches),
    make("label", {}, "brush ", size),
    ...sheets.map(({ node }) => node),
    buttons,
  );

  const update = () => model.get("pictures").forEach((each, i) => sheets[i].show(each));
  model.on("change:pictures", update);
  update();
  const seen = new IntersectionObserver(
    (entries) =>
      entries.some((entry) => entry.isIntersecting) &&
      (seen.disconnect(), model.send({ do: "look" })),
  );
  seen.observe(el);
  return () => {
    model.off("change:pictures", update);
    seen.disconnect();
    sheets.forEach((each) => each.release());
  };
}

export default { render };
