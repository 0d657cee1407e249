'use strict';
{
  // Images side by side, zoomed and moved together.
  const { el, byId, data, marks, words, windows } = seedream;
  const dialog = byId('compare');
  const stages = byId('compare-stages');
  let zoom = null;

  function choice(item, mark, word) {
    return el(
      'button',
      {
        type: 'button',
        class: 'copy',
        'aria-pressed': String(marks.of(item) === mark),
        'aria-label': `${word} ${item.path}`,
        'data-mark': mark,
        onclick: (event) => choose(item, mark, event.currentTarget),
      },
      word,
    );
  }

  function caption(item) {
    return el(
      'figcaption',
      null,
      el('span', null, `${item.path}, ${item.width} × ${item.height}`),
      choice(item, 'keep', 'Keep'),
      choice(item, 'reject', 'Reject'),
    );
  }

  function figure(item) {
    return el('figure', null, zoom.stage(data.shown(item), item.task.prompt), caption(item));
  }

  // The images stay as they are when something is chosen: only what stands below them changes.
  function choose(item, mark, at) {
    marks.set(item, marks.of(item) === mark ? '' : mark);
    const old = at.closest('figcaption');
    const fresh = caption(item);
    old.replaceWith(fresh);
    fresh.querySelector(`[data-mark="${mark}"]`).focus();
  }

  windows.acts('compare', {
    in: () => zoom.by(1.5),
    out: () => zoom.by(1 / 1.5),
    whole: () => zoom.whole(),
    clear: () => {
      marks.compareNone();
      dialog.close();
    },
  });
  dialog.addEventListener('keydown', (event) => {
    if (zoom.keyed(event.key)) event.preventDefault();
  });

  seedream.compare = {
    open() {
      if (marks.compared.length < 2) {
        seedream.say('Mark two or more images with c to compare them');
        return;
      }
      const items = marks.compared;
      zoom = seedream.zoom();
      byId('compare-title').textContent = `Compare ${words.count(items.length, 'image')}`;
      stages.dataset.columns = Math.min(3, items.length);
      stages.replaceChildren(...items.map(figure));
      windows.open('compare');
    },
  };
}
