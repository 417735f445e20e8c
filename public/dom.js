/**
 * An element with attributes and children. Strings become text nodes, never markup: file names and messages come
 * from strangers.
 *
 * @param {string} tag
 * @param {Record<string, string>} [attributes]
 * @param {...(Node | string)} children
 */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** The element of index.html with this id. */
export function byId(id) {
  return document.getElementById(id);
}
