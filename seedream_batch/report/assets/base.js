'use strict';

// Everything that the scripts of this page share. They are plain scripts, in the order in which the page names them:
// a page that was opened from the disk may not load modules.
const seedream = {
  // An element with properties and children. Texts become text nodes: nothing is ever read as markup.
  el(tag, properties, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties || {})) {
      if (name === 'class') node.className = value;
      else if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
      else if (name in node && !name.startsWith('aria')) node[name] = value;
      else node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  },

  byId(id) {
    return document.getElementById(id);
  },

  // Tells those who do not see the page what a key has done.
  say(text) {
    seedream.byId('said').textContent = text;
  },
};
