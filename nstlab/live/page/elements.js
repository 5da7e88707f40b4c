// An element of the page with attributes, listeners (onclick, …) and children.
export function make(tag, attributes = {}, ...children) {
  const node = document.createElementNS(
    SVG.has(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml",
    tag,
  );
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}
const SVG = new Set(["svg", "path", "line", "text", "g"]);
