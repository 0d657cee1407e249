'use strict';
{
  // The panel of filters: for each facet its values, with how many images have them.
  const { el, byId } = seedream;
  const MOST = 200;
  const panel = byId('filters');
  const button = byId('open-filters');

  function box(facet, value, count, changed) {
    const input = el('input', {
      type: 'checkbox',
      checked: facet.picked.has(value),
      onchange: () => {
        if (input.checked) facet.picked.add(value);
        else facet.picked.delete(value);
        showCount();
        changed();
      },
    });
    return el('label', null, input, facet.label(value), el('span', { class: 'count' }, count.toLocaleString('en')));
  }

  let facets = [];

  function showCount() {
    const picked = facets.reduce((sum, facet) => sum + facet.picked.size, 0);
    button.textContent = picked ? `Filter (${picked})` : 'Filter';
  }

  function fieldset(facet, items, changed) {
    const counts = new Map();
    for (const item of items) counts.set(facet.value(item), (counts.get(facet.value(item)) || 0) + 1);
    const values = [...counts.keys()].sort((one, other) => (typeof one === 'number' ? one - other : 0));
    const more = values.length - MOST;
    return el(
      'fieldset',
      null,
      el('legend', null, facet.name),
      el(
        'div',
        { class: 'values' },
        ...values.slice(0, MOST).map((value) => box(facet, value, counts.get(value), changed)),
        more > 0 ? el('span', { class: 'count' }, `and ${more.toLocaleString('en')} more: use the search`) : null,
      ),
    );
  }

  function draw(items, changed) {
    panel.replaceChildren(
      ...facets.map((facet) => fieldset(facet, items, changed)),
      el('button', { type: 'button', class: 'reset', onclick: () => seedream.filters.reset() }, 'Show all'),
    );
    showCount();
  }

  seedream.filters = {
    // `changed` is called when another set of items is to be shown.
    open(found, items, changed) {
      facets = found;
      const redraw = () => draw(items, changed);
      button.addEventListener('click', () => {
        panel.hidden = !panel.hidden;
        button.setAttribute('aria-expanded', String(!panel.hidden));
        // Drawn when it is looked at: how many are kept changes all the time.
        if (!panel.hidden) redraw();
        seedream.resized();
      });
      seedream.filters.reset = () => {
        for (const facet of facets) facet.picked.clear();
        redraw();
        changed();
      };
    },
  };
}
