'use strict';
{
  // One image in the grid, or what stands in its place.
  const { el, arrange, data, marks, words } = seedream;

  function hole(item, size) {
    const state = words.state(item.state);
    const node = el(
      'span',
      { class: `hole ${state.kind}${size.height < 90 || size.width < 90 ? ' low' : ''}` },
      el('b', null, `${state.sign} ${state.word}`),
      item.reason ? el('span', { class: 'why' }, item.reason) : null,
    );
    node.style.width = `${size.width}px`;
    node.style.height = `${size.height}px`;
    return node;
  }

  function image(item, size) {
    return el('img', {
      loading: 'lazy',
      decoding: 'async',
      alt: item.task.prompt,
      width: size.width,
      height: size.height,
      draggable: false,
      src: data.thumbnail(item),
    });
  }

  // They stand on the image, which is in the middle of its frame.
  function flags(item, top, left) {
    const mark = marks.of(item);
    const node = el('span', { class: 'flags' });
    node.style.top = `${top + 5}px`;
    node.style.left = `${left + 5}px`;
    if (mark) node.append(el('span', { class: `flag is-${mark}` }, mark === 'keep' ? '✓ kept' : '✕ rejected'));
    if (marks.compares(item)) node.append(el('span', { class: 'flag is-compare' }, '⇄ compare'));
    return node;
  }

  // What those hear who do not see the tile.
  function description(item, labels) {
    const mark = { keep: ', kept', reject: ', rejected' }[marks.of(item)] || '';
    const reason = item.reason ? `: ${item.reason}` : '';
    const state = item.state === 'stored' ? '' : `, ${words.state(item.state).word}${reason}`;
    const compared = marks.compares(item) ? ', marked for comparison' : '';
    return `${labels.join(', ')}${state}${mark}${compared}: ${item.task.prompt}`;
  }

  // A tile of a width, its image in a frame of a height; `rest` are the axes that its place does not tell of.
  seedream.tile = function tile(item, { width, high, rest, caption }) {
    const size = arrange.box(item, width);
    const frame = el('span', { class: 'frame' }, item.state === 'stored' ? image(item, size) : hole(item, size));
    frame.style.height = `${high}px`;
    const labels = data.labels(item);
    const shown = rest.map((axis) => data.word(axis, data.value(axis, item))).join(' · ');
    const node = el(
      'button',
      {
        type: 'button',
        class: `tile ${marks.of(item)}`,
        tabIndex: -1,
        'aria-label': description(item, labels),
        'data-id': item.id,
      },
      frame,
      flags(item, (high - size.height) / 2, (width - size.width) / 2),
      caption ? el('span', { class: 'caption' }, shown) : null,
    );
    node.title = item.reason ? `${words.state(item.state).word}: ${item.reason}` : '';
    node.style.width = `${width}px`;
    node.item = item;
    return node;
  };
}
