// Pictures that a widget sends as the bytes of JPEGs.

import { make } from "./elements.js";

// An <img> whose bytes may be replaced many times a second: the next is shown once it is decoded.
export function picture(alt, className) {
  const img = make("img", { alt, class: className, draggable: "false" });
  let url = "";
  img.release = () => {
    if (url) URL.revokeObjectURL(url);
  };
  img.show = (bytes) => {
    if (!bytes?.byteLength) return;
    const next = URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
    img.src = next;
    img.release();
    url = next;
  };
  return img;
}

// A node whose children are made anew whenever a trait changes: each by makeItem(entry, makeImage),
// where makeImage(alt, bytes) makes an <img>.
export function shelf(node, model, trait, makeItem) {
  let images = [];
  const makeImage = (alt, bytes) => {
    const img = picture(alt, "");
    img.show(bytes);
    images.push(img);
    return img;
  };
  const release = () => {
    images.forEach((img) => img.release());
    images = [];
  };
  const update = () => {
    release();
    node.replaceChildren(...model.get(trait).map((entry) => makeItem(entry, makeImage)));
  };
  return { node, update, release };
}
