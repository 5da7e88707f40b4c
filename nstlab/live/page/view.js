// What a studio shows of a painting, and its buttons. All that is shown comes from the model's
// traits (see viewer.py); what the user does goes back as messages {do: ...}.

import { curves } from "./curves.js";
import { make } from "./elements.js";
import { picture, shelf } from "./pictures.js";

const NOTE = 8000; // ms that a note stays; errors stay until they are read
const LABELS = { // of the button that starts and pauses, by the session's state
  preparing: "Pause", running: "Pause", paused: "Resume", resting: "Go on", failed: "Try again",
};

// --- parts: each returns {node, update, and perhaps release}

function toolbar(model, send) {
  const button = (label, title, message) =>
    make("button", { title, onclick: () => send({ do: message }) }, label);
  const start = make(
    "button", { class: "nst-go", onclick: () => send({ do: start.dataset.do }) }, "Start");
  const state = make("span", { role: "status" }); // the state alone is read out, not each step
  const progress = make("span");
  const node = make("div", { class: "nst-bar", role: "toolbar", "aria-label": "Run" },
    start,
    button("Step", "Make one step and pause", "single"),
    button("Save run", "Write the run, with its changes, into the store", "save"),
    button("Copy as code", "Python and a command line for these settings", "code"),
    make("div", { class: "nst-status" }, state, progress));
  const update = () => {
    const status = model.get("status");
    const label = LABELS[status.state] ?? "Start";
    start.textContent = label;
    start.dataset.do = label === "Pause" ? "pause" : "resume";
    node.dataset.state = status.state;
    const [word, ...details] = status.text.split(" · ");
    if (state.textContent !== word) state.textContent = word;
    progress.textContent = details.map((detail) => ` · ${detail}`).join("");
  };
  return { node, update };
}

// The picture, and over it as much of the photo as the slider says.
function stage(model) {
  const after = picture("The picture that is being painted", "nst-after");
  const before = picture("The picture to compare with", "nst-before");
  const edge = make("div", { class: "nst-edge" });
  const canvas = make("div", { class: "nst-canvas" }, after, before, edge);
  const name = make("span");
  const slider = make("input", {
    type: "range", min: 0, max: 100, value: 0, step: 1, "aria-label": "Before and after",
  });
  const size = make("span", { class: "nst-size" });
  const compare = make("label", { class: "nst-compare" }, name, slider, size);
  const node = make("div", { class: "nst-stage" }, canvas, compare);

  const move = () => canvas.style.setProperty("--part", `${slider.value}%`);
  const drag = (event) => {
    if (!event.buttons) return;
    const { left, width } = canvas.getBoundingClientRect();
    slider.value = Math.round((100 * (event.clientX - left)) / width);
    move();
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    drag(event);
  });
  canvas.addEventListener("pointermove", drag);
  slider.addEventListener("input", move);
  move();

  const update = (trait) => {
    if (!trait || trait === "picture") after.show(model.get("picture"));
    if (!trait || trait === "before") before.show(model.get("before"));
    const [width, height] = model.get("shape");
    if (height) canvas.style.setProperty("--ratio", width / height);
    size.textContent = `${width}×${height} px`;
    name.textContent = model.get("compared");
  };
  const release = () => {
    after.release();
    before.release();
  };
  return { node, update, release };
}

// Sends a file in parts. If it is too large, only the number of its parts is sent, so that the
// kernel can refuse it.
async function upload(model, file, role, send) {
  const chunk = model.get("chunk");
  const parts = Math.max(1, Math.ceil(file.size / chunk));
  const id = `${performance.now()} ${Math.random()}`;
  const message = (part) => ({ do: "upload", id, role, name: file.name, part, parts });
  if (parts * chunk > model.get("largest")) return send(message(0));
  for (let part = 0; part < parts; part++) {
    const data = await file.slice(part * chunk, (part + 1) * chunk).arrayBuffer();
    send(message(part), [data]);
  }
}

// Thumbnails of photo and painting. A file can be chosen or dropped on each.
function inputs(model, send) {
  const makeItem = ({ role, label, thumbnail }, makeImage) => {
    const use = (files) => {
      if (files.length) upload(model, files[0], role, send);
    };
    const chooser = make("input", {
      type: "file", accept: "image/*", "aria-label": `Upload a ${role}`,
    });
    chooser.addEventListener("change", () => {
      use(chooser.files);
      chooser.value = "";
    });
    const title = `${label}: choose or drop a file for another ${role}`;
    const text = make("span", {}, make("b", {}, role), ` ${label}`, make("i", {}, "Upload …"));
    const image = makeImage(`${role}: ${label}`, thumbnail);
    const node = make("label", { title }, image, text, chooser);
    node.addEventListener("dragover", (event) => event.preventDefault());
    node.addEventListener("drop", (event) => {
      event.preventDefault();
      use(event.dataTransfer.files);
    });
    return node;
  };
  return shelf(make("div", { class: "nst-inputs" }), model, "inputs", makeItem);
}

// What happened in the run, the newest first, and how fast it is.
function events(model) {
  const rate = make("div", { class: "nst-rate" });
  const list = make("ol", { "aria-label": "Events", "aria-live": "polite" });
  const node = make("div", { class: "nst-events" }, rate, list);
  const update = (trait) => {
    rate.textContent = model.get("status").rate;
    if (trait === "status") return;
    // Only new ones are added, so that only they are read out.
    const texts = model.get("events");
    let added = texts.indexOf(list.firstChild?.textContent);
    if (added < 0) {
      list.replaceChildren();
      added = texts.length;
    }
    list.prepend(...texts.slice(0, added).map((text) => make("li", {}, text)));
  };
  return { node, update };
}

// Buttons that go back to a snapshot; the focus stays on its place.
function snapshots(model, send) {
  const node = make("div", {
    class: "nst-snapshots", role: "group", "aria-label": "Snapshots to go back to",
  });
  const makeItem = ({ id, label, thumbnail }, makeImage) => {
    const title = `Go back to ${label}`;
    const attributes = { title, "aria-label": title, onclick: () => send({ do: "back", id }) };
    return make("button", attributes, makeImage("", thumbnail), make("span", {}, label));
  };
  const row = shelf(node, model, "snapshots", makeItem);
  const update = () => {
    const focused = [...node.children].indexOf(document.activeElement);
    row.update();
    if (focused >= 0) node.children[Math.min(focused, node.children.length - 1)]?.focus();
  };
  return { ...row, update };
}

// A dialog with the code. Where the clipboard is not allowed, the text can be selected.
function code(model) {
  const dialog = make("dialog", { class: "nst-code", "aria-label": "Code for these settings" });
  const section = (title, text) => {
    const pre = make("pre", { tabindex: 0, "aria-label": title }, text);
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
    return make("section", {}, make("header", {}, make("b", {}, title), copy), pre);
  };
  const update = (trait) => {
    const { python, command } = model.get("code");
    if (!trait || !python) return;
    const close = make("button", { onclick: () => dialog.close(), autofocus: "" }, "Close");
    dialog.replaceChildren(section("Python", python), section("Command line", command), close);
    if (!dialog.open) dialog.showModal();
  };
  return { node: dialog, update };
}

// One line above the picture.
function message(model, send) {
  const node = make("div", { class: "nst-message" });
  let timer;
  const update = () => {
    const { text, kind } = model.get("message");
    const read = () => send({ do: "read" });
    clearTimeout(timer);
    if (text && kind === "note") timer = setTimeout(read, NOTE);
    node.hidden = !text;
    node.dataset.kind = kind;
    node.setAttribute("role", kind === "error" ? "alert" : "status");
    node.replaceChildren();
    if (!text) return;
    const close = make("button", { "aria-label": "Close this message", onclick: read }, "×");
    node.append(make("span", {}, text), close);
  };
  return { node, update, release: () => clearTimeout(timer) };
}

// --- the whole

// Does what has to wait until the view is on the page, and returns a function that undoes it: keys
// are kept from the notebook, which takes arrows and letters as commands, and the handles of
// sliders, which have no names, get those of their labels.
function prepareStudio(el) {
  let studio, frame;
  const nameHandles = () => {
    const handles = studio.querySelectorAll(".nst-controls .noUi-handle:not([aria-label])");
    for (const handle of handles) {
      const widget = handle.closest(".jupyter-widgets");
      const label = widget?.querySelector(".widget-label")?.textContent;
      if (label) handle.setAttribute("aria-label", label);
    }
  };
  const observer = new MutationObserver(nameHandles);
  const begin = () => {
    if (!el.isConnected) {
      frame = requestAnimationFrame(begin);
      return;
    }
    studio = el.closest(".nst-studio") ?? el;
    studio.setAttribute("data-lm-suppress-shortcuts", "true");
    nameHandles();
    for (const controls of studio.querySelectorAll(".nst-controls")) {
      observer.observe(controls, { childList: true, subtree: true });
    }
  };
  begin();
  return () => {
    cancelAnimationFrame(frame);
    observer.disconnect();
  };
}

// Calls listener(trait) whenever one of the traits changes, and returns a function that ends it.
function listen(model, traits, listener) {
  const handlers = traits.map((trait) => [`change:${trait}`, () => listener(trait)]);
  for (const [event, handler] of handlers) model.on(event, handler);
  return () => handlers.forEach(([event, handler]) => model.off(event, handler));
}

function render({ model, el }) {
  const send = (content, buffers) => model.send(content, undefined, buffers);
  const parts = [ // with the traits that they show
    [toolbar(model, send), ["status"]],
    [message(model, send), ["message"]],
    [stage(model), ["picture", "before", "shape", "compared"]],
    [inputs(model, send), ["inputs"]],
    [snapshots(model, send), ["snapshots"]],
    [curves(model), ["curves"]],
    [events(model), ["events", "status"]],
    [code(model), ["code"]],
  ];
  el.classList.add("nst");
  el.append(...parts.map(([part]) => part.node));
  const undo = [prepareStudio(el)];
  for (const [part, traits] of parts) {
    part.update();
    undo.push(listen(model, traits, part.update));
    if (part.release) undo.push(part.release);
  }

  // The kernel paints only while somebody is looking, and sends a picture once the one before has
  // been answered. There is no timer that says the page is alive, since browsers slow down the
  // timers of hidden pages.
  const answer = () => send({ do: "seen" });
  undo.push(listen(model, ["picture", "status"], answer));
  answer();
  return () => {
    undo.forEach((action) => action());
    send({ do: "gone" });
  };
}

export default { render };
