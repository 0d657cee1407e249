'use strict';
{
  // One image as large as it gets, and all that is known of it.
  const { el, byId, data, marks, words, windows, grid, copyButton } = seedream;
  const dialog = byId('detail');
  const stage = byId('detail-stage');
  const facts = byId('detail-facts');
  let item = null;
  let zoom = null;

  function buttons() {
    const order = grid.order;
    const at = order.indexOf(item);
    const there = item.state === 'stored';
    for (const button of dialog.querySelectorAll('[data-act]')) {
      const { act } = button.dataset;
      if (act === 'previous') button.disabled = at <= 0;
      else if (act === 'next') button.disabled = at < 0 || at >= order.length - 1;
      else if (act === 'keep' || act === 'reject') button.setAttribute('aria-pressed', marks.of(item) === act);
      else if (act === 'compare') button.setAttribute('aria-pressed', marks.compares(item));
      if (['keep', 'reject', 'compare'].includes(act)) button.disabled = !there;
    }
  }

  function heading(text, copied) {
    return el('h3', null, text, copied === undefined ? null : copyButton(text.toLowerCase(), copied));
  }

  function row(name, value, copied) {
    const copy = copied ? copyButton(name.toLowerCase(), copied) : null;
    return [el('dt', null, name), el('dd', null, el('span', null, value), copy)];
  }

  function times(record, file) {
    const found = [];
    if (record.submitted) found.push(row('Submitted', words.time(record.submitted)));
    if (record.submitted && record.ended && record.ended >= record.submitted) {
      found.push(row('Ended', `${words.time(record.ended)}, after ${words.duration(record.ended - record.submitted)}`));
    } else {
      found.push(row('Last change', words.time(record.changed)));
    }
    if (file && item.state === 'stored') found.push(row('Stored', words.time(file.at)));
    return found.flat();
  }

  function money(record) {
    if (record.cost === null) return [];
    const each = record.images > 1 ? ` for ${words.count(record.images, 'image')}` : '';
    return row('Cost', words.usd(record.cost) + each);
  }

  function picture(file) {
    if (!file || item.state !== 'stored') return [];
    const link = el('a', { href: data.picture(item), target: '_blank', rel: 'noopener' }, item.path);
    return [
      ...row('File', link, item.path),
      ...row('Pixels', `${item.width} × ${item.height}, ${file.format}, ${words.bytes(file.bytes)}`),
      ...row('SHA-256', el('code', null, file.sha256), file.sha256),
    ];
  }

  function fill(record) {
    const file = record.files.find((one) => one.index === item.index);
    const state = words.state(item.state);
    const reason = item.reason || record.reason;
    facts.replaceChildren(
      heading('Prompt', item.task.prompt),
      el('p', { class: 'prompt' }, item.task.prompt),
      heading('Task'),
      el(
        'dl',
        { class: 'rows' },
        ...row('State', el('span', { class: state.kind }, `${state.sign} ${state.word}`)),
        ...(reason ? row('Reason', reason) : []),
        ...(record.code ? row('Code', record.code) : []),
        ...data.telling.flatMap((axis) => row(data.job.axes[axis].name, data.word(axis, data.value(axis, item)))),
        ...record.ids.flatMap((id) => row('Task id', el('code', null, id), id)),
        ...(record.attempt > 1 ? row('Attempt', String(record.attempt)) : []),
        ...money(record),
        ...times(record, file),
        ...(item.state === 'stored' ? [] : row('Path', item.path)),
        ...picture(file),
      ),
      heading('Request', record.body),
      el('pre', { tabIndex: 0 }, record.body),
      heading('Cell', record.cell),
      el('pre', { tabIndex: 0 }, record.cell),
    );
  }

  function hole() {
    const state = words.state(item.state);
    const word = el('b', { class: state.kind }, `${state.sign} ${state.word}`);
    return el('div', { class: 'stage-hole' }, word, el('p', null, item.reason));
  }

  async function show(wanted) {
    if (!wanted) return;
    item = wanted;
    zoom = seedream.zoom();
    byId('detail-title').textContent = item.path;
    stage.replaceChildren(item.state === 'stored' ? zoom.stage(data.shown(item), item.task.prompt) : hole());
    facts.replaceChildren();
    facts.scrollTop = 0;
    buttons();
    if (!dialog.open) windows.open('detail');
    try {
      const record = await data.detail(wanted.task);
      if (item === wanted) fill(record);
    } catch (error) {
      facts.replaceChildren(el('p', null, error.message));
    }
  }

  function step(by) {
    show(grid.order[grid.order.indexOf(item) + by]);
  }

  windows.acts('detail', {
    previous: () => step(-1),
    next: () => step(1),
    keep: () => marks.set(item, marks.of(item) === 'keep' ? '' : 'keep'),
    reject: () => marks.set(item, marks.of(item) === 'reject' ? '' : 'reject'),
    compare: () => marks.toggleCompare(item),
  });
  dialog.addEventListener('keydown', (event) => {
    if (event.target.closest('pre')) return;
    if (event.key === 'ArrowLeft') step(-1);
    else if (event.key === 'ArrowRight') step(1);
    else if (!zoom.keyed(event.key)) return;
    event.preventDefault();
  });
  // The grid goes where one has been looking; it may have been filtered meanwhile.
  dialog.addEventListener('close', () => {
    stage.replaceChildren();
    if (item.place) grid.go(item);
  });
  marks.listen(() => dialog.open && buttons());

  seedream.detail = {
    show,
    get item() {
      return dialog.open ? item : null;
    },
  };
}
