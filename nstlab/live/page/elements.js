// How elements of a page are made.

const SVG = "http://www.w3.org/2000/svg";
const HTML = "http://www.w3.org/1999/xhtml";
const SVG_TAGS = new Set(["svg", "path", "line", "text", "g"]);

// An element with attributes, listeners (onclick, …) and children.
export function make(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG_TAGS.has(tag) ? SVG : HTML, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}
