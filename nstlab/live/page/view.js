// What a studio shows of a painting, and its buttons. All that is shown comes from the model's
// traits (see viewer.py); what the user does goes back as messages {do: ...}.

import { make } from "./elements.js";

const NOTE = 8000; // ms that a note stays; errors stay until they are read

// An <img> whose bytes may be replaced many times a second: the next one is shown when it is
// decoded.
function picture(alt, className) {
  const img = make("img", { alt, class: className, draggable: "false" });
  let shown = "";
  img.bytes = (data) => {
    if (!data || !data.byteLength) return;
    const next = URL.createObjectURL(new Blob([data], { type: "image/jpeg" }));
    img.src = next;
    if (shown) URL.revokeObjectURL(shown);
    shown = next;
  };
  img.release = () => shown && URL.revokeObjectURL(shown);
  return img;
}

// --- parts: each returns {node, update}

function toolbar(model, send) {
  const go = make(
    "button",
    { class: "nst-go", onclick: () => send({ do: go.dataset.do }) },
    "Start",
  );
  const one = make(
    "button",
    { title: "Make one step and pause", onclick: () => send({ do: "single" }) },
    "Step",
  );
  const save = make(
    "button",
    {
      title: "Write the run, with its changes, into the store",
      onclick: () => send({ do: "save" }),
    },
    "Save run",
  );
  const code = make(
    "button",
    { title: "Python and a command line for these settings", onclick: () => send({ do: "code" }) },
    "Copy as code",
  );
  // only the state is read out, not each step
  const [state_, rest] = [make("span", { role: "status" }), make("span")];
  const status = make("div", { class: "nst-status" }, state_, rest);
  const node = make(
    "div",
    { class: "nst-bar", role: "toolbar", "aria-label": "Run" },
    go,
    one,
    save,
    code,
    status,
  );
  const update = () => {
    const { state, text } = model.get("status");
    const label =
      {
        preparing: "Pause",
        running: "Pause",
        paused: "Resume",
        resting: "Go on",
        failed: "Try again",
      }[state] ?? "Start";
    go.textContent = label;
    go.dataset.do = label === "Pause" ? "pause" : "resume";
    node.dataset.state = state;
    const [word, ...more] = text.split(" · ");
    if (state_.textContent !== word) state_.textContent = word;
    rest.textContent = more.map((part) => ` · ${part}`).join("");
  };
  return { node, update };
}

// The picture, and over it as much of the photo as the slider says.
function stage(model) {
  const after = picture("The picture that is being painted", "nst-after");
  const before = picture("The picture to compare with", "nst-before");
  const slider = make("input", {
    type: "range",
    min: 0,
    max: 100,
    value: 0,
    step: 1,
    "aria-label": "Before and after",
  });
  const box = make(
    "div",
    { class: "nst-canvas" },
    after,
    before,
    make("div", { class: "nst-edge" }),
  );
  const size = make("span", { class: "nst-size" });
  const show = () => box.style.setProperty("--part", `${slider.value}%`);
  const drag = (event) => {
    if (!event.buttons) return;
    const { left, width } = box.getBoundingClientRect();
    slider.value = Math.round((100 * (event.clientX - left)) / width);
    show();
  };
  box.addEventListener(
    "pointerdown",
    (event) => (box.setPointerCapture(event.pointerId), drag(event)),
  );
  box.addEventListener("pointermove", drag);
  slider.addEventListener("input", show);
  show();
  const compare = make("label", { class: "nst-compare" }, make("span"), slider, size);
  const node = make("div", { class: "nst-stage" }, box, compare);
  const update = (name) => {
    if (!name || name === "picture") after.bytes(model.get("picture"));
    if (!name || name === "before") before.bytes(model.get("before"));
    const [width, height] = model.get("shape");
    if (height) box.style.setProperty("--ratio", width / height);
    size.textContent = `${width}×${height} px`;
    slider.previousSibling.textContent = model.get("compared");
  };
  return { node, update, release: () => (after.release(), before.release()) };
}

// Sends a file in parts. If it is too large, only the number of its parts is sent, so that the
// kernel can refuse it.
async function upload(model, file, role, send) {
  const chunk = model.get("chunk");
  const parts = Math.max(1, Math.ceil(file.size / chunk));
  const id = `${performance.now()} ${Math.random()}`;
  const about = (part) => ({ do: "upload", id, role, name: file.name, part, parts });
  if (parts * chunk > model.get("largest")) return send(about(0));
  for (let part = 0; part < parts; part++) {
    send(about(part), [await file.slice(part * chunk, (part + 1) * chunk).arrayBuffer()]);
  }
}

// A row of things that is rebuilt whenever its trait changes. one(thing, image) makes each;
// image(alt, bytes) makes an <img>.
function shelf(node, model, trait, one) {
  let pictures = [];
  const image = (alt, bytes) => {
    const img = picture(alt, "");
    img.bytes(bytes);
    pictures.push(img);
    return img;
  };
  const release = () => (pictures.forEach((img) => img.release()), (pictures = []));
  const update = () => (
    release(),
    node.replaceChildren(...model.get(trait).map((thing) => one(thing, image)))
  );
  return { node, update, release };
}

// Thumbnails of photo and painting. A file can be chosen or dropped on each.
function inputs(model, send) {
  const one = ({ role, label, thumb }, image) => {
    const take = (files) => files.length && upload(model, files[0], role, send);
    const file = make("input", {
      type: "file",
      accept: "image/*",
      "aria-label": `Upload a ${role}`,
    });
    file.addEventListener("change", () => (take(file.files), (file.value = "")));
    const text = make("span", {}, make("b", {}, role), ` ${label}`, make("i", {}, "Upload …"));
    const label_ = make(
      "label",
      { title: `${label}: choose or drop a file for another ${role}` },
      image(`${role}: ${label}`, thumb),
      text,
      file,
    );
    label_.addEventListener("dragover", (event) => event.preventDefault());
    label_.addEventListener(
      "drop",
      (event) => (event.preventDefault(), take(event.dataTransfer.files)),
    );
    return label_;
  };
  return shelf(make("div", { class: "nst-inputs" }), model, "inputs", one);
}

const short = (value) =>
  value === 0 || (value >= 0.01 && value < 1e4) ? value.toPrecision(3) : value.toExponential(1);

// Each term's loss against steps, on a log axis, with dotted lines where weights were changed.
function curves(model) {
  const [W, H, L, B] = [300, 125, 34, 16];
  const legend = make("div", { class: "nst-legend" });
  const svg = make("svg", {
    viewBox: `0 0 ${W} ${H}`,
    preserveAspectRatio: "xMinYMin",
    role: "img",
    "aria-label": "Loss of each term against steps, log axis",
  });
  const node = make("div", { class: "nst-curves" }, legend, svg);
  const update = () => {
    const { steps, series, marks, colours } = model.get("curves");
    const names = Object.keys(series ?? {});
    const values = names.flatMap((name) => series[name]).filter((v) => v > 0);
    legend.replaceChildren(
      ...names.map((name, i) =>
        make(
          "span",
          { style: `--colour:${colours[i]}` },
          `${name} ${short(series[name].at(-1) ?? 0)}`,
        ),
      ),
    );
    if (!values.length) return svg.replaceChildren();
    const low = Math.floor(Math.log10(Math.min(...values))),
      high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values))));
    const last = Math.max(1, steps.at(-1));
    const x = (step) => L + ((W - L - 4) * step) / last;
    const y = (value) => 4 + ((H - B - 4) * (high - Math.log10(value))) / (high - low);
    const line = (attributes) => make("line", attributes);
    const parts = [];
    const stride = Math.ceil((high - low) / 5);
    for (let e = low; e <= high; e += stride) {
      parts.push(line({ class: "nst-grid", x1: L, x2: W - 4, y1: y(10 ** e), y2: y(10 ** e) }));
      parts.push(make("text", { x: L - 4, y: y(10 ** e) + 3, "text-anchor": "end" }, `1e${e}`));
    }
    parts.push(
      make("text", { x: L, y: H - 3 }, "0"),
      make("text", { x: W - 4, y: H - 3, "text-anchor": "end" }, `step ${last}`),
    );
    for (const mark of marks)
      parts.push(line({ class: "nst-mark", x1: x(mark), x2: x(mark), y1: 4, y2: H - B }));
    names.forEach((name, i) => {
      let path = "",
        pen = "M";
      series[name].forEach((value, k) => {
        if (!(value > 0)) return void (pen = "M");
        path += `${pen}${x(steps[k]).toFixed(1)},${y(value).toFixed(1)}`;
        pen = "L";
      });
      parts.push(make("path", { d: path, stroke: colours[i] }));
    });
    svg.replaceChildren(...parts);
  };
  return { node, update };
}

function events(model) {
  const rate = make("div", { class: "nst-rate" });
  const list = make("ol", { "aria-label": "Events", "aria-live": "polite" });
  const node = make("div", { class: "nst-events" }, rate, list);
  const update = (name) => {
    rate.textContent = model.get("status").rate;
    if (name === "status") return;
    // the newest first; only new ones are added, so that only they are read out
    const texts = model.get("events");
    const known = texts.indexOf(list.firstChild?.textContent);
    if (known < 0) list.replaceChildren();
    list.prepend(
      ...texts.slice(0, known < 0 ? texts.length : known).map((text) => make("li", {}, text)),
    );
  };
  return { node, update };
}

function film(model, send) {
  const node = make("div", {
    class: "nst-film",
    role: "group",
    "aria-label": "Snapshots to go back to",
  });
  const one = ({ id, label, thumb }, image) => {
    const title = `Go back to ${label}`;
    return make(
      "button",
      { title, "aria-label": title, onclick: () => send({ do: "back", id }) },
      image("", thumb),
      make("span", {}, label),
    );
  };
  const row = shelf(node, model, "film", one);
  const update = () => {
    const focused = [...node.children].indexOf(document.activeElement);
    row.update();
    if (focused >= 0) node.children[Math.min(focused, node.children.length - 1)]?.focus();
  };
  return { ...row, update };
}

// A dialog with the code. Where the clipboard is not allowed, the text can be selected.
function code(model) {
  const panel = make("dialog", { class: "nst-code", "aria-label": "Code for these settings" });
  const block = (title, text) => {
    const copy = make("button", {}, "Copy");
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
        copy.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(pre);
        copy.textContent = "Selected: press Ctrl-C";
      }
    });
    const pre = make("pre", { tabindex: 0, "aria-label": title }, text);
    return make("section", {}, make("header", {}, make("b", {}, title), copy), pre);
  };
  const update = (name) => {
    const { python, command } = model.get("code");
    if (!name || !python) return;
    const close = make("button", { onclick: () => panel.close(), autofocus: "" }, "Close");
    panel.replaceChildren(block("Python", python), block("Command line", command), close);
    if (!panel.open) panel.showModal();
  };
  return { node: panel, update };
}

function message(model, send) {
  const node = make("div", { class: "nst-message" });
  let timer;
  const update = () => {
    const { text, kind } = model.get("message");
    clearTimeout(timer);
    if (text && kind === "note") timer = setTimeout(() => send({ do: "read" }), NOTE);
    node.hidden = !text;
    node.dataset.kind = kind;
    node.setAttribute("role", kind === "error" ? "alert" : "status");
    const close = make(
      "button",
      { "aria-label": "Close this message", onclick: () => send({ do: "read" }) },
      "×",
    );
    node.replaceChildren(...(text ? [make("span", {}, text), close] : []));
  };
  return { node, update, release: () => clearTimeout(timer) };
}

// Does what has to wait until the view is on the page, and returns a function that undoes it: keys
// are kept from the notebook, which takes arrows and letters as commands, and the handles of
// sliders, which have no names, get those of their labels.
function settle(el) {
  const observer = new MutationObserver(() => name());
  let studio, waiting;
  const name = () => {
    for (const handle of studio.querySelectorAll(".nst-controls .noUi-handle:not([aria-label])")) {
      const label = handle.closest(".jupyter-widgets")?.querySelector(".widget-label")?.textContent;
      if (label) handle.setAttribute("aria-label", label);
    }
  };
  const begin = () => {
    if (!el.isConnected) return void (waiting = requestAnimationFrame(begin));
    studio = el.closest(".nst-studio") ?? el;
    studio.setAttribute("data-lm-suppress-shortcuts", "true");
    name();
    for (const controls of studio.querySelectorAll(".nst-controls"))
      observer.observe(controls, { childList: true, subtree: true });
  };
  begin();
  return () => (cancelAnimationFrame(waiting), observer.disconnect());
}

function render({ model, el }) {
  const send = (content, buffers) => model.send(content, undefined, buffers);
  const parts = {
    status: toolbar(model, send),
    message: message(model, send),
    picture: stage(model),
    inputs: inputs(model, send),
    curves: curves(model),
    events: events(model),
    film: film(model, send),
    code: code(model),
  };
  const also = { picture: ["before", "shape", "compared"], events: ["status"] };
  el.classList.add("nst");
  el.append(
    ...["status", "message", "picture", "inputs", "film", "curves", "events", "code"].map(
      (name) => parts[name].node,
    ),
  );
  const settled = settle(el);

  // The kernel paints only while somebody is looking, and sends a picture once the one before has
  // been answered. There is no timer that says the page is alive, since browsers slow down the
  // timers of hidden pages.
  const alive = () => send({ do: "seen" });
  const handlers = Object.entries(parts).flatMap(([name, part]) =>
    [name, ...(also[name] ?? [])].map((trait) => {
      const handler = () => part.update(trait);
      model.on(`change:${trait}`, handler);
      part.update();
      return [trait, handler];
    }),
  );
  model.on("change:picture", alive);
  model.on("change:status", alive);
  alive();
  return () => {
    for (const [trait, handler] of handlers) model.off(`change:${trait}`, handler);
    model.off("change:picture", alive);
    model.off("change:status", alive);
    for (const part of Object.values(parts)) part.release?.();
    settled();
    send({ do: "gone" });
  };
}

export default { render };
