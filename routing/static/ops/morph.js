/* Makes one piece of the page look like new HTML, and touches only what differs: focus, selection
   and scrolling survive, and nothing jumps. Rows and items with a data-key keep their identity. */

export function morph(target, html) {
  const fresh = document.createElement("template");
  fresh.innerHTML = html;
  morphChildren(target, fresh.content);
}

function morphChildren(target, fresh) {
  const keyed = new Map();
  for (const child of target.children) {
    if (child.dataset?.key) keyed.set(child.dataset.key, child);
  }
  let here = target.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const twin = wanted.dataset?.key ? keyed.get(wanted.dataset.key) : undefined;
    if (twin && twin !== here) target.insertBefore(twin, here);
    const present = twin ?? here;
    if (present && alike(present, wanted)) {
      morphNode(present, wanted);
      here = present.nextSibling;
    } else {
      target.insertBefore(wanted, here);
    }
  }
  while (here) {
    const next = here.nextSibling;
    here.remove();
    here = next;
  }
}

function alike(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName
    && (a.dataset?.key ?? "") === (b.dataset?.key ?? "");
}

function morphNode(present, wanted) {
  if (present.nodeType !== Node.ELEMENT_NODE) {
    if (present.nodeValue !== wanted.nodeValue) present.nodeValue = wanted.nodeValue;
    return;
  }
  for (const { name, value } of wanted.attributes) {
    if (present.getAttribute(name) !== value) present.setAttribute(name, value);
  }
  for (const { name } of [...present.attributes]) {
    if (!wanted.hasAttribute(name)) present.removeAttribute(name);
  }
  morphChildren(present, wanted);
}
