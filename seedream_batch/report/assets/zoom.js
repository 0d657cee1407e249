'use strict';
{
  // Images that are zoomed and moved together: the same part of each is in sight, whatever their pixels.
  const { el } = seedream;
  const MOST = 16;

  // `around` holds the stages; what `stage` gives is put into it.
  seedream.zoom = function zoom() {
    let scale = 1;
    let x = 0;
    let y = 0;
    const images = [];

    // x and y are parts of the stage, so that stages of any size show the same.
    function apply() {
      x = Math.min(0, Math.max(1 - scale, x));
      y = Math.min(0, Math.max(1 - scale, y));
      for (const image of images) {
        image.style.transform = `translate(${x * 100}%, ${y * 100}%) scale(${scale})`;
      }
    }

    function by(factor, atX = 0.5, atY = 0.5) {
      const next = Math.min(MOST, Math.max(1, scale * factor));
      x = atX - ((atX - x) * next) / scale;
      y = atY - ((atY - y) * next) / scale;
      scale = next;
      apply();
    }

    function whole() {
      scale = 1;
      x = 0;
      y = 0;
      apply();
    }

    function part(event, stage) {
      const box = stage.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    }

    // An image on a stage of its own.
    function stage(source, text) {
      const image = el('img', { src: source, alt: text, draggable: false });
      const node = el('div', { class: 'stage' }, image);
      images.push(image);
      node.addEventListener(
        'wheel',
        (event) => {
          event.preventDefault();
          by(Math.exp(-event.deltaY / 300), ...part(event, node));
        },
        { passive: false },
      );
      node.addEventListener('dblclick', (event) => (scale > 1 ? whole() : by(3, ...part(event, node))));
      node.addEventListener('pointerdown', (event) => node.setPointerCapture(event.pointerId));
      node.addEventListener('pointermove', (event) => {
        if (!node.hasPointerCapture(event.pointerId)) return;
        x += event.movementX / node.clientWidth;
        y += event.movementY / node.clientHeight;
        apply();
      });
      return node;
    }

    // Whether the key was one of these.
    function keyed(key) {
      if (key === '+' || key === '=') by(1.5);
      else if (key === '-') by(1 / 1.5);
      else if (key === '0') whole();
      else return false;
      return true;
    }

    return { stage, by, whole, keyed };
  };
}
